"""GSM8K: on awkward rows and on every real one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sftkey.datasets import gsm8k
from sftkey.datasets.gsm8k import GSM8K, to_example
from sftkey.format.example import Example, SkippedRow


def make_row(**changes: Any) -> dict[str, Any]:
    row = {"question": "Ann has 3 pens and buys 4. How many?", "answer": "She has 3+4=<<3+4=7>>7 pens.\n#### 7"}
    return {**row, **changes}


def test_calculator_marks_and_marker_are_removed() -> None:
    assert to_example(make_row()) == Example(make_row()["question"], "She has 3+4=7 pens.", "7")


def test_comparisons_are_no_calculator_marks() -> None:
    row = make_row(answer="As 3 < 4 and 5 > 4, take <<2*2=4>>4; a<<b>c stays.\n#### 1,000")
    assert to_example(row) == Example(row["question"], "As 3 < 4 and 5 > 4, take 4; a<<b>c stays.", "1,000")


def test_the_last_marker_counts() -> None:
    assert to_example(make_row(answer="First #### 5\nno:\n#### 7")) == Example(
        make_row()["question"], "First #### 5\nno:", "7"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"answer": "She has 7 pens."}, "no answer"),
        ({"answer": "She has 7 pens.\n#### "}, "no answer"),
        ({"answer": "\n#### 7"}, "empty thinking"),
        ({"answer": "<<3+4=7>>\n#### 7"}, "empty thinking"),
        ({"answer": None}, "missing field: answer"),
        ({"question": " "}, "empty question"),
        ({"question": ["Ann"]}, "not text: question"),
    ],
)
def test_unusable_rows_are_skipped_by_reason(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(SkippedRow) as skipped:
        to_example(make_row(**changes))
    assert skipped.value.reason == expected


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_every_real_row_is_used(split: str, count: int, shared_dir: Path) -> None:
    lines = (shared_dir / "data/gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == count
    for line in lines:
        row = json.loads(line)
        example = to_example(row)
        assert (example.question, example.answer) == (gsm8k.question(row), gsm8k.reference(row))
        assert "####" not in example.thinking
        assert not re.search(r"<<.*=.*>>", example.thinking)
        # Nothing but marks and white space is lost.
        published = re.sub(r"<<[^>]*>>", "", row["answer"])
        pieces = "".join(piece.text for piece in GSM8K.untagged.render(example.thinking, example.answer))
        assert pieces.split() == published.split()
