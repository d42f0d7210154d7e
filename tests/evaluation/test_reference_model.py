"""A reference model is one whose tokens are those of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from demo.tiny_model import make_tokenizer
from sftkey.evaluation.reference_model import load_reference
from sftkey.util.errors import UserError
from support.small_models import small_model

TEXT = "Question 1? <Thinking>Item 1.</Thinking><Answer>2</Answer> "


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer([TEXT * 20], vocab_size=300)


@pytest.fixture
def model(tmp_path: Path, tokenizer: Any) -> Path:
    small_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_same_tokenizer_or_none(model: Path, tokenizer: Any) -> None:
    assert load_reference(str(model), tokenizer).config.vocab_size == len(tokenizer)
    tokenizer.save_pretrained(model)
    assert load_reference(str(model), tokenizer).config.vocab_size == len(tokenizer)


def test_tags_that_were_added_to_the_rows_tokenizer(model: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(model)
    more = type(tokenizer).from_pretrained(model)
    more.add_tokens(["<one>", "<two>"])
    assert load_reference(str(model), more).config.vocab_size == len(tokenizer)


def test_another_tokenizer_of_the_same_size_is_refused(model: Path, tokenizer: Any) -> None:
    other = make_tokenizer(["zyx wvu tsr qpo nml 98 76 " * 20], vocab_size=300)
    other.save_pretrained(model)
    with pytest.raises(UserError, match=r"model has another tokenizer: its token \d+ is .*, that of the rows "):
        load_reference(str(model), tokenizer)
