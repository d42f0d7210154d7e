"""Every shipped recipe has the paper's settings and differs from its siblings only where it must."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sftkey.format.methods import METHODS
from sftkey.recipes.catalogue import ShippedRecipe, recipes_folder, shipped_recipe, shipped_recipes
from sftkey.recipes.load import response_format
from sftkey.recipes.memory import GIB
from sftkey.recipes.writing import model_slug
from sftkey.util.errors import UserError

MODELS = {
    "qwen3_8b": "Qwen/Qwen3-8B-Base",
    "qwen2_5_7b": "Qwen/Qwen2.5-7B",
    "qwen2_5_3b": "Qwen/Qwen2.5-3B",
    "qwen2_5_1_5b": "Qwen/Qwen2.5-1.5B",
    "smollm3_3b": "HuggingFaceTB/SmolLM3-3B-Base",
}
BASES = MODELS | {"qwen3_8b_think": "Qwen/Qwen3-8B", "smollm2_135m": "HuggingFaceTB/SmolLM2-135M"}
STAGES = {
    "sft": ("sft", None),
    "stage1": ("sft-tag", None),
    "stage2": ("key-tag", "stage1"),
    "key": ("key-tag", None),
    "sftkey_plain": ("key", "sft"),
}
MATRIX = [f"{model}_{stage}" for model in (*MODELS, "qwen3_8b_lora") for stage in STAGES]
THINK = [f"{model}_{stage}" for model in ("qwen3_8b_think", "qwen3_8b_think_lora") for stage in ("stage1", "stage2")]
SMALL = ["smollm2_135m_stage1", "smollm2_135m_stage2"]
NAMES = MATRIX + THINK + SMALL
DEMO = [recipe.name for recipe in shipped_recipes() if recipe.name.startswith("demo_")]
"""The demo's own test holds these."""

PAPER = {
    "sftkey_warmup_epochs": 0.5,
    "weight_decay": 0.1,
    "num_epochs": 3,
    "learning_rate": 5e-6,
    "bf16": True,
}
"""Section 3."""

SAME_IN_ALL = {
    "plugins": ["sftkey.SFTKeyPlugin"],
    "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
    "dataset_prepared_path": "outputs/prepared",
    "sequence_len": 1024,
    "lr_scheduler": "cosine",
    "optimizer": "adamw_torch",
    "gradient_checkpointing": True,
    "logging_steps": 5,
    "saves_per_epoch": 1,
    "save_total_limit": 2,
    "seed": 42,
}
FULL = {"tf32": True, "attn_implementation": "flash_attention_2", "deepspeed": "deepspeed/zero3.json"}
LORA = {"tf32": True, "attn_implementation": "flash_attention_2", "learning_rate": 1e-4} | {
    "adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "lora_target_linear": True
}  # fmt: skip
TINY = {"bf16": False, "tf32": "auto", "attn_implementation": "sdpa"}
OWN = {"base_model", "output_dir", "sftkey_method", "sftkey_after", "chat_template"}
BATCH = {"micro_batch_size", "gradient_accumulation_steps"}


def expected(name: str) -> dict[str, Any]:
    kind = LORA if "_lora_" in name else TINY if name in SMALL else FULL
    return PAPER | SAME_IN_ALL | kind | ({"sftkey_format": "think"} if name in THINK else {})


def split_name(name: str) -> tuple[str, str]:
    return next((name[: -len(stage) - 1], stage) for stage in STAGES if name.endswith(f"_{stage}"))


def test_the_matrix_is_complete() -> None:
    assert {recipe.name for recipe in shipped_recipes()} - set(DEMO) == {*NAMES}
    assert len(MATRIX) == 30


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_the_papers(name: str) -> None:
    config = dict(shipped_recipe(name).config)
    assert config.pop("micro_batch_size") * config.pop("gradient_accumulation_steps") == 32
    assert {key: value for key, value in config.items() if key not in OWN} == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_says_what_its_name_says(name: str) -> None:
    recipe = shipped_recipe(name)
    model, stage = split_name(name)
    method, after = STAGES[stage]
    config = recipe.config
    assert config["sftkey_method"] == method
    assert config["output_dir"] == f"outputs/{model}/gsm8k/{stage}"
    templates = dict.fromkeys(THINK, "tokenizer_default")
    ours = "thinking_answer" if METHODS[method].tagged else "thinking_answer_plain"
    assert config["chat_template"] == templates.get(name, ours)
    base = BASES[model.removesuffix("_lora")]
    assert recipe.model == base
    assert model_slug(base) == model.removesuffix("_lora").removesuffix("_think")
    if after is None:
        assert config["base_model"] == base
        assert "sftkey_after" not in config
    else:
        assert config["sftkey_after"] == f"{model}_{after}.yml"
        assert config["base_model"] == shipped_recipe(f"{model}_{after}").config["output_dir"]


@pytest.mark.parametrize("name", NAMES)
def test_siblings_share_the_batch(name: str) -> None:
    model, _ = split_name(name)
    first = shipped_recipe(f"{model}_stage1").config
    config = shipped_recipe(name).config
    assert {key: config[key] for key in BATCH} == {key: first[key] for key in BATCH}


@pytest.mark.parametrize("recipe", shipped_recipes(), ids=lambda recipe: recipe.name)
def test_the_first_lines_say_what_how_and_on_what(recipe: ShippedRecipe) -> None:
    comment = re.match(r"(# .*\n)+", recipe.text)
    assert comment is not None
    head = comment[0]
    assert re.search(r"^# Run with: ", head, re.MULTILINE)
    assert re.search(r"^# Hardware: ", head, re.MULTILINE)
    if recipe.name in DEMO:
        return
    assert f"\n# Run with: axolotl train recipes/{recipe.path.name}" in head
    title = recipe.model.rpartition("/")[2]
    assert head.startswith(f"# {title} on GSM8K, ")
    if recipe.before:
        assert f"(after recipes/{recipe.before.path.name})" in head
    assert ("DeepSpeed ZeRO-3" in head) == ("deepspeed" in recipe.config)
    if "deepspeed" in recipe.config:
        assert recipe.gpus == 8
        assert recipe.zero_stage == 3
    else:
        assert recipe.gpus == 1
    fits = re.search(r"micro-batches that fit (\d+) GB", recipe.text)
    assert fits is None or int(fits[1]) == recipe.gpu_gigabytes
    assert (fits is None) == (recipe.config["gradient_accumulation_steps"] == 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_leaves_room_on_the_gpus_named(name: str) -> None:
    recipe = shipped_recipe(name)
    assert recipe.memory is not None
    assert recipe.gpu_gigabytes is not None
    # "40 GB" of an A100 are 39.4 GiB; a "24 GB" card may have as little as 22.5.
    assert recipe.memory.peak / GIB < 0.92 * recipe.gpu_gigabytes


def test_keys_are_in_one_order() -> None:
    orders = [
        [key for key in recipe.config if key not in OWN]
        for recipe in shipped_recipes()
        if recipe.name in MATRIX + THINK
    ]
    for order in orders:
        for other in orders:
            shared = [key for key in order if key in other]
            assert shared == [key for key in other if key in order]


def test_the_deepspeed_settings_are_json(repository: Path) -> None:
    for path in (recipes_folder() / "deepspeed").iterdir():
        assert json.loads(path.read_text())["bf16"] == {"enabled": True}
    assert recipes_folder() == repository / "recipes"


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UserError, match=r"no shipped recipe 'qwen3_8b_stage3'; did you mean qwen3_8b_stage"):
        shipped_recipe("qwen3_8b_stage3")
    assert shipped_recipe("qwen3_8b_key.yml").name == "qwen3_8b_key"


def readme_rows(text: str) -> Mapping[str, list[str]]:
    rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| \[`?\w", line)
    )
    return {re.sub(r"[\[`\]]|\(.*", "", row[0]).removesuffix(".yml"): row for row in rows}


def test_the_readme_table_agrees_with_the_recipes(repository: Path) -> None:
    rows = readme_rows((repository / "recipes/README.md").read_text("utf-8"))
    assert set(rows) == {*NAMES}
    checks = json.loads((repository / "tests/gpu/results/h100.json").read_text("utf-8"))["checks"]
    measured = {
        check["check"].partition(":")[2]: check["figures"]["peak_bytes"]
        for check in checks
        if check["check"].startswith("memory:")
    }
    for name in NAMES:
        recipe = shipped_recipe(name)
        assert recipe.architecture is not None
        assert recipe.memory is not None
        strategy, parameters, gpus, memory, taken = rows[name][1:6]
        assert strategy == recipe.strategy
        assert parameters == f"{recipe.architecture.parameters / 1e9:.2f} B"
        assert gpus == f"{recipe.gpus} x {recipe.gpu_gigabytes} GB"
        assert memory == f"{recipe.memory.peak / GIB:.0f} GiB"
        assert taken == (f"{measured[name] / GIB:.1f} GiB" if name in measured and recipe.gpus == 1 else "-")


def test_the_readme_counts_the_real_tokens(
    repository: Path, shared_dir: Path, gsm8k_rows: dict[str, list[dict[str, Any]]]
) -> None:
    from sftkey.datasets.registry import dataset
    from sftkey.format import templates
    from sftkey.training.own_template import OwnTemplateTokenizer
    from sftkey.training.rows import RowTokenizer
    from sftkey.training.tokenization import ExampleTokenizer
    from transformers import AutoTokenizer

    rows = readme_rows((repository / "recipes/README.md").read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / "qwen3")
    gsm8k = dataset("gsm8k")
    for name in ("qwen3_8b_think_stage2", "qwen3_8b_stage2", "qwen3_8b_sft"):
        model, stage = split_name(name)
        method = METHODS[STAGES[stage][0]]
        if name in THINK:
            written = response_format(shipped_recipe(name).config)
            inner: ExampleTokenizer = OwnTemplateTokenizer(tokenizer, method, gsm8k.untagged, written)
        else:
            tokenizer.chat_template = templates.chat_template(templates.TAGGED if method.tagged else templates.PLAIN)
            inner = ExampleTokenizer(tokenizer, method, gsm8k.untagged)
        tokenize = RowTokenizer(gsm8k, inner, 1024)
        batches = (gsm8k_rows["train"][start : start + 1000] for start in range(0, 7473, 1000))
        kept = [result for batch in batches for result in tokenize(batch) if not isinstance(result, str)]
        assert len(kept) == 7473
        total = sum(len(example.input_ids) for example in kept)
        trained = sum(label != -100 for example in kept for label in example.labels)
        for shown in (name, name.replace(f"_{stage}", f"_lora_{stage}")):
            assert rows[shown][6:8] == [f"{total / 1e6:.2f} M", f"{trained:,}"]
        if model == "qwen3_8b":
            assert rows[f"smollm3_3b_{stage}"][6:8] == [f"~{total / 1e6:.2f} M", f"~{trained / 1e3:.0f} k"]
