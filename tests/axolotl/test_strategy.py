"""The dataset strategy: one process with threads and several worker processes give the same rows and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sftkey.axolotl.strategy import read_rows
from sftkey.datasets.gsm8k import GSM8K
from sftkey.format.methods import METHODS
from sftkey.training import prepare as module
from sftkey.training.tokenization import IGNORE_INDEX, ExampleTokenizer

UNUSABLE = [
    ({"question": "", "answer": "so\n#### 1"}, "empty question"),
    ({"question": "q", "answer": "no marker"}, "no answer"),
    ({"question": "q", "answer": "<Answer>\n#### 1"}, "tag in the text"),
    ({"question": "q", "answer": "<|im_end|>\n#### 1"}, "special token in the text"),
    ({"question": "q", "answer": "so " * 3_000 + "\n#### 1"}, "longer than sequence_len"),
]


def prepare(rows: list[dict[str, Any]], tokenizer: Any, folder: Path, processes: int | None) -> tuple[Any, Any]:
    from axolotl.utils.dict import DictDefault

    cfg = DictDefault(
        sequence_len=2_048, sftkey_method="key-tag", dataset_prepared_path=str(folder), datasets=[], test_datasets=[]
    )
    loaded = GSM8K.load(tokenizer, cfg, DictDefault(path="openai/gsm8k", type="sftkey.datasets.gsm8k"))
    prepared = loaded.wrap_dataset(Dataset.from_list(rows), process_count=processes)
    (counts,) = read_rows(cfg).values()
    return prepared, counts


@pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
def test_worker_processes_change_nothing(
    gsm8k_rows: dict[str, list[dict[str, Any]]],
    qwen3_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = gsm8k_rows["test"][:300]
    unusable = [row for row, _ in UNUSABLE]
    rows = [*unusable, *real[:150], *unusable, *real[150:], *unusable]
    expected = ExampleTokenizer(qwen3_tokenizer, METHODS["key-tag"], GSM8K.untagged)(list(map(GSM8K.to_example, real)))
    asked, whole_map = [], Dataset.map
    monkeypatch.setattr(
        Dataset,
        "map",
        lambda self, *args, **kwargs: asked.append(kwargs["num_proc"]) or whole_map(self, *args, **kwargs),
    )
    alone, alone_counts = prepare(rows, qwen3_tokenizer, tmp_path / "alone", None)
    monkeypatch.setattr(module, "ROWS_PER_WORKER", 100)
    together, together_counts = prepare(rows, qwen3_tokenizer, tmp_path / "together", 2)
    assert asked == [None, 2]
    for prepared in (alone, together):
        assert [tuple(row) for row in expected] == [
            (row["input_ids"], row["labels"], row["segments"]) for row in prepared
        ]
        assert all(row["attention_mask"] == [1] * len(row["input_ids"]) for row in prepared)
    assert alone_counts["rows_used"] == len(real)
    assert alone_counts["rows_skipped"] == {reason: 3 for _, reason in UNUSABLE}
    assert together_counts == alone_counts


@pytest.mark.parametrize("tag_mode", ["text"], indirect=True)
def test_fingerprint_follows_what_decides_the_labels(qwen3_tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "so\n#### 1"}]
    first, _ = prepare(rows, qwen3_tokenizer, tmp_path, None)
    same, _ = prepare(rows, qwen3_tokenizer, tmp_path, None)
    assert same._fingerprint == first._fingerprint
    qwen3_tokenizer.add_tokens(["<Thinking>", "</Thinking>", "<Answer>", "</Answer>"])
    tokens, _ = prepare(rows, qwen3_tokenizer, tmp_path, None)
    assert tokens._fingerprint != first._fingerprint
    assert [label for label in tokens[0]["labels"] if label != IGNORE_INDEX] != [
        label for label in first[0]["labels"] if label != IGNORE_INDEX
    ]
