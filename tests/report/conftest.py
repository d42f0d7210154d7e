"""Fixtures of the report's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.output_roots import Outputs


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    """An empty output root called ``outputs``, as the recipes name it."""
    return Outputs(tmp_path / "outputs")
