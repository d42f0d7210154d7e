"""The "Add a ..." sections of plugins/README.md, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.availability import REPOSITORY

SVAMP = {"Body": "Tom has 8 pens.", "Question": "He loses 2. How many are left?", "Equation": "8 - 2 = 6", "Answer": 6}


def blocks(section: str) -> list[str]:
    """The code blocks of a section, in order."""
    text = (REPOSITORY / "plugins" / "README.md").read_text("utf-8")
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    return re.findall(r"^```\w*\n(.*?)^```$", body, flags=re.M | re.S)


def run(code: str, cwd: Path, *path: Path) -> str:
    """Run Python in `cwd` with folders before the package on its path."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (*path, REPOSITORY / "plugins"))),
        "HF_DATASETS_CACHE": str(cwd / "cache"),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A working directory with the data set and the task of the README."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "__init__.py").touch()
    (tmp_path / "my_lab" / "svamp.py").write_text(blocks("Add a data set")[0])
    task, utils = blocks("Add a task")
    (tmp_path / "my_svamp.yaml").write_text(task)
    (tmp_path / "utils.py").write_text(utils)
    rows = [{**SVAMP, "Answer": number, "Equation": f"{number + 2} - 2 = {number}"} for number in range(1, 9)]
    for name in ("svamp_train.jsonl", "svamp_test.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


@pytest.mark.slow
def test_add_a_data_set(lab: Path, tiny_root: Path) -> None:
    recipe = {
        "base_model": str(tiny_root / "model"),
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "key-tag",
        "datasets": [{"path": "svamp_train.jsonl", "type": "my_lab.svamp"}],
        "sequence_len": 512,
    }
    (lab / "recipe.yml").write_text(json.dumps(recipe))
    code = """
from click.testing import CliRunner
from sftkey.cli.main import sftkey
result = CliRunner().invoke(sftkey, ["inspect", "recipe.yml", "--trust-remote-code"])
print(result.output)
assert result.exit_code == 0, result.exception
"""
    output = run(code, lab, lab)
    assert "Tom has 8 pens. He loses 2. How many are left?" in output
    assert "3 - 2 = 1" in output


@pytest.mark.slow
def test_add_a_task(lab: Path) -> None:
    code = """
from lm_eval.tasks import TaskManager, get_task_dict
task = get_task_dict(["my_svamp"], TaskManager(include_path="."))["my_svamp"]
doc = task.test_docs()[2]
print(len(task.test_docs()), task.doc_to_text(doc), task.doc_to_target(doc), sep="|")
(answer,) = task._filters[0].filters[0]().apply([["<Thinking>5 - 2 = 3</Thinking><Answer>3</Answer>"]], [doc])
metrics = task.process_results(doc, [answer])
print(metrics["acc"], metrics["fmt"], metrics["score"])
"""
    documents, figures = run(code, lab, lab).splitlines()[-2:]
    assert documents == "8|Tom has 8 pens. He loses 2. How many are left?|3"
    assert [float(figure) for figure in figures.split()] == [1.0, 1.0, 1.0]


@pytest.mark.slow
def test_add_a_method(tmp_path: Path, tiny_root: Path) -> None:
    shutil.copytree(
        REPOSITORY / "plugins" / "sftkey", tmp_path / "sftkey", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "sftkey" / "recipes" / "shipped")
    file = tmp_path / "sftkey" / "format" / "methods.py"
    text = file.read_text()
    first = re.search(r'^ *Method\("sft", ', text, flags=re.M)
    assert first is not None
    entry = f"{blocks('Add a method')[0].strip()}\n"
    file.write_text(f"{text[: first.start()]}{entry}{text[first.start() :]}")
    code = f"""
import sftkey
from transformers import AutoTokenizer
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.keys import SFTKeyArgs
assert sftkey.__file__.startswith({str(tmp_path)!r})
SFTKeyArgs(sftkey_method="answer-only")
check_recipe({{"sftkey_method": "answer-only", "plugins": ["sftkey.SFTKeyPlugin"], "base_model": "x",
               "datasets": [{{"path": "openai/gsm8k", "type": "sftkey.datasets.gsm8k"}}]}})
tokenizer = AutoTokenizer.from_pretrained({str(tiny_root / "model")!r})
tokenizer.chat_template = sftkey.chat_template("thinking_answer", "Think first, then answer.")
from sftkey.datasets.gsm8k import GSM8K
tokenize = sftkey.ExampleTokenizer(tokenizer, sftkey.METHODS["answer-only"], GSM8K.untagged)
(example,) = tokenize([sftkey.Example("How many?", "3 + 4 = 7.", "box7")])
print(tokenizer.decode([label for label in example.labels if label >= 0]))
"""
    assert run(code, tmp_path, tmp_path).splitlines()[-1] == "box7"


@pytest.mark.slow
def test_add_an_objective() -> None:
    (block,) = blocks("Add an objective")
    code = f"""
import math
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from sftkey.training.loss import causal_loss
{block}
torch.manual_seed(0)
model = Qwen3ForCausalLM(Qwen3Config(vocab_size=31, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, initializer_range=0.3))
ids = torch.randint(31, (2, 9))
segments = torch.full_like(ids, 5)
loss = causal_loss(model, {{"input_ids": ids}}, ids, segments, objective=Focal(power=3)).loss
each = -model(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
torch.testing.assert_close(loss, ((1 - (-each).exp()) ** 3 * each).mean())
print(Focal.name, Focal().power)
"""
    assert run(code, REPOSITORY).splitlines()[-1] == "focal 2.0"


def test_add_a_model_family(tmp_path: Path) -> None:
    (command,) = blocks("Add a model family")
    words = command.split()
    code = f"""
from click.testing import CliRunner
from sftkey.cli.main import sftkey
result = CliRunner().invoke(sftkey, {words[1:]!r})
assert result.exit_code == 0, (result.output, result.exception)
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.load import load_recipe
for name in ("my_3b_stage1.yml", "my_3b_stage2.yml"):
    recipe = load_recipe(name)
    check_recipe(recipe)
    print(recipe["base_model"], recipe["output_dir"], recipe.get("sftkey_after"))
"""
    assert run(code, tmp_path).splitlines()[-2:] == [
        "my-org/My-3B outputs/my_3b/gsm8k/stage1 None",
        "outputs/my_3b/gsm8k/stage1 outputs/my_3b/gsm8k/stage2 my_3b_stage1.yml",
    ]


@pytest.mark.slow
def test_add_a_trainer(tmp_path: Path, tiny_root: Path, gsm8k_rows: dict[str, list[dict[str, Any]]]) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, gsm8k_rows["train"][:16])))
    (block,) = blocks("Add a trainer")
    code = f"""
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(tiny_root / "model")!r})
model = AutoModelForCausalLM.from_pretrained({str(tiny_root / "model")!r})
rows = load_dataset("json", data_files="rows.jsonl", split="train")
before = model.model.embed_tokens.weight.detach().clone()
{block}
print(len(data), dict(counts), trainer.state.global_step, bool((model.model.embed_tokens.weight != before).any()))
"""
    kept, rest = run(code, tmp_path).splitlines()[-1].split(" ", 1)
    assert int(kept) > 2
    assert rest.endswith(" 4 True")
