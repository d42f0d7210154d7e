"""What a recipe says of own rows: the kind of their answers, and which of them are held out."""

from __future__ import annotations

from typing import Any

import pytest
from sftkey.datasets.base import AnswerKind
from sftkey.datasets.columns import with_columns
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.holdout import is_held_out
from sftkey.datasets.loading import entry_dataset
from sftkey.datasets.own_data import KINDS, as_recipe_says
from sftkey.format.example import SkippedRow

COLUMNS = {"question": "q", "thinking": "t", "answer": "a"}
ENTRY = {"path": "rows.jsonl", "type": "sftkey.datasets.columns"}
CHAT = {"path": "chats.jsonl", "type": "sftkey.datasets.messages"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", [ENTRY, CHAT])
def test_the_kind_is_the_recipes(kind: str, entry: dict[str, Any]) -> None:
    on = entry_dataset(entry, {"sftkey_answers": kind, "sftkey_columns": COLUMNS})
    assert on.kind is AnswerKind(kind)
    assert (on.options is not None) == (kind == "option")


def test_a_published_data_set_is_what_it_is() -> None:
    cfg = {"sftkey_answers": "number", "sftkey_held_out": 0.5}
    assert as_recipe_says(GSM8K, cfg) is GSM8K
    with pytest.raises(ValueError, match="the answers of gsm8k are of the kind number"):
        as_recipe_says(GSM8K, {}, "text")


def test_the_held_out_rows_are_those_of_the_hash_rule() -> None:
    on = entry_dataset(ENTRY, {"sftkey_columns": COLUMNS, "sftkey_held_out": 0.3})
    rows = [{"q": f"{number} + 1?", "t": "I add.", "a": number + 1} for number in range(200)]
    assert on.held_out is not None
    held_out = [row for row in rows if on.held_out(row)]
    assert held_out == [row for row in rows if is_held_out(row["q"], 0.3)]
    assert 30 < len(held_out) < 90
    assert on.evaluation_split == "train"
    assert not on.held_out({"q": " ", "t": "", "a": ""})
    with_file = entry_dataset(ENTRY, {"sftkey_columns": COLUMNS, "sftkey_held_out": 0.3, "test_datasets": [ENTRY]})
    assert with_file.held_out is None


def test_options_in_the_question_are_found_and_the_reference_is_one_of_them() -> None:
    on = as_recipe_says(with_columns(COLUMNS), {"sftkey_answers": "option"})
    row = {"q": "Which planet is red? (A) Venus (B) Mars", "t": "Mars is red.", "a": "(B)"}
    assert on.options is not None
    assert on.options(row) == {"A": "Venus", "B": "Mars"}
    assert on.reference_of(row) == "B. Mars"
    assert on.to_example(row).answer == "(B)"
    with pytest.raises(SkippedRow, match="no lettered options in the question"):
        on.reference_of({**row, "q": "Which planet is red?"})
    with pytest.raises(SkippedRow, match="none of the choices"):
        on.reference_of({**row, "a": "Jupiter"})


@pytest.mark.parametrize(
    ("answer", "trained", "reference"),
    [("B", "B", "B. river"), ("river", "river", "B. river"), (1, "B. river", "B. river"), ("(b)", "(b)", "B. river")],
)
def test_options_in_a_column_are_written_below_the_question(answer: Any, trained: str, reference: str) -> None:
    on = with_columns({**COLUMNS, "options": "choices"})
    row = {"q": "Where?", "t": "Fish.", "a": answer, "choices": ["bank", "river"]}
    example = on.to_example(row)
    assert example.question == on.question_of(row) == "Where?\nA. bank\nB. river"
    assert (example.answer, on.reference_of(row)) == (trained, reference)
    assert on.kind is AnswerKind.OPTION
    assert on.columns == ("q", "a", "choices")
