"""Size and hash of each file, and one hash for a set of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sftkey.stages.manifest import identity, record_files, weights_files


def test_what_counts_as_weights(tmp_path: Path) -> None:
    weights = ["adapter_model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    for name in (*weights, "training_args.bin", "config.json", "tokenizer.json", "README.md"):
        (tmp_path / name).write_text(name)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_text("x")
    assert weights_files(tmp_path) == weights


def test_records_and_identity(tmp_path: Path) -> None:
    contents = {"b": b"two", "a": b"", "sub/c": b"x" * 300_000}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    records = record_files(tmp_path, contents, durable=True)
    assert {name: (record.size, record.sha256) for name, record in records.items()} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    }
    one = identity(records)
    assert one == identity(dict(reversed(records.items())))
    assert one != identity({**records, "b": records["a"]})
    assert one != identity({("d" if name == "b" else name): record for name, record in records.items()})
