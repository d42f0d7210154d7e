"""What keeps a resumed run from ending elsewhere than an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest
from sftkey.stages.checkpoints import refuse_inexact, split_by_completeness, warnings_before_training, world_size_of
from sftkey.stages.marker import RunFile
from sftkey.util.errors import UserError


def checkpoint(folder: Path, step: int, *names: str) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"x")
    return path


def test_random_states_of_all_processes(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 1, "rng_state_0.pth", "rng_state_1.pth")
    partial = checkpoint(tmp_path, 2, "rng_state_0.pth")
    single = checkpoint(tmp_path, 3, "rng_state.pth")
    assert split_by_completeness([whole, partial], {}, 2) == ([whole], [partial])
    assert split_by_completeness([single], {}, 1) == ([single], [])
    assert split_by_completeness([partial], {"save_only_model": True}, 2) == ([partial], [])


def test_no_optimizer(tmp_path: Path) -> None:
    for names in (("optimizer.pt",), ("global_step5",), ("optimizer_0",)):
        refuse_inexact(checkpoint(tmp_path / names[0], 5, *names), None, 1)
    with pytest.raises(UserError, match="holds no optimizer state"):
        refuse_inexact(checkpoint(tmp_path, 5, "model.safetensors"), None, 1)


def test_other_number_of_processes(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 5, "optimizer.pt")
    refuse_inexact(path, RunFile(world_size=8), 8)
    with pytest.raises(UserError, match=r"made by 8 processes, this run has 4: .* Start 8 processes"):
        refuse_inexact(path, RunFile(world_size=8), 4)
    assert world_size_of(RunFile(world_size=8), 4) == 8
    assert world_size_of(RunFile(), 4) == world_size_of(None, 4) == 4


def test_warnings() -> None:
    assert warnings_before_training({"save_steps": 5}) == []
    (warning,) = warnings_before_training({"save_only_model": True})
    assert "can't be resumed" in warning
    (warning,) = warnings_before_training({"save_strategy": "no"})
    assert "keeps no checkpoint" in warning
