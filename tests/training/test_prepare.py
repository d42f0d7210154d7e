"""Preparation without any front end: rows -> tokens, labels and segments, and the counts of what is skipped."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sftkey.datasets import columns
from sftkey.format.methods import METHODS
from sftkey.format.templates import TAGGED, chat_template
from sftkey.format.untagged import UntaggedForm
from sftkey.training.prepare import (
    BATCH_ROWS,
    FEATURES,
    batch_rows,
    describe_counts,
    fingerprint,
    prepare,
    tokenizer_threads,
)
from sftkey.training.rows import MAX_CHARACTERS, TOO_MANY_CHARACTERS, RowTokenizer
from sftkey.training.tokenization import ExampleTokenizer, TokenizedExample

GOOD = {"question": "2+3?", "thinking": "2 and 3.", "answer": "5"}
ROWS = Dataset.from_list([GOOD, {**GOOD, "answer": ""}, {**GOOD, "thinking": "long " * 300}, {**GOOD, "answer": "6"}])


@pytest.fixture
def tokenize(qwen3_tokenizer: Any) -> RowTokenizer:
    qwen3_tokenizer.chat_template = chat_template(TAGGED)
    return RowTokenizer(columns.ROWS, ExampleTokenizer(qwen3_tokenizer, METHODS["key-tag"], columns.ROWS.untagged), 256)


@pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
@pytest.mark.parametrize("keep_in_memory", [False, True])
def test_rows_become_what_a_trainer_reads(tokenize: RowTokenizer, keep_in_memory: bool) -> None:
    prepared, skipped = prepare(ROWS, tokenize, keep_in_memory=keep_in_memory)
    assert prepared.features == FEATURES
    assert skipped == {"no answer": 1, "longer than sequence_len": 1}
    kept = [result for result in tokenize(ROWS.to_list()) if not isinstance(result, str)]
    assert [(row["input_ids"], row["labels"], row["segments"]) for row in prepared] == [tuple(row) for row in kept]
    assert [row["attention_mask"] for row in prepared] == [[1] * len(row.input_ids) for row in kept]
    with pytest.raises(KeyError, match="no column 'thinking' in the data; it has: answer, question"):
        prepare(ROWS.remove_columns("thinking"), tokenize)


@pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
def test_a_row_that_would_fill_the_memory_is_counted_and_never_tokenised(
    tokenize: RowTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    rows = [
        {
            "question": "2+3?",
            "thinking": "2 and 3. " * int(10 ** chance.uniform(0, 2)),
            "answer": chance.choice(["5", " "]),
        }
        for _ in range(200)
    ]
    expected = tokenize(rows)
    assert {type(result) for result in expected} == {str, TokenizedExample}
    # In as many pieces as there are rows, and in some: the same rows, the same tokens, the same reasons.
    longest = max(len(row["thinking"]) for row in rows)
    for limit in (longest + 10, 3 * longest, 20 * longest):
        monkeypatch.setattr("sftkey.training.rows.MAX_CHARACTERS", limit)
        assert tokenize(rows) == expected
    monkeypatch.setattr("sftkey.training.rows.MAX_CHARACTERS", 20)
    assert {result for result in tokenize(rows) if isinstance(result, str)} == {"no answer", TOO_MANY_CHARACTERS}

    seen: list[int] = []
    batch = ExampleTokenizer.batch

    def watched(self: ExampleTokenizer, examples: Any) -> Any:
        seen.append(sum(len(example.thinking) for example in examples))
        return batch(self, examples)

    monkeypatch.undo()
    monkeypatch.setattr(ExampleTokenizer, "batch", watched)
    large = [{**GOOD, "thinking": "x" * 10_000_000}, GOOD, {**GOOD, "thinking": "x" * 30_000}] * 100
    assert [result if isinstance(result, str) else "used" for result in tokenize(large)] == [
        "longer than sequence_len",
        "used",
        "longer than sequence_len",
    ] * 100
    assert max(seen) <= MAX_CHARACTERS
    tokenize.sequence_len = sys.maxsize
    assert tokenize(large[:2])[0] == TOO_MANY_CHARACTERS


def test_fewer_rows_are_read_at_a_time_where_they_are_large() -> None:
    assert batch_rows(ROWS) == BATCH_ROWS
    large = Dataset.from_list([{**GOOD, "thinking": "x" * 8_000_000}] * 5)
    assert 20 < batch_rows(large) < 40


@pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
def test_the_fingerprint_follows_what_decides_the_tokens(tokenize: RowTokenizer) -> None:
    def changed(**changes: Any) -> str:
        given = {"dataset": tokenize.dataset, "sequence_len": 256, "evaluation": False, **changes}
        tokenizer = changes.get("tokenizer", tokenize.tokenizer)
        return fingerprint(
            changes.get("rows", ROWS),
            RowTokenizer(given["dataset"], tokenizer, given["sequence_len"], given["evaluation"]),
        )

    inner = tokenize.tokenizer.tokenizer
    found = [
        changed(),
        changed(rows=ROWS.select([0, 1])),
        changed(sequence_len=255),
        changed(evaluation=True),
        changed(dataset=columns.with_columns({"thinking": "cot"})),
        changed(tokenizer=ExampleTokenizer(inner, METHODS["sft-tag"], columns.ROWS.untagged)),
        changed(tokenizer=ExampleTokenizer(inner, METHODS["key-tag"], UntaggedForm(between="\nSo "))),
    ]
    inner.chat_template = chat_template(TAGGED, "Think.")
    found.append(changed(tokenizer=ExampleTokenizer(inner, METHODS["key-tag"], columns.ROWS.untagged)))
    assert len(set(found)) == len(found)
    assert changed() == found[0]
    assert changed(dataset=columns.with_columns(None)) == found[0]


@pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
@pytest.mark.parametrize("wrap", [lambda function: function, partial])
def test_the_fingerprint_follows_the_code_of_the_users_own(
    tokenize: RowTokenizer, wrap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = set()
    for text in ("def to_example(row): ...", "def to_example(row): raise KeyError"):
        (tmp_path / "lab_of_this_test.py").write_text(text)
        monkeypatch.delitem(sys.modules, "lab_of_this_test", raising=False)
        importlib.invalidate_caches()
        module = importlib.import_module("lab_of_this_test")
        dataset = replace(tokenize.dataset, to_example=wrap(module.to_example))
        found.add(fingerprint(ROWS, RowTokenizer(dataset, tokenize.tokenizer, 256)))
    assert len(found) == 2


def test_counts_in_words() -> None:
    assert describe_counts(5, {}) == "5 rows used, none skipped"
    assert describe_counts(5, {"a": 1, "b": 2}) == "5 rows used, 3 skipped (b: 2, a: 1)"


def test_it_needs_neither_axolotl_nor_lm_eval() -> None:
    code = "import sys; sys.modules['axolotl'] = sys.modules['lm_eval'] = None; import sftkey.training.prepare"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("before", "after"), [("false", "false"), ("true", "true"), (None, "false")])
def test_threads_are_put_back(before: str | None, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)

    def fail_with_threads() -> None:
        with tokenizer_threads(True):
            assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
            raise KeyError

    with pytest.raises(KeyError):
        fail_with_threads()
    assert os.environ["TOKENIZERS_PARALLELISM"] == after
    with tokenizer_threads(False):
        assert os.environ["TOKENIZERS_PARALLELISM"] == after
