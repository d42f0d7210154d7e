"""A Ray worker goes on where the command was given, with what it was given; `tests/e2e/test_ray.py` runs two."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from axolotl.utils.dict import DictDefault
from sftkey.axolotl.ray_workers import KEY, hand_over, take_over
from sftkey.util.errors import UserError


def test_from_the_command_to_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    plain = DictDefault({"output_dir": "out"})
    hand_over(plain, {}, {})
    assert KEY not in plain
    cfg = DictDefault({"use_ray": True, "output_dir": "out"})
    recipe = {"output_dir": "out", "datasets": [{"path": "data", "inner": {"x": 1}}]}
    hand_over(cfg, recipe, {"learning_rate": 1e-5})
    assert take_over(DictDefault({"output_dir": "out"})) is None
    with pytest.raises(UserError, match=f"^{KEY}: the plugin sets it"):
        take_over(DictDefault(cfg.to_dict()))  # from somebody's recipe

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)  # Ray's own folder
    there = DictDefault(cfg.to_dict())
    command = take_over(there)
    assert command is not None
    assert Path.cwd() == tmp_path / "here"
    assert command["recipe"] == recipe
    assert type(command["recipe"]["datasets"][0]["inner"]) is dict  # a DictDefault can't be written
    assert command["settings"] == {"learning_rate": 1e-5}
    assert KEY not in there
    hand_over(there, {}, {})  # not from worker to worker
    assert KEY not in there


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    gone = {"folder": str(tmp_path / "gone"), "recipe": {}, "settings": {}}
    with pytest.raises(UserError, match="which this worker's machine lacks"):
        take_over(DictDefault({KEY: gone}))
    monkeypatch.delitem(sys.modules, "ray")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "8")
    with pytest.raises(UserError, match="use --launcher python"):
        hand_over(DictDefault({"use_ray": True}), {}, {})
