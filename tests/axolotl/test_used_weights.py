"""A named adapter or model is what a command uses, whichever command it is and wherever the weights are."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sftkey.stages.handover import template_fingerprint, tokenizer_file_sha256
from sftkey.stages.marker import MARKER_FILE, SCHEMA
from sftkey.stages.same_data import data_identity
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from support.axolotl_recipes import stage2_of, write_recipe

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fresh_axolotl")]

COMMANDS = {"inference": "do_inference", "evaluate": "do_evaluate", "merge_lora": "do_merge_lora"}


class Commands:
    """Two stages with adapters, finished, and Axolotl's commands up to where they would load a model."""

    def __init__(self, folder: Path, base: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.base, self.monkeypatch = folder, str(base), monkeypatch
        stage1 = {**recipe, "output_dir": "out/stage1", "adapter": "lora", "lora_r": 2, "lora_target_linear": True}
        self.stage1, self.stage2 = stage1, stage2_of(stage1)
        self.write()
        for name, method in (("stage1", "sft-tag"), ("stage2", "key-tag"), ("other", "key-tag")):
            self.finish(folder / "out" / name, method)
            checkpoint = folder / "out" / name / "checkpoint-4"
            checkpoint.mkdir()
            for file in ("adapter_config.json", "tokenizer.json"):
                (checkpoint / file).write_bytes((folder / "out" / name / file).read_bytes())

    def write(self) -> None:
        write_recipe(self.folder / "stage1.yml", self.stage1)
        write_recipe(self.folder / "stage2.yml", self.stage2)

    def finish(self, place: Path, method: str) -> None:
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": self.base}))
        (place / "tokenizer.json").write_bytes((Path(self.base) / "tokenizer.json").read_bytes())
        marker = {"schema": SCHEMA, "finished_at": "2026", "method": method, "base_model": self.base, "tags": "text"}
        marker |= {"chat_template": template_fingerprint(self.stage1), "data": data_identity(self.stage1)}
        marker["tokenizer"] = {"sha256": tokenizer_file_sha256(place)}
        write_atomically(place / MARKER_FILE, marker)

    def uses(self, command: str, **options: Any) -> tuple[str | None, str]:
        """The adapter and the model that a command would load for Stage 2's recipe."""
        seen: list[Any] = []
        module: ModuleType = importlib.import_module(f"axolotl.cli.{command}")
        self.monkeypatch.setattr(module, COMMANDS[command], lambda *a, cfg=None, **_: seen.append(cfg or a[0]))
        self.monkeypatch.setattr(sys, "argv", ["axolotl"])
        module.do_cli(config="stage2.yml", **options)
        (cfg,) = seen
        return cfg.lora_model_dir, cfg.base_model


@pytest.fixture
def commands(
    tiny_root: Path, tmp_path: Path, stage1_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Commands:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sftkey.axolotl.merging.finish_merge", lambda *_: None)  # nothing is merged
    return Commands(tmp_path, tiny_root / "model", stage1_recipe, monkeypatch)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_named(commands: Commands, command: str) -> None:
    base, own = commands.base, "out/stage2"
    default = own if command == "merge_lora" else "out/stage1"
    assert commands.uses(command) == (default, base)
    for adapter in ("out/stage1", own, f"{own}/checkpoint-4", "out/other", str(commands.folder / "out" / "other")):
        assert commands.uses(command, lora_model_dir=adapter) == (adapter, base)
        # What the recipe says is the link to the stage before, and no name that the user gave.
        expected = default if adapter == "out/stage1" else adapter
        assert commands.uses(command, base_model=adapter) == (expected, base)


@pytest.mark.parametrize("command", ["inference", "evaluate"])
def test_a_named_model_is_used_as_it_is(commands: Commands, command: str, tiny_root: Path) -> None:
    import shutil

    for place in ("out/stage2/merged", "elsewhere/model"):
        shutil.copytree(tiny_root / "model", place)
        assert commands.uses(command, base_model=place) == (None, place)
    # The adapter on a copy of its base model.
    options = {"base_model": "elsewhere/model", "lora_model_dir": "out/stage2"}
    assert commands.uses(command, **options) == ("out/stage2", "elsewhere/model")
    # The base model itself, which no stage could start from.
    assert commands.uses(command, base_model=commands.base) == (None, commands.base)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_recipe_may_name_it_too(commands: Commands, command: str) -> None:
    commands.stage2["lora_model_dir"] = "out/other"
    commands.write()
    assert commands.uses(command) == ("out/other", commands.base)


def test_the_stage_before_may_be_gone(commands: Commands) -> None:
    (commands.folder / "out" / "stage1" / MARKER_FILE).unlink()
    assert commands.uses("merge_lora") == ("out/stage2", commands.base)
    assert commands.uses("evaluate", lora_model_dir="out/stage2") == ("out/stage2", commands.base)
    with pytest.raises(UserError, match=r"stage1\.yml has not been run"):
        commands.uses("evaluate")


def test_what_is_no_adapter(commands: Commands) -> None:
    (commands.folder / "out" / "empty").mkdir()
    for place in ("out/empty", "out/nowhere"):
        with pytest.raises(UserError, match=rf"^lora_model_dir: {place} holds no adapter \(no adapter_config\.json\)"):
            commands.uses("evaluate", lora_model_dir=place)
    del commands.stage2["adapter"]
    commands.write()
    with pytest.raises(UserError, match="this recipe trains no adapter, so it would be left out; set adapter:"):
        commands.uses("inference", lora_model_dir="out/stage2")


def test_training_starts_only_from_a_stage(commands: Commands) -> None:
    from axolotl.cli import train

    seen: list[Any] = []
    commands.monkeypatch.setattr(train, "do_train", lambda cfg, _: seen.append((cfg.lora_model_dir, cfg.base_model)))
    commands.monkeypatch.setattr(sys, "argv", ["axolotl"])
    train.do_cli(config="stage2.yml", output_dir="out/new", lora_model_dir="out/other")
    assert seen == [("out/other", commands.base)]
    with pytest.raises(UserError, match=r"lora_model_dir: out/nowhere is neither the output_dir of stage1\.yml"):
        train.do_cli(config="stage2.yml", output_dir="out/new", lora_model_dir="out/nowhere")


@pytest.mark.parametrize("command", ["vllm_serve", "quantize"])
def test_commands_that_serve_or_quantize(commands: Commands, command: str) -> None:
    """They name no weights to the plugin; the recipe's stage before is resolved, and training isn't asked for."""
    module = importlib.import_module(f"axolotl.cli.{command}")
    seen: list[Any] = []
    load = module.load_cfg

    class Loaded(Exception):
        pass

    def loaded(config: Any) -> Any:
        seen.append(load(config))
        raise Loaded

    commands.monkeypatch.setattr(module, "load_cfg", loaded)
    with pytest.raises(Loaded):
        getattr(module, f"do_{command}")("stage2.yml", {})
    assert (seen[0].lora_model_dir, seen[0].base_model) == ("out/stage1", commands.base)
