"""The wheel in clean environments, as users install it: the core alone, and ``[eval]`` with the newest lm-eval.

    make test-install

The environments are kept in ``outputs/install``; the wheel is installed anew each time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.availability import REPOSITORY
from support.finished_stages import finish, recipe

pytestmark = [pytest.mark.install, pytest.mark.timeout(3_000)]

PLACE = Path(os.environ.get("INSTALL", REPOSITORY / "outputs" / "install"))
ROWS = [
    {"question": f"Tom has {n} apples and buys 4. How many?", "answer": f"{n} + 4 = {n + 4}.\n#### {n + 4}"}
    for n in range(8)
]
MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sftkey import chat_template
from tiny_model import make_model
make_model(Path("model"), [chat_template("thinking_answer"), *map(str, range(99))] * 4, layers=1, width=32)
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("model")
tokenizer.chat_template = chat_template("thinking_answer")
tokenizer.save_pretrained("model")
"""
TRAIN = """
import json
from datasets import Dataset
from sftkey import METHODS, ExampleTokenizer, RowTokenizer, SegmentCollator, SegmentLossTrainer, chat_template, prepare
from sftkey.datasets.gsm8k import GSM8K
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, TrainingArguments
tokenizer = AutoTokenizer.from_pretrained("model")
model = AutoModelForCausalLM.from_pretrained("model")
rows = Dataset.from_list(json.load(open("rows.json")))
example_tokenizer = ExampleTokenizer(tokenizer, METHODS["key-tag"], GSM8K.untagged)
data, counts = prepare(rows, RowTokenizer(GSM8K, example_tokenizer, sequence_len=512))
trainer = SegmentLossTrainer(
    model=model, args=TrainingArguments("out", max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True),
    train_dataset=data, data_collator=SegmentCollator(DataCollatorForSeq2Seq(tokenizer)))
print(len(data), trainer.train().training_loss > 0)
"""
MISSING = {
    "[axolotl]": "import sftkey; sftkey.SFTKeyPlugin",
    "[eval]": "import sftkey.evaluation.lm_eval_tasks",
    "[report]": "import sftkey.report.figures",
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def environment(name: str, wheel: Path, extra: str) -> Path:
    """A folder with commands; torch first, for the CPU where pip finds one."""
    python = PLACE / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PLACE / name)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    if subprocess.run([*pip, "torch==2.13.0+cpu"], capture_output=True).returncode:
        subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, f"{wheel}{extra}"], check=True)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", str(wheel)], check=True)
    return python.parent


def prepared(folder: Path, commands: Path) -> Run:
    """A folder with rows and a model, and how to run there what the environment has."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SFTKEY_"))}
    variables |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "PATH": f"{commands}:{os.defpath}"}

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [str(commands / command), *arguments]
        return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=900)

    (folder / "rows.json").write_text(json.dumps(ROWS))
    made = run("python", "-c", MAKE, str(REPOSITORY / "tests" / "demo"))
    assert made.returncode == 0, made.stderr
    return run


def test_the_core(wheel: Path, tmp_path: Path) -> None:
    run = prepared(tmp_path, environment("core", wheel, ""))
    for package in ("axolotl", "openai", "math_verify", "matplotlib"):
        assert run("python", "-c", f"import {package}").returncode == 1
    trained = run("python", "-c", TRAIN)
    assert trained.stdout.splitlines()[-1] == "8 True", trained.stderr
    for extra, code in MISSING.items():
        said = run("python", "-c", code).stderr.splitlines()[-1]
        assert f"it comes with sftkey's extra {extra}: pip install" in said
    assert run("sftkey", "recipe", "qwen3_8b_stage2", "-o", "stage2.yml").returncode == 0
    assert run("sftkey", "recipes").stdout.count("\n") > 20
    for words in (["report", "."], ["run", "stage2.yml"], ["inspect", "stage2.yml"]):
        done = run("sftkey", *words)
        assert done.returncode == 1
        assert "isn't installed; it comes with sftkey's extra [" in done.stderr.splitlines()[-1], done.stderr


def test_eval(wheel: Path, tmp_path: Path) -> None:
    commands = environment("eval", wheel, "[eval]")
    run = prepared(tmp_path, commands)
    versions = run(
        "python",
        "-c",
        "from importlib.metadata import version as v; print(v('lm-eval'), v('transformers'), v('openai'))",
    )
    print("\nlm-eval, transformers, openai:", versions.stdout)
    data = tmp_path / "openai" / "gsm8k"
    data.mkdir(parents=True)
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (data / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: rows.jsonl\n---\n"
    )
    assert "All tasks found and valid" in run("lm_eval", "validate", "--tasks", "sftkey,sftkey_plain").stdout
    finish(tmp_path / "done", recipe("sft-tag", "done"), "done.yml")
    shutil.copytree(tmp_path / "model", tmp_path / "done", dirs_exist_ok=True)
    # As after an lm-eval that was installed again: without the copy of the tasks.
    place = run("python", "-c", "import lm_eval.tasks as t; print(t.__path__[0])").stdout.strip()
    shutil.rmtree(Path(place) / "sftkey")
    done = run(
        "sftkey",
        "eval",
        "done",
        "--limit",
        "4",
        "--json",
        "--model-args",
        "dtype=float32",
        "--",
        "--gen_kwargs",
        "max_gen_toks=16",
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["task"], row["items"]) == ("sftkey_gsm8k", 4)
    assert 0 <= row["acc"] <= 1
    path = run("sftkey", "tasks-path").stdout.strip()
    listed = run("lm_eval", "ls", "tasks", "--include_path", path).stdout
    assert "sftkey_openr1_math_plain" in listed
