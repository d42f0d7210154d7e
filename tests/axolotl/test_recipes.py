"""Every shipped recipe passes Axolotl's own check of a config, as on the machine that it is written for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sftkey.recipes.catalogue import ShippedRecipe, shipped_recipe, shipped_recipes
from sftkey.recipes.load import has_own_template
from sftkey.recipes.writing import write_recipe
from sftkey.stages.handover import template_fingerprint, tokenizer_file_sha256
from sftkey.stages.marker import MARKER_FILE, SCHEMA
from sftkey.stages.same_data import data_identity
from sftkey.util.files import write_atomically
from support.commands import SFTKEY, environment, run, succeeded

pytestmark = pytest.mark.filterwarnings("ignore")

A100 = {"bf16": True, "fp8": False, "tf32": True, "n_gpu": 8, "compute_capability": "sm_80"}
RECIPES = [recipe for recipe in shipped_recipes() if not recipe.name.startswith("demo_")]
DEMO = [recipe for recipe in shipped_recipes() if recipe.name.startswith("demo_")]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, and a fresh plugin manager (Axolotl has one for each process)."""
    from axolotl.integrations.base import PluginManager

    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    PluginManager.get_instance().plugins.clear()
    yield tmp_path
    PluginManager.get_instance().plugins.clear()
    os.environ.clear()
    os.environ.update(before)


def copy_files(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        shutil.copyfile(file, folder / file.name)


def provide_tokenizer(recipe: ShippedRecipe, request: pytest.FixtureRequest) -> None:
    """Where the recipe uses the model's own chat template, put a model with the real tokenizer under its name on the Hub."""
    if has_own_template(recipe.config):
        copy_files(request.getfixturevalue("shared_dir") / "tokenizers/qwen3", Path(recipe.model))
        (Path(recipe.model) / "config.json").write_text('{"model_type": "qwen3"}')


def finish(recipe: dict[str, Any]) -> None:
    """Leave behind what a finished stage leaves that the next one asks for."""
    folder = Path(recipe["output_dir"])
    folder.mkdir(parents=True)
    if has_own_template(recipe):
        copy_files(Path("Qwen/Qwen3-8B"), folder)
    else:
        (folder / "tokenizer.json").write_text("{}")
    if recipe.get("adapter"):
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    marker = {
        "schema": SCHEMA,
        "finished_at": "2026-01-01T00:00:00+00:00",
        "method": recipe["sftkey_method"],
        "base_model": recipe["base_model"],
        "tags": "text",
        "chat_template": template_fingerprint(recipe, folder),
        "tokenizer": {"sha256": tokenizer_file_sha256(folder)},
        "data": data_identity(recipe),
    }
    write_atomically(folder / MARKER_FILE, marker)


def checked(path: Path) -> Any:
    """A recipe after the plugin and Axolotl's validation."""
    import torch
    from axolotl.cli.config import prepare_plugins
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    cfg = DictDefault(yaml.safe_load(path.read_text("utf-8")))
    cfg.axolotl_config_path = str(path)
    prepare_plugins(cfg)
    return validate_config(cfg, capabilities=A100, env_capabilities={"torch_version": torch.__version__.split("+")[0]})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_shipped(recipe: ShippedRecipe, request: pytest.FixtureRequest) -> None:
    provide_tokenizer(recipe, request)
    if recipe.before:
        finish(dict(recipe.before.config))
    cfg = checked(recipe.path)
    for key, value in recipe.config.items():
        if key in ("chat_template", "dataset_prepared_path", "base_model", "deepspeed", "datasets", "tf32"):
            continue
        assert cfg[key] == value, key
    assert cfg.warmup_ratio == pytest.approx(0.5 / 3)
    assert cfg.datasets[0].path == "openai/gsm8k"
    assert cfg.datasets[0].type == "sftkey.datasets.gsm8k"
    if "deepspeed" in recipe.config:
        assert Path(cfg.deepspeed).samefile(recipe.path.parent / "deepspeed/zero3.json")
    if recipe.before and recipe.config.get("adapter"):
        assert cfg.base_model == recipe.model
        assert cfg.lora_model_dir == recipe.before.config["output_dir"]
    elif recipe.before:
        assert cfg.base_model == recipe.before.config["output_dir"]


@pytest.mark.parametrize("recipe", DEMO, ids=lambda recipe: recipe.name)
def test_demo(recipe: ShippedRecipe, workplace: Path) -> None:
    data = workplace / "outputs" / "demo" / "data"
    data.mkdir(parents=True)
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text('{"question": "q", "thinking": "t", "answer": "a"}\n')
    (workplace / "outputs/demo/model").mkdir()
    (workplace / "outputs/demo/model/config.json").write_text("{}")
    if recipe.before:
        finish(dict(recipe.before.config))
    cfg = checked(recipe.path)
    assert cfg.sftkey_method == recipe.config["sftkey_method"]
    assert cfg.learning_rate == recipe.config["learning_rate"]
    assert cfg.bf16 is False


@pytest.mark.parametrize("data", ["openr1_math", "openbookqa", "cot_collection"])
def test_written(data: str, workplace: Path) -> None:
    written = write_recipe(shipped_recipe("qwen3_8b_stage2"), dataset_name=data, overrides=["learning_rate=1e-5"])
    finish(dict(written.before.config))
    for stage in written.chain:
        (workplace / stage.file_name).write_text(stage.text)
    cfg = checked(workplace / written.file_name)
    assert cfg.deepspeed["zero_optimization"]["stage"] == 3
    assert cfg.learning_rate == 1e-5
    assert cfg.base_model == f"outputs/qwen3_8b/{data}/stage1"


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.zero_stage and one.before], ids=lambda one: one.name)
def test_written_for_fsdp2(recipe: ShippedRecipe, workplace: Path, request: pytest.FixtureRequest) -> None:
    provide_tokenizer(recipe, request)
    written = write_recipe(recipe, sharding="fsdp2")
    if written.before:
        finish(dict(written.before.config))
    for stage in written.chain:
        (workplace / stage.file_name).write_text(stage.text)
    cfg = checked(workplace / written.file_name)
    assert cfg.fsdp_version == 2
    assert {key: cfg.fsdp_config[key] for key in written.config["fsdp_config"]} == written.config["fsdp_config"]
    assert (cfg.deepspeed, cfg.gradient_checkpointing or None, cfg.sftkey_fp32_weights) == (None, None, True)


def test_the_real_command_prints_the_recipe_and_nothing_else(workplace: Path) -> None:
    arguments = ("recipe", "qwen3_8b_stage2", "--dataset", "openbookqa")
    expected = write_recipe(shipped_recipe("qwen3_8b_stage2"), dataset_name="openbookqa")
    piped = succeeded(run(*SFTKEY, *arguments, cwd=workplace))
    assert piped.stdout == expected.text
    assert "starts from qwen3_8b_openbookqa_stage1.yml" in piped.stderr
    with open(workplace / "my.yml", "w") as file:
        subprocess.run([*SFTKEY, *arguments], stdout=file, stderr=subprocess.DEVNULL, env=environment(), check=True)
    assert (workplace / "my.yml").read_text() == expected.text
    with open(workplace / "list.yml", "a") as file:
        file.write("# mine\n")
        file.flush()
        subprocess.run([*SFTKEY, *arguments], stdout=file, stderr=subprocess.DEVNULL, env=environment(), check=True)
    assert (workplace / "list.yml").read_text() == f"# mine\n{expected.text}"
    # Axolotl writes its banner to stdout before the command runs.
    alias = succeeded(run("axolotl", "sftkey", *arguments, cwd=workplace))
    assert alias.stdout.endswith(expected.text)
    assert (alias.stdout == expected.text) != ("banner stands above the recipe; `sftkey recipe`" in alias.stderr)
