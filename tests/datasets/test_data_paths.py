"""Every form of `path` and `data_files` that `datasets` takes reaches Axolotl in one that it loads, with the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from sftkey.datasets.data_paths import loadable
from sftkey.util.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(*names: str) -> list[dict[str, str]]:
    return [{"question": name, "thinking": "t", "answer": name} for name in names]


def write(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(*names)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "data/a.jsonl", "a1", "a2", "a3")
    write(tmp_path / "data/b.jsonl", "b1")
    write(tmp_path / "data/deep/c.jsonl", "c1")
    write(tmp_path / "one.jsonl", "o1", "o2")
    Dataset.from_list(rows("p1", "p2")).to_parquet(tmp_path / "p.parquet")
    Dataset.from_list(rows("v1")).to_csv(tmp_path / "v.csv", index=False)
    Dataset.from_list(rows("s1", "s2", "s3")).save_to_disk(tmp_path / "saved")
    parts = {"train": Dataset.from_list(rows("d1", "d2")), "test": Dataset.from_list(rows("d3", "d4"))}
    DatasetDict(parts).save_to_disk(tmp_path / "parts")
    return tmp_path


def loaded(entry: dict[str, Any]) -> list[str]:
    """The questions of the rows, loaded as Axolotl does."""
    from axolotl.utils.data.shared import load_dataset_with_config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.datasets import SFTDataset

    found = loadable(entry, "datasets[0]")
    SFTDataset.model_validate({**found, "type": "sftkey.datasets.columns"})
    dataset = load_dataset_with_config(DictDefault(found), False)
    if isinstance(dataset, DatasetDict):
        dataset = dataset[found.get("split") or "train"]
    return [row["question"] for row in dataset]


FORMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "file": ({"path": "one.jsonl"}, ["o1", "o2"]),
    "file, slice": ({"path": "one.jsonl", "split": "train[:1]"}, ["o1"]),
    "pattern": ({"path": "data/*.jsonl"}, ["a1", "a2", "a3", "b1"]),
    "pattern, slice": ({"path": "data/*.jsonl", "split": "train[1:]"}, ["a2", "a3", "b1"]),
    "deep pattern": ({"path": "data/**/*.jsonl"}, ["a1", "a2", "a3", "b1", "c1"]),
    "other pattern": ({"path": "data/[b].jsonl"}, ["b1"]),
    "format and file": ({"path": "json", "data_files": "one.jsonl"}, ["o1", "o2"]),
    "format and files": ({"path": "json", "data_files": ["one.jsonl", "data/b.jsonl"]}, ["o1", "o2", "b1"]),
    "format and pattern": ({"path": "json", "data_files": "data/?.jsonl"}, ["a1", "a2", "a3", "b1"]),
    "parquet": ({"path": "parquet", "data_files": "p.parquet"}, ["p1", "p2"]),
    "csv": ({"path": "csv", "data_files": ["v.csv"]}, ["v1"]),
    "parquet by suffix": ({"path": "*.parquet"}, ["p1", "p2"]),
    "folder and file in it": ({"path": "data", "data_files": "a.jsonl"}, ["a1", "a2", "a3"]),
    "folder and pattern in it": ({"path": "data", "data_files": ["deep/*.jsonl"], "split": "train"}, ["c1"]),
    "folder and files from here": ({"path": "data", "data_files": ["data/b.jsonl"]}, ["b1"]),
    "files by split": ({"path": "json", "data_files": {"train": "one.jsonl", "test": "data/a.jsonl"}}, ["o1", "o2"]),
    "another split": (
        {"path": "json", "data_files": {"train": "one.jsonl", "test": ["data/a.jsonl"]}, "split": "test[:2]"},
        ["a1", "a2"],
    ),
    "saved": ({"path": "saved"}, ["s1", "s2", "s3"]),
    "saved, slice": ({"path": "saved", "split": "train[1:]"}, ["s2", "s3"]),
    "saved parts": ({"path": "parts", "split": "test"}, ["d3", "d4"]),
    "saved parts, slice": ({"path": "parts", "split": "test[:50%]"}, ["d3"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_loaded(place: Path, name: str) -> None:
    entry, expected = FORMS[name]
    assert loaded(entry) == expected
    absolute = {
        key: str(place / value) if key == "path" and (place / value).exists() else value for key, value in entry.items()
    }
    assert loaded(absolute) == expected


def test_an_address_that_axolotl_does_not_know(place: Path) -> None:
    for address in ("http://example.com/rows.csv", "hf://datasets/owner/name/rows.csv"):
        expected = {"path": ".", "data_files": [address], "ds_type": "csv", "split": "train"}
        assert loadable({"path": address}, "datasets[0]") == expected
    mixed = loadable({"path": "json", "data_files": ["http://example.com/r.jsonl", "one.jsonl"]}, "datasets[0]")
    assert mixed["data_files"] == ["http://example.com/r.jsonl", "one.jsonl"]


def test_what_matches_nothing_is_one_line(place: Path) -> None:
    for entry in ({"path": "data/*.parquet"}, {"path": "json", "data_files": "nowhere.jsonl"}):
        with pytest.raises(UserError, match=r"datasets\[0\]: no file matches .*; a path is relative to"):
            loadable(entry, "datasets[0]")
    with pytest.raises(UserError, match=r"has no split 'test'; it has train"):
        loadable({"path": "json", "data_files": {"train": "one.jsonl"}, "split": "test"}, "datasets[0]")


def test_what_axolotl_loads_by_itself_stays(place: Path) -> None:
    for entry in (
        {"path": "openai/gsm8k", "name": "main", "split": "train"},
        {"path": "owner/name", "data_files": "train/*.jsonl"},
        {"path": "data"},
        {"path": "https://example.com/rows.jsonl"},
        {"path": "s3://bucket/rows.jsonl"},
    ):
        assert loadable(entry, "datasets[0]") == entry
