"""Which weights a command uses, through Axolotl's own commands: adapters, merged weights and checkpoints of a tiny model."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from sftkey.format.formats import THINKING_ANSWER
from support.axolotl_recipes import write_recipe
from support.finished_stages import read_marker
from transformers import AutoTokenizer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

LORA = {
    "adapter": "lora",
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_target_modules": ["q_proj", "v_proj"],
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
}
TAGS = {"sftkey_tags": "tokens", "lora_modules_to_save": ["embed_tokens", "lm_head"]}


class Place:
    """A working directory in which Axolotl's commands run in this process."""

    def __init__(self, folder: Path, base: dict[str, Any]) -> None:
        self.folder, self.base = folder, base

    def recipe(self, name: str, **changes: Any) -> None:
        """Write a recipe; its output goes to ``out/NAME``."""
        recipe = {**self.base, "output_dir": f"out/{name}", **changes}
        if "sftkey_after" in changes:
            recipe |= {"sftkey_method": "key-tag", "sftkey_after": f"{changes['sftkey_after']}.yml"}
            recipe["base_model"] = changes.get("base_model", f"out/{changes['sftkey_after']}")
        write_recipe(self.folder / "recipes" / f"{name}.yml", {k: v for k, v in recipe.items() if v is not None})

    @contextmanager
    def _inside(self) -> Iterator[None]:
        from axolotl.integrations.base import PluginManager

        environment, folder, arguments = dict(os.environ), Path.cwd(), sys.argv
        PluginManager.get_instance().plugins.clear()
        os.chdir(self.folder)
        sys.argv = ["axolotl"]
        try:
            yield
        finally:
            sys.argv = arguments
            os.chdir(folder)
            PluginManager.get_instance().plugins.clear()
            os.environ.clear()
            os.environ.update(environment)

    def run(self, command: str, name: str, **options: Any) -> None:
        """``axolotl COMMAND recipes/NAME.yml``, with options."""
        self.run_file(command, f"recipes/{name}.yml", **options)

    def run_file(self, command: str, recipe: str, **options: Any) -> None:
        """The same with the file's path."""
        import importlib

        with self._inside():
            module = importlib.import_module(f"axolotl.cli.{command}")
            module.do_cli(config=recipe, **options)

    def loss(self, name: str, **options: Any) -> float:
        """The training loss that ``axolotl evaluate`` measures."""
        self.run("evaluate", name, **options)
        recipe = yaml.safe_load((self.folder / "recipes" / f"{name}.yml").read_text())
        with (self.folder / recipe["output_dir"] / "eval_summary.csv").open() as file:
            return next(float(row["training"]) for row in csv.DictReader(file) if row["metric"] == "loss")

    def marker(self, place: str) -> dict[str, Any]:
        """The marker in a folder under ``out``."""
        return read_marker(self.folder / "out" / place) or {}


@pytest.fixture(scope="module")
def place(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A first stage with an adapter and one without, both with the tags as added tokens."""
    folder = tmp_path_factory.mktemp("links")
    base = {
        "base_model": str(tiny_root / "model"),
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "default_system_message": "Think first, then answer.",
        "datasets": [{"path": str(tiny_root / "data" / "train.jsonl"), "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 128,
        "micro_batch_size": 8,
        "num_epochs": 1,
        "learning_rate": 3e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "constant",
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 4,
        "save_steps": 4,
        "seed": 7,
    }
    place = Place(folder, base)
    place.recipe("lora1", **LORA, **TAGS)
    place.recipe("full1", sftkey_tags="tokens")
    place.run("train", "lora1")
    place.run("train", "full1")
    return place


def test_evaluate_uses_the_adapter_that_is_named(place: Place) -> None:
    place.recipe("lora2", sftkey_after="lora1", **LORA, **TAGS)
    place.run("train", "lora2")
    assert place.marker("lora2")["after"]["id"] == place.marker("lora1")["id"]
    before, own = place.loss("lora2"), place.loss("lora2", lora_model_dir="out/lora2")
    assert place.loss("lora2", lora_model_dir="out/lora1") == before > own
    assert before > place.loss("lora2", lora_model_dir="out/lora2/checkpoint-4") > own
    place.run("merge_lora", "lora2")
    assert place.loss("lora2", base_model="out/lora2/merged") == pytest.approx(own, abs=1e-5)


def test_full_weights_start_from_a_merged_adapter(place: Place) -> None:
    from sftkey.util.errors import UserError

    place.recipe("full2", sftkey_after="lora1", sftkey_tags="tokens")
    with pytest.raises(UserError, match="holds an adapter, but this recipe trains no adapter") as error:
        place.run("train", "full2")
    assert "axolotl merge-lora recipes/lora1.yml" in str(error.value)
    place.run("merge_lora", "lora1")
    merged = place.marker("lora1/merged")
    assert merged["id"] == place.marker("lora1")["id"]
    assert merged["merged"]["difference"] < 1e-5
    place.run("train", "full2", learning_rate=0.0)
    after = place.marker("full2")["after"]
    assert after["output_dir"] == "out/lora1/merged"
    assert after["stage"] == merged
    start, end = (load_file(place.folder / "out" / one / "model.safetensors") for one in ("lora1/merged", "full2"))
    assert all(torch.equal(start[name], end[name]) for name in start)
    # A second adapter on the merged first one, merged again.
    place.recipe("lora_on_merged", sftkey_after="lora1", base_model="out/lora1/merged", sftkey_tags="tokens", **LORA)
    place.run("train", "lora_on_merged")
    place.run("merge_lora", "lora_on_merged")
    assert place.marker("lora_on_merged/merged")["method"] == "key-tag"
    assert place.marker("lora_on_merged/merged")["merged"]["adapter"] == "out/lora_on_merged"


def test_a_stage_starts_from_a_checkpoint(place: Place) -> None:
    place.recipe("from4", sftkey_after="full1", base_model="out/full1/checkpoint-4", sftkey_tags="tokens")
    place.run("train", "from4", learning_rate=0.0)
    after = place.marker("from4")["after"]
    assert after["output_dir"] == "out/full1/checkpoint-4"
    assert after["stage"]["id"] == place.marker("full1")["id"]
    places = ("full1/checkpoint-4", "from4", "full1")
    start, end, other = (load_file(place.folder / "out" / one / "model.safetensors") for one in places)
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert not all(torch.equal(other[name], end[name]) for name in start)
    place.recipe("lora_from4", sftkey_after="lora1", base_model="out/lora1/checkpoint-4", **LORA, **TAGS)
    place.run("train", "lora_from4")
    assert place.marker("lora_from4")["after"]["output_dir"] == "out/lora1/checkpoint-4"


@pytest.mark.parametrize("settings", [{}, {"rows": True}], ids=["lora", "single rows"])
def test_an_adapter_after_full_weights_that_have_the_tags(place: Place, settings: dict[str, Any]) -> None:
    name = "_".join(["on_full", *settings])
    if settings.pop("rows", None):
        ids = AutoTokenizer.from_pretrained(place.folder / "out" / "full1").convert_tokens_to_ids(
            list(THINKING_ANSWER.tags)
        )
        settings["peft_trainable_token_indices"] = ids
    place.recipe(name, sftkey_after="full1", sftkey_tags="tokens", **LORA, **settings)
    place.run("train", name)
    place.run("merge_lora", name)
    assert place.marker(f"{name}/merged")["merged"]["difference"] < 1e-5


def test_only_the_rows_of_added_tags_are_trained(place: Place) -> None:
    ids = AutoTokenizer.from_pretrained(place.folder / "out" / "lora1").convert_tokens_to_ids(
        list(THINKING_ANSWER.tags)
    )
    place.recipe("rows", sftkey_tags="tokens", peft_trainable_token_indices=ids, **LORA)
    place.run("train", "rows")
    trained = load_file(place.folder / "out" / "rows" / "adapter_model.safetensors")
    rows = next(tensor for name, tensor in trained.items() if "trainable_tokens" in name)
    assert len(rows) == len(ids)
    place.run("merge_lora", "rows")
    assert place.marker("rows/merged")["merged"]["difference"] < 1e-5


def test_a_sweep_of_a_second_stage(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from axolotl.cli.utils.train import generate_config_files

    place.recipe("swept", sftkey_after="full1", sftkey_tags="tokens", max_steps=2)
    sweep = write_recipe(place.folder / "sweep.yml", {"learning_rate": [1e-3, 1e-4]})
    monkeypatch.chdir(place.folder)
    for file, _ in generate_config_files("recipes/swept.yml", str(sweep)):
        place.run_file("train", file)
    markers = [place.marker(f"swept/sweep000{n}") for n in (1, 2)]
    assert {marker["settings"]["learning_rate"] for marker in markers} == {1e-3, 1e-4}
    assert {marker["recipe"]["name"] for marker in markers} == {"swept.yml"}
    assert {marker["after"]["id"] for marker in markers} == {place.marker("full1")["id"]}
