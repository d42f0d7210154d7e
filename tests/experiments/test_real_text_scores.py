"""Scores of outputs on real text: what the rules say of each item, and differences over seeds and items."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import real_text_scores
from experiments.bits import bits, from_bits

OPTIONS = ("a bank", "a river", "the moon", "a shop", "a field")
ITEMS = 24


def row(number: int) -> dict[str, Any]:
    return {
        "id": str(number),
        "question": f"Where would you look for thing {number}?",
        "choices": {"text": list(OPTIONS), "label": list("ABCDE")},
        "answerKey": "ABCDE"[number % 5],
        "explanation": f"one finds thing {number} in {OPTIONS[number % 5]}",
    }


def output(number: int, right: bool) -> str:
    place = (number if right else number + 1) % 5
    return f"<Thinking>one finds it in {OPTIONS[place]}</Thinking><Answer>{'ABCDE'[place]}. {OPTIONS[place]}</Answer>"


def record(arm: str, seed: int, right: list[bool]) -> dict[str, Any]:
    found: dict[str, Any] = {"stage1": "full", "arm": arm, "seed": seed, "steps": 3, "training_seconds": 1.0}
    found |= {"own": [[output(n, ok), 20, True] for n, ok in enumerate(right)], "environment": {}}
    found["given_reference"] = [[output(n, True).partition("</Thinking>")[2], 9, True] for n in range(ITEMS)]
    if arm == real_text_scores.STAGE1:
        thoughts = [None if n == 0 else "something else" for n in range(ITEMS)]
        loss = [0.5, 0.8, 90, 24]
        found["signals"] = {"thoughts": thoughts, "on_training_rows": loss, "given_reference": loss, "given_own": None}
        found["signals"]["gradient_shares"] = {"thinking": 0.5, "answer": 0.2, "format": 0.3}
    return found


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    data, outputs = tmp_path / "data", tmp_path / "outputs"
    data.mkdir()
    outputs.mkdir()
    rows = [row(number) for number in range(ITEMS)] + [{**row(99), "explanation": "Health complications"}]
    (data / "validation.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    for seed in range(3):
        with gzip.open(outputs / f"seed{seed}.jsonl.gz", "wt") as file:
            for arm, modulus in ((real_text_scores.STAGE1, 2), (real_text_scores.CONTROL, 3), ("answer only", 4)):
                right = [(n + seed) % modulus != 0 for n in range(ITEMS)]
                file.write(json.dumps(record(arm, seed, right)) + "\n")
    return data, outputs


def test_scores_tables_and_diagnosis(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, outputs = folders
    path = tmp_path / "scores.json"
    real_text_scores.main([str(outputs), "--data", str(data), "--output", str(path)])
    result = json.loads(path.read_text())
    first = result["cells"][0]
    assert from_bits(first["right"], ITEMS).tolist() == [float(n % 2 != 0) for n in range(ITEMS)]
    assert from_bits(first["names_it"], ITEMS).tolist() == from_bits(first["right"], ITEMS).tolist()
    for measure in ("right_given_reference", "well_formed", "finished"):
        assert from_bits(first[measure], ITEMS).all()
    diagnosis = first["diagnosis"]
    assert diagnosis["outcomes"]["wrong without a thinking"] == 1
    assert diagnosis["outcomes"]["wrong because of the thinking"] == ITEMS // 2 - 1
    (comparison,) = result["comparisons"]
    assert comparison["right"]["points"] == pytest.approx(100 * (3 / 4 - 2 / 3), abs=0.01)
    assert comparison["right"]["low"] < comparison["right"]["points"] < comparison["right"]["high"]
    assert comparison["right_given_reference"]["points"] == 0
    assert comparison["right"]["p_holm"] == comparison["right"]["p"]
    printed = capsys.readouterr().out
    assert "| full | answer only | 3 | 3 | 75.0 | 100.0 |" in printed
    assert "| full | answer only | 3 of 3 | +8.3 [" in printed


def test_a_record_that_was_being_written_is_left_out_and_told(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = folders[1] / "seed1.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-200])
    assert len(list(real_text_scores.read_outputs(folders[1]))) < 9
    assert "seed1.jsonl.gz: the last record is cut off" in capsys.readouterr().err


def test_bits_come_back() -> None:
    values = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    assert from_bits(bits(values), 10).tolist() == values.tolist()
