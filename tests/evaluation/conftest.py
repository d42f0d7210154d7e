"""Real rows for the evaluation's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def openbookqa_rows(shared_dir: Path) -> list[dict[str, Any]]:
    """The 500 real test rows of OpenBookQA."""
    lines = (shared_dir / "data" / "openbookqa" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
