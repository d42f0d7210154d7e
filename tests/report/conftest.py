"""Fixtures of the report's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import Chromium, find_chromium
from support.output_roots import Outputs


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    """An empty output root called ``outputs``, as the recipes name it."""
    return Outputs(tmp_path / "outputs")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A Chromium of its own profile."""
    executable = find_chromium()
    if executable is None:
        reason = "needs Chromium (Debian package: chromium)"
        if os.environ.get("CI"):
            pytest.fail(f"must run in CI: {reason}")
        pytest.skip(reason)
    chromium = Chromium(executable, tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()
