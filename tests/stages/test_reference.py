"""Where the weights of a recipe's reference model are, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sftkey.stages.marker import RUN_FILE
from sftkey.stages.reference import reference_of
from sftkey.util.errors import UserError


def recipe(**more: Any) -> dict[str, Any]:
    return {"base_model": "x/start", "sftkey_method": "key-tag", "sftkey_objective": "rho-1"} | more


def test_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert reference_of(recipe(sftkey_objective="dft")) is None
    assert reference_of(recipe(sftkey_reference_model="Qwen/Qwen3-1.7B")) == "Qwen/Qwen3-1.7B"
    assert reference_of(recipe(sftkey_reference_model="before")) == "x/start"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_text("w")
    assert reference_of(recipe(sftkey_reference_model="before", lora_model_dir=str(adapter))) == str(adapter)


@pytest.mark.parametrize("place", ["outputs/gone", "./gone", "/nowhere/gone", "a/b/c"])
def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    with pytest.raises(UserError, match=f"sftkey_reference_model: there is no folder {place}; train that stage first"):
        reference_of(recipe(sftkey_reference_model=place))


def test_a_stage_that_has_not_finished_or_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no weights; name a folder with a model, or a finished stage"):
        reference_of(recipe(sftkey_reference_model=str(tmp_path)))
    (tmp_path / RUN_FILE).write_text("{}")
    (tmp_path / "model.safetensors").write_text("half")
    with pytest.raises(UserError, match="is a stage that hasn't finished; finish it, or name another"):
        reference_of(recipe(sftkey_reference_model=str(tmp_path)))
