"""Fixtures of the commands' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.axolotl_recipes import stage2_of, write_recipe
from support.fake_commands import install
from support.run_place import STAGE1, Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    install(tmp_path / "bin", tmp_path / "record.jsonl", monkeypatch)
    write_recipe(tmp_path / "stage1.yml", STAGE1)
    write_recipe(tmp_path / "stage2.yml", stage2_of(STAGE1))
    return Place(tmp_path)
