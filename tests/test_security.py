"""SECURITY.md names only tests that exist, and every promise has one."""

from __future__ import annotations

import ast
import re

import pytest
from support.availability import REPOSITORY

TEXT = (REPOSITORY / "SECURITY.md").read_text("utf-8")
PROMISES = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| promise")]


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 60
    assert len(PROMISES) >= 12


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_shown_by_a_test_that_exists(promise: str) -> None:
    names = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
    assert names
    for path, name in names:
        tree = ast.parse((REPOSITORY / path).read_text("utf-8"))
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in found, f"{path}::{name}"
