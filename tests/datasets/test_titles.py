"""What own rows are called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.titles import data_slug, data_title


@pytest.mark.parametrize(
    ("path", "title", "slug"),
    [
        ("my_rows.jsonl", "my_rows", "my_rows"),
        ("/data/My Rows.v2.csv.gz", "My Rows.v2", "my_rows_v2"),
        ("svamp/train.parquet", "svamp (train)", "svamp_train"),
        ("my-org/maths", "maths", "maths"),
        ("数学.jsonl", "数学", "rows"),
    ],
)
def test_names(path: str, title: str, slug: str) -> None:
    assert (data_title(path), data_slug(path)) == (title, slug)


@given(st.text())
def test_a_slug_is_a_plain_name(path: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9_]{0,58}[a-z0-9])?", data_slug(path))
