"""What tests need beyond the checkout, and what happens where it can't be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"


def skip_or_fail(reason: str) -> None:
    """Skip with the reason; in CI, where everything has to run, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"must run in CI: {reason}")
    pytest.skip(reason)
