"""The files of an entry are those that `datasets` and Axolotl read, and no others."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from sftkey.datasets.entry_files import local_files, matching, missing


def test_files_of_an_entry(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "notes.md", "deep/c.parquet", ".hidden/d.jsonl", "dataset_info.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    def names(**entry: object) -> list[str]:
        return sorted(path.name for path in local_files(entry))

    assert names(path=str(tmp_path)) == ["a.jsonl", "b.jsonl", "c.parquet"]
    assert names(path=str(tmp_path / "notes.md")) == ["notes.md"]
    assert names(path=str(tmp_path / "*.jsonl")) == ["a.jsonl", "b.jsonl"]
    assert names(path="json", data_files=str(tmp_path / "a.jsonl")) == ["a.jsonl"]
    assert names(path=str(tmp_path), data_files=["a.jsonl", "deep/*.parquet"]) == ["a.jsonl", "c.parquet"]
    assert names(path="json", data_files={"train": str(tmp_path / "a.jsonl"), "test": [str(tmp_path / "b.jsonl")]}) == [
        "a.jsonl",
        "b.jsonl",
    ]
    assert names(path="openai/gsm8k", name="main") == []
    assert names(path="https://example.com/a.jsonl") == []


def test_files_in_a_repository_are_not_those_of_the_same_name_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("{}\n")
    assert local_files({"path": "owner/name", "data_files": "train.jsonl"}) == []
    assert local_files({"path": "json", "data_files": "train.jsonl"}) == [Path("train.jsonl")]
    assert local_files({"path": "x" * 5_000, "data_files": "train.jsonl"}) == []


def test_of_a_folder_what_datasets_reads(tmp_path: Path) -> None:
    from datasets import load_dataset

    row = json.dumps({"question": "q"}) + "\n"
    for name in ("a.jsonl", "_old/b.jsonl", "__cache/c.jsonl", ".git/d.jsonl", "_e.jsonl", ".f.jsonl", "config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(row)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "deep" / "er" / "g.jsonl.zip", "w") as archive:
        archive.writestr("g.jsonl", row)
    found = local_files({"path": str(tmp_path)})
    assert sorted(path.name for path in found) == ["_e.jsonl", "a.jsonl", "b.jsonl", "g.jsonl.zip"]
    loaded = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / ".cache"))
    assert len(loaded) == len(found)


def test_what_a_name_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "data/rows.jsonl", "data/a/b/c.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")
    assert matching("rows.jsonl", "data") == ["rows.jsonl"]
    assert matching("a", "data") == ["data/a/b/c.csv"]
    assert matching("**/*.csv", "data") == ["data/a/b/c.csv"]
    assert matching("s3://bucket/rows.jsonl") == ["s3://bucket/rows.jsonl"]
    assert matching("nothing*") == matching("\0") == matching("x" * 5_000) == []


def test_a_name_that_can_only_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.jsonl").write_text("{}")
    assert missing({"path": "here.jsonl"}) == missing({"path": "./*.jsonl"}) == missing({"path": "owner/name"}) == []
    assert missing({"path": "gone.jsonl"}) == ["gone.jsonl"]
    assert missing({"path": "../gone"}) == ["../gone"]
    assert missing({"path": "owner/name", "data_files": {"train": ["a.jsonl"], "test": "/gone.csv"}}) == ["/gone.csv"]
    assert missing({"path": "https://example.com/gone.jsonl"}) == []
