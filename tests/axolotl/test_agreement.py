"""Machines that disagree are told so, all of them; `tests/e2e/test_machines.py` runs two for real."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from sftkey.axolotl import agreement
from sftkey.stages.lifeline import VARIABLE
from sftkey.stages.marker import RUN_FILE, SCHEMA
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically

SETTINGS = {"sftkey_method": "sft-tag", "learning_rate": 1e-5, "base_model": "/disk1/model", "deepspeed": "a.json"}


def machines(monkeypatch: pytest.MonkeyPatch, other: Any, host: str = "machine2") -> None:
    """This is the first process; another one, on `host`, says `other`, a value or a function of what this one says."""
    monkeypatch.setattr("socket.gethostname", lambda: "machine1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    says = other if callable(other) else lambda _: other
    monkeypatch.setattr(agreement, "gather_object", lambda own: [*own, (host, says(own[0][1]))])


def test_one_process_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "gather_object", lambda _: pytest.fail("asked"))
    agreement.agree_on_recipe({"output_dir": str(tmp_path / "out")}, SETTINGS)
    with pytest.raises(UserError, match=r"^base_model: there is no folder /nowhere"):
        agreement.agree_on_recipe({"output_dir": str(tmp_path / "out"), "base_model": "/nowhere"}, SETTINGS)


def test_an_obstacle_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines(monkeypatch, lambda own: ("base_model: there is no folder model", own[1]))
    with pytest.raises(UserError, match=r"^on machine2: base_model: there is no folder model$"):
        agreement.agree_on_recipe({"output_dir": str(tmp_path)}, SETTINGS)
    monkeypatch.setenv("LOCAL_RANK", "1")  # one line a machine
    with pytest.raises(SystemExit, match="1"):
        agreement.agree_on_recipe({"output_dir": str(tmp_path)}, SETTINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": "1e-5", "base_model": "/disk2/model", "deepspeed": "b.json"}, None),
        ({"learning_rate": 2e-5}, "learning_rate: 1e-05 -> 2e-05"),
        ({"seed": 7}, "seed: None -> 7"),
        ({"sftkey_method": "key-tag"}, "sftkey_method: 'sft-tag' -> 'key-tag'"),
    ],
)
def test_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str | None) -> None:
    others: dict[str, Any] = {}
    monkeypatch.setattr(agreement, "gather_object", lambda own: others.update(own[0][1][1]) or own)
    monkeypatch.setenv("WORLD_SIZE", "2")
    agreement.agree_on_recipe({"output_dir": str(tmp_path)}, SETTINGS | change)
    machines(monkeypatch, (None, others))
    if said is None:
        agreement.agree_on_recipe({"output_dir": str(tmp_path)}, SETTINGS)
        return
    with pytest.raises(UserError) as error:
        agreement.agree_on_recipe({"output_dir": str(tmp_path)}, SETTINGS)
    assert str(error.value) == f"machine1 and machine2 train by different recipes ({said}); give both the same one"


def trainer(rows: list[list[int]]) -> Any:
    return SimpleNamespace(args=SimpleNamespace(world_size=2), train_dataset=Dataset.from_dict({"input_ids": rows}))


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows in the same order, or the two would train on something that neither of them has."""
    told: list[Any] = []
    monkeypatch.setattr(agreement, "broadcast_object_list", lambda given: given)
    cfg = SimpleNamespace(output_dir=str(tmp_path), resume_from_checkpoint=None)
    rows = [[1, 2], [3], [4, 5, 6]]
    for other in (rows, rows[:2], [rows[1], rows[0], rows[2]], [[1, 2], [3], [4, 5, 7]]):
        monkeypatch.setenv("WORLD_SIZE", "1")
        monkeypatch.setattr(agreement, "gather_object", lambda own: told.append(own[0][1]) or own)
        monkeypatch.setenv("WORLD_SIZE", "2")
        agreement.agree_on_start(cfg, trainer(other), None)
        its = told[-2]
        # Of the second machine's processes only the first has looked; the last question is who sees the folder.
        machines(monkeypatch, lambda own, its=its: its if isinstance(own, tuple) else own)
        if other is rows:
            agreement.agree_on_start(cfg, trainer(rows), None)
            continue
        with pytest.raises(UserError, match=r"machine1 and machine2 have different rows \(3 and [23]\)"):
            agreement.agree_on_start(cfg, trainer(rows), None)


def test_a_checkpoint_in_a_folder_that_another_machine_has_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "mine" / RUN_FILE, {"schema": SCHEMA, "id": "a", "settings": {}})
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(agreement, "gather_object", lambda own: own)
    for start, expected in (
        ("/theirs/checkpoint-8", str(tmp_path / "mine" / "checkpoint-8")),
        ("/another/checkpoint-8", "/another/checkpoint-8"),
        (None, None),
    ):
        monkeypatch.setattr(agreement, "broadcast_object_list", lambda _, start=start: ["a", start, "/theirs"])
        cfg = SimpleNamespace(output_dir=str(tmp_path / "mine"), resume_from_checkpoint="old")
        agreement.agree_on_start(cfg, trainer([[1]]), None)
        assert cfg.resume_from_checkpoint == expected


def test_a_folder_that_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run with further stages would wait for the marker in vain; for one stage alone it is a matter of checkpoints."""
    monkeypatch.setattr(agreement, "_SECONDS_UNTIL_VISIBLE", 0.0)
    monkeypatch.setattr(agreement, "broadcast_object_list", lambda given: given)
    write_atomically(tmp_path / RUN_FILE, {"schema": SCHEMA, "id": "another", "settings": {}})
    cfg = SimpleNamespace(output_dir=str(tmp_path), resume_from_checkpoint=None)
    machines(monkeypatch, lambda own: own)
    monkeypatch.delenv(VARIABLE, raising=False)
    agreement.LOG.logger.propagate = True
    agreement.agree_on_start(cfg, trainer([[1]]), "a")
    assert "machine1 doesn't see" in caplog.text
    monkeypatch.setenv(VARIABLE, "1:2:machine1")
    with pytest.raises(
        UserError, match=f"^output_dir: machine1 doesn't see in {tmp_path} what the first machine wrote"
    ):
        agreement.agree_on_start(cfg, trainer([[1]]), "a")
    agreement.agree_on_start(cfg, trainer([[1]]), "another")
