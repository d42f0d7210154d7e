"""Every recipe of the matrix trains: two steps on the CPU, with a stand-in of the recipe's own architecture.

A stand-in has the model's class, layout and (Qwen) real tokenizer, and tiny widths; the data are real GSM8K rows under their
name on the Hub. The recipes are the shipped ones but for the keys of the hardware. One chain for each architecture goes
through the real command line; starting Axolotl takes half a minute, so the others are run in this process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sftkey.recipes.catalogue import ShippedRecipe, shipped_recipe, shipped_recipes
from sftkey.recipes.memory import ARCHITECTURES
from sftkey.recipes.writing import write_recipe
from sftkey.stages.bundle import save_bundle
from sftkey.stages.share import make_bundle
from support.commands import run, succeeded
from support.finished_stages import read_marker

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CPU = (
    *("bf16=false", "tf32=false", "attn_implementation=sdpa", "deepspeed="),
    *("micro_batch_size=2", "gradient_accumulation_steps=1", "max_steps=2", "logging_steps=1"),
    *("saves_per_epoch=", "save_strategy=no"),
)
"""The keys of the hardware, and two steps of two rows without a checkpoint; `deepspeed=` takes the key's value away."""

NO_KERNELS = ("lora_mlp_kernel=false", "lora_qkv_kernel=false", "lora_o_kernel=false")
"""Axolotl turns its Triton kernels on for LoRA by itself, and they need a GPU."""

CHAINS = {"Qwen3": "qwen3_8b_stage2", "Qwen2.5": "qwen2_5_1_5b_stage2", "SmolLM3": "smollm3_3b_stage2"}
KINDS = {"Qwen3": "qwen3", "Qwen2.5": "qwen2", "SmolLM3": "smollm3", "SmolLM2": "llama"}
CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
RECIPES = [recipe for recipe in shipped_recipes() if not recipe.name.startswith("demo_")]

HUB_CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: train.jsonl}
---
"""


def kind_of(model: str) -> str:
    return next(kind for part, kind in KINDS.items() if part in model)


def make_stand_in(folder: Path, model: str, shared_dir: Path, texts: list[str]) -> None:
    """Write a model of the same class under the name that it has on the Hub."""
    from demo.tiny_model import make_tokenizer
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    kind, shape = kind_of(model), ARCHITECTURES[model]
    if kind.startswith("qwen"):
        tokenizer: Any = AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / "qwen3")
        vocabulary = shape.vocab_size
    else:
        tokenizer = make_tokenizer(texts)
        vocabulary = len(tokenizer)
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=shape.tie_word_embeddings,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        **({"head_dim": 4} if kind == "qwen3" else {}),
    )
    torch.manual_seed(0)
    stand_in = AutoModelForCausalLM.from_config(config)
    assert type(stand_in).__name__ == CLASSES[kind]
    stand_in.save_pretrained(folder / model)
    tokenizer.save_pretrained(folder / model)


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, shared_dir: Path, gsm8k_rows: dict[str, list[dict[str, Any]]]
) -> Path:
    """A folder with the stand-ins and 48 real rows, each under its name on the Hub, and all recipes for the CPU."""
    folder = tmp_path_factory.mktemp("matrix")
    rows = gsm8k_rows["train"][:48]
    data = folder / "openai/gsm8k"
    data.mkdir(parents=True)
    (data / "README.md").write_text(HUB_CARD)
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in {recipe.model for recipe in RECIPES}:
        make_stand_in(folder, model, shared_dir, [row[key] for row in rows for key in ("question", "answer")])
    for recipe in RECIPES:
        written = write_recipe(recipe, overrides=CPU + (NO_KERNELS if recipe.config.get("adapter") else ()))
        (folder / written.file_name).write_text(written.text)
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {"HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def in_workplace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, and Axolotl (one plugin manager for each process) as if just started."""
    from axolotl.integrations.base import PluginManager

    before = dict(os.environ)
    monkeypatch.chdir(workplace)
    for name, value in environment(workplace).items():
        os.environ[name] = value
    PluginManager.get_instance().plugins.clear()
    yield workplace
    PluginManager.get_instance().plugins.clear()
    os.environ.clear()
    os.environ.update(before)


def train(name: str) -> None:
    """What ``axolotl train NAME.yml`` does once it has started."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.cli.train import do_train

    do_train(load_cfg(f"{name}.yml"), TrainerCliArgs())


def check_stage(recipe: ShippedRecipe) -> None:
    """The stage finished as its recipe says, and trained the tokens of its method only."""
    output_dir = Path(str(recipe.config["output_dir"]))
    marker = read_marker(output_dir)
    assert marker is not None
    assert marker["method"] == recipe.config["sftkey_method"]
    assert marker["training"]["steps"] == 2
    assert marker["data"][0]["rows_used"] == 48
    assert (marker["after"] is not None) == (recipe.before is not None)
    losses = marker["training"]["losses"]
    assert ("loss_thinking" in losses) == (marker["method"] in ("sft", "sft-tag"))
    assert losses["loss_answer"] > 0
    if recipe.config.get("adapter"):
        assert (output_dir / "adapter_config.json").exists()
    else:
        saved = json.loads((output_dir / "config.json").read_text())
        assert saved["architectures"] == [CLASSES[kind_of(recipe.model)]]


def trained_weights(output_dir: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (path,) = Path(output_dir).glob("*model.safetensors")
    return load_file(path)


@pytest.mark.parametrize("name", CHAINS.values(), ids=CHAINS)
def test_a_chain_through_the_command_line(workplace: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    second = shipped_recipe(name)
    assert second.before is not None
    monkeypatch.chdir(workplace)
    for recipe in (second.before, second):
        if recipe.name != second.name and read_marker(str(recipe.config["output_dir"])):
            continue  # run in this process by another test already
        succeeded(run("axolotl", "train", f"{recipe.name}.yml", cwd=workplace, **environment(workplace)))
        check_stage(recipe)
    marker = read_marker(str(second.config["output_dir"]))
    assert marker is not None
    assert marker["after"]["output_dir"] == second.before.config["output_dir"]


OTHERS = sorted(
    (recipe for recipe in RECIPES if recipe.name not in {*CHAINS.values()}), key=lambda recipe: len(recipe.chain)
)


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda recipe: recipe.name)
def test_in_this_process(in_workplace: Path, recipe: ShippedRecipe) -> None:
    if read_marker(str(recipe.config["output_dir"])) is None:
        train(recipe.name)
    check_stage(recipe)


def test_the_second_lora_stage_goes_on_with_the_first_ones_adapter(in_workplace: Path) -> None:
    first = trained_weights("outputs/qwen3_8b_lora/gsm8k/stage1")
    second = trained_weights("outputs/qwen3_8b_lora/gsm8k/stage2")
    assert first.keys() == second.keys()
    # A fresh adapter has B = 0; two steps with a rate of 1e-4 move a weight by about 2e-4 at most.
    for name, weights in second.items():
        assert (weights - first[name]).abs().max() < 5e-4, name
    assert any(not torch.equal(weights, first[name]) for name, weights in second.items())
    assert all(first[name].abs().max() > 0 for name in first if "lora_B" in name)


def test_what_is_shared_gives_the_same_weights_elsewhere(
    in_workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run both stages again from a bundle, in a folder that has only the bundle and what the Hub has."""
    from axolotl.integrations.base import PluginManager

    chain = [shipped_recipe("qwen3_8b_sft"), shipped_recipe("qwen3_8b_sftkey_plain")]
    save_bundle(make_bundle(Path(str(chain[1].config["output_dir"]))), tmp_path / "bundle")
    for name in ("Qwen", "openai"):
        (tmp_path / name).symlink_to(in_workplace / name)
    monkeypatch.chdir(tmp_path)
    for recipe in chain:
        PluginManager.get_instance().plugins.clear()
        train(f"bundle/recipes/{recipe.name}")
        check_stage(recipe)
        output_dir = str(recipe.config["output_dir"])
        again, first = trained_weights(output_dir), trained_weights(str(in_workplace / output_dir))
        assert again.keys() == first.keys()
        assert all(torch.equal(again[name], first[name]) for name in first)
