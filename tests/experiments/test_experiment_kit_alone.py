"""The experiment kit where only what its README names is installed, and on input that it can't use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sftkey.format.methods import METHODS
from sftkey.training.fit import with_template

from experiments.data import load_data, usable_rows
from experiments.models import load_model
from experiments.run import main
from experiments.settings import Settings

NEEDED = ("torch", "transformers", "accelerate", "numpy", "safetensors", "statsmodels", "pydantic")
NOT_NEEDED = ("axolotl", "lm_eval", "sftkey", "datasets", "peft", "trl", "openai", "math_verify", "matplotlib")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and rows in the form of GSM8K."""
    from demo.setup_demo import set_up

    folder = tmp_path_factory.mktemp("alone")
    set_up(folder, train=1, test=1)
    for split, count in (("train", 40), ("test", 6)):
        rows = [
            {"question": f"What is {n} plus 2?", "answer": f"{n}+2=<<{n}+2={n + 2}>>{n + 2}.\n#### {n + 2}"}
            for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def arguments(root: Path, output: Path, *more: str, dataset: str = "gsm8k") -> list[str]:
    files = ("--train", str(root / "train.jsonl"), "--test", str(root / "test.jsonl"))
    return ["--model", str(root / "model"), "--dataset", dataset, *files, "--output", str(output), *more]


SMALL = "--seeds 1 --epochs 0.5 --batch-size 8 --micro-batch-size 8 --max-new-tokens 8 --diagnosis-rows 3".split()


def installed_alone(folder: Path) -> Path:
    """A folder with links to `NEEDED` and what they depend on, and to nothing else."""
    folder.mkdir()
    left, seen = list(NEEDED), set()
    while left:
        name = canonicalize_name(left.pop())
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
        for entry in {Path(str(file)).parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (folder / entry).exists():
                (folder / entry).symlink_to(distribution.locate_file(entry))
    return folder


def test_runs_where_only_what_it_needs_is_installed(root: Path, repository: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed_alone(tmp_path / "site")),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    # -S: nothing of this Python's own packages, the editable install of sftkey included.
    python = [sys.executable, "-S"]
    check = f"from importlib.util import find_spec; print([n for n in {NOT_NEEDED!r} if find_spec(n)])"
    done = subprocess.run([*python, "-c", check], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    script = str(repository / "tests" / "experiments" / "run.py")
    done = subprocess.run(
        [*python, script, *arguments(root, tmp_path / "out", *SMALL)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["strategies"]) == ["SFT-Tag", "SFTKey-Tag", "SFT-Tag continued", "SFT", "Key-Tag"]
    assert all(found["items"] == 6 for found in summary["strategies"].values())
    assert summary["strategies"]["SFT-Tag"]["diagnosis"][0]["rows"] == 3


def test_input_that_it_cannot_use_is_a_short_error(root: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    out = tmp_path / "out"

    def refused(*more: str, dataset: str = "gsm8k") -> str:
        with pytest.raises(SystemExit) as exit:
            main(arguments(root, out, *SMALL, *more, dataset=dataset))
        return str(exit.value)

    assert (
        refused("--test", str(empty))
        == f"error: {empty}: no row has a question and a reference answer; it holds no rows"
    )
    assert refused("--train", str(empty)) == f"error: {empty}: no row can be trained on; it holds no rows"
    assert "no_such.jsonl" in refused("--test", "no_such.jsonl")
    assert (
        refused("--model", "my/model") == "error: --model my/model: there is no such folder; download the model first"
    )
    assert "no column 'question_stem' in the data; it has: answer, question" in refused(dataset="openbookqa")
    assert "batch size 8 isn't a multiple of 3" in refused("--micro-batch-size", "3")
    assert "no row can be trained on; longer than sequence_len: 40" in refused("--sequence-len", "8")
    assert not (out / "cells").exists() or not list((out / "cells").iterdir())


@pytest.mark.parametrize("bad", [("--seeds", "0"), ("--items", "0"), ("--epochs", "0"), ("--minutes", "-1")])
def test_limits_are_positive(
    root: Path, tmp_path: Path, bad: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments(root, tmp_path, *bad))
    assert exit.value.code == 2
    assert f"argument {bad[0]}" in capsys.readouterr().err


def test_a_folder_keeps_to_its_rows(root: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text((root / "train.jsonl").read_text())
    given = arguments(root, tmp_path / "out", *SMALL, "--train", str(train), "--minutes", "0.00001")
    main(given)
    train.write_text((root / "train.jsonl").read_text().replace("plus 2", "plus two"))
    with pytest.raises(SystemExit, match="holds an experiment with other rows in the training file"):
        main(given)


@pytest.mark.parametrize(
    "row", [{"question": "What?", "answer": "4"}, {"question": "What?", "thinking": "", "answer": "4"}]
)
def test_test_rows_need_no_thinking(root: Path, tmp_path: Path, row: dict[str, Any]) -> None:
    full = {"question": "Which?", "thinking": "3+1=4.", "answer": "4"}
    for split, rows in (("train", [full]), ("test", [row, full] if "thinking" in row else [row])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    settings = Settings(
        model=str(root / "model"),
        dataset="columns",
        train_file=str(tmp_path / "train.jsonl"),
        test_file=str(tmp_path / "test.jsonl"),
    )
    data = load_data(settings)
    assert len(data.test) == (2 if "thinking" in row else 1)
    _, tokenizer = load_model(settings)
    method = METHODS["sft-tag"]
    usable = usable_rows(data, with_template(tokenizer, method, settings.system_message), method, 10, test=True)
    assert [row for row, _ in usable] == ([full] if "thinking" in row else [])
