"""Which rows a stage was trained on, by a hash of their tokens: to tell whether a later stage evaluates on them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from sftkey.util.files import write_bytes_atomically

ROW_IDS_FILE = "sftkey_rows.ids"
"""In the output directory: eight bytes a row."""

_TYPE = np.dtype("<u8")


def row_ids(rows: Any) -> np.ndarray:
    """The hash of the tokens of each row of a `datasets.Dataset`, prompt and response."""
    ids = []
    for batch in rows.select_columns(["input_ids"]).with_format("numpy").iter(batch_size=1000):
        for tokens in batch["input_ids"]:
            data = np.ascontiguousarray(tokens, dtype="<i8").tobytes()
            ids.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))
    return np.array(ids, dtype=_TYPE)


def write_row_ids(output_dir: Path, ids: np.ndarray) -> None:
    """Keep the hashes of the rows that a stage is trained on."""
    write_bytes_atomically(output_dir / ROW_IDS_FILE, [ids.tobytes()])


def read_row_ids(output_dir: Path) -> np.ndarray:
    """The hashes that a stage has left; none where it left no file."""
    path = output_dir / ROW_IDS_FILE
    content = path.read_bytes() if path.is_file() else b""
    return np.frombuffer(content[: len(content) // _TYPE.itemsize * _TYPE.itemsize], dtype=_TYPE)
