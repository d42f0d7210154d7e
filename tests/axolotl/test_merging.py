"""``axolotl merge-lora``: the stage's own adapter is merged, and the merged checkpoint stops and prompts like it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from sftkey.axolotl.merging import complete_merged, finish_merge, merge_own_adapter
from sftkey.format import templates
from sftkey.format.formats import THINKING_ANSWER
from sftkey.stages.marker import MARKER_FILE, SCHEMA, Marker
from sftkey.training.end_of_turn import stop_tokens
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically


def test_the_stage_before_is_not_what_is_merged(tmp_path: Path) -> None:
    recipe = {"output_dir": str(tmp_path / "stage2"), "lora_model_dir": str(tmp_path / "stage1")}
    own = {**recipe, "axolotl_config_path": "my recipes/stage2.yml"}
    with pytest.raises(UserError, match=r"stage2 holds no finished stage .*\n  axolotl train 'my recipes/stage2\.yml'"):
        merge_own_adapter(own, None)
    marker = {"schema": SCHEMA, "finished_at": "2026", "method": "key-tag", "base_model": recipe["lora_model_dir"]}
    write_atomically(tmp_path / "stage2" / MARKER_FILE, marker)
    merge_own_adapter(own, None)
    assert own["lora_model_dir"] == recipe["output_dir"]
    # A checkpoint, or any adapter, that the user names is the user's choice.
    named = dict(recipe)
    merge_own_adapter(named, "elsewhere/checkpoint-8")
    assert named["lora_model_dir"] == "elsewhere/checkpoint-8"


def test_a_merged_checkpoint_has_the_adapters_tokenizer_and_end(tiny_root: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_root / "model")
    end_of_text = tokenizer.eos_token_id
    tokenizer.add_tokens(list(THINKING_ANSWER.tags))
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = templates.chat_template(templates.TAGGED)
    tokenizer.save_pretrained(tmp_path / "adapter")
    merged = tmp_path / "merged"
    complete_merged(tmp_path / "adapter", merged)
    assert not merged.exists()
    # As Axolotl leaves it: merged weights between the base model's own files.
    shutil.copytree(tiny_root / "model", merged)
    (merged / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    complete_merged(tmp_path / "adapter", merged)
    found = AutoTokenizer.from_pretrained(merged)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found.eos_token_id == end_of_turn != end_of_text
    assert found.chat_template == tokenizer.chat_template
    assert found.encode("<Thinking>") == tokenizer.encode("<Thinking>")
    assert len(found.encode("<Thinking>")) == 1
    assert GenerationConfig.from_pretrained(merged).eos_token_id == [end_of_turn, end_of_text]
    assert json.loads((merged / "config.json").read_text())["eos_token_id"] == end_of_turn


@pytest.mark.parametrize(("previous", "expected"), [(None, [9]), (9, [9]), (1, [9, 1]), ([1, 9, 2], [9, 1, 2])])
def test_stop_tokens(previous: Any, expected: list[int]) -> None:
    assert stop_tokens(9, previous) == expected


def adapter_of(
    model: Path,
    folder: Path,
    *,
    added: tuple[str, ...] = THINKING_ANSWER.tags,
    embeddings: Any = "auto",
    **settings: Any,
) -> None:
    """An adapter with random weights, added tags and the recipe's marker, as training leaves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(list(added))
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = templates.chat_template(templates.TAGGED)
    tokenizer.save_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(model)
    base.resize_token_embeddings(len(tokenizer))
    options = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(base, LoraConfig(**{**options, **settings}))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(str(folder), save_embedding_layers=embeddings)
    marker = {"schema": SCHEMA, "id": "1" * 32, "finished_at": "2026", "method": "sft-tag", "base_model": str(model)}
    write_atomically(folder / MARKER_FILE, marker)


def recipe_of(model: Path, **more: Any) -> Any:
    from axolotl.utils.dict import DictDefault

    return DictDefault({"base_model": str(model), **more})


def merge(model: Path, folder: Path) -> Path:
    """What ``axolotl merge-lora`` does with it."""
    from axolotl.cli.utils.lora_merge import merge_lora_sharded_efficient

    merged = folder / "merged"
    merged.mkdir(exist_ok=True)
    merge_lora_sharded_efficient(model, folder, merged)
    finish_merge(recipe_of(model), folder, merged)
    return merged


SAVED = ["embed_tokens", "lm_head"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": SAVED, "ensure_weight_tying": True},
        # As this package advised it before; the base model ties the two.
        {"modules_to_save": SAVED},
        {"modules_to_save": SAVED, "use_dora": True, "ensure_weight_tying": True},
        {"modules_to_save": SAVED, "use_rslora": True, "rank_pattern": {"v_proj": 2}},
    ],
    ids=["tied", "apart", "dora", "rslora"],
)
def test_merged_weights_are_those_of_the_adapter(tiny_root: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tmp_path / "base"
    shutil.copytree(tiny_root / "model", model)
    # A base model may be a stage itself; its files aren't those of this one.
    for name in (MARKER_FILE, "sftkey_run.json", "trainer_state.json", "README.md"):
        (model / name).write_text("{}")
    adapter = tmp_path / "adapter"
    adapter_of(model, adapter, **settings)
    merged = merge(model, adapter)
    marker = Marker.read(merged)
    assert marker is not None
    assert marker.id == "1" * 32
    assert marker.merged is not None
    assert marker.merged.adapter == str(adapter)
    assert marker.merged.positions is not None
    assert not any((merged / name).exists() for name in ("sftkey_run.json", "trainer_state.json", "README.md"))
    # By hand, on rows of random tokens.
    tokenizer = AutoTokenizer.from_pretrained(merged)
    base = AutoModelForCausalLM.from_pretrained(model)
    base.resize_token_embeddings(len(tokenizer))
    rows = torch.randint(len(tokenizer), (4, 12))
    with torch.no_grad():
        expected = PeftModel.from_pretrained(base, str(adapter))(input_ids=rows).logits
        found = AutoModelForCausalLM.from_pretrained(merged)(input_ids=rows).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [None, "legacy"])
def test_a_merge_that_leaves_something_out(tiny_root: Path, tmp_path: Path, method: str | None) -> None:
    adapter_of(tiny_root / "model", tmp_path, embeddings=False)
    with pytest.raises(
        UserError, match=r"merged has \d+ embeddings for \d+ tokens: the merge left the added ones out$"
    ):
        merge(tiny_root / "model", tmp_path)
    assert not (tmp_path / "merged" / MARKER_FILE).exists()
    adapter_of(tiny_root / "model", tmp_path, added=())
    merged = merge(tiny_root / "model", tmp_path)
    assert (merged / MARKER_FILE).exists()
    # One layer's query projection is that of the base model.
    weights, base = load_file(merged / "model.safetensors"), load_file(tiny_root / "model" / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    save_file({**weights, name: base[name]}, merged / "model.safetensors", metadata={"format": "pt"})
    advice = "" if method else r", or merge with merge_method: legacy"
    with pytest.raises(UserError, match=rf"merged is not the model that .* Use the adapter itself{advice}$"):
        finish_merge(recipe_of(tiny_root / "model", merge_method=method), tmp_path, merged)
    assert not (merged / MARKER_FILE).exists()


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_no_stage_leaves_no_marker(tiny_root: Path, tmp_path: Path) -> None:
    adapter_of(tiny_root / "model", tmp_path, added=())
    (tmp_path / MARKER_FILE).unlink()
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / MARKER_FILE).write_text("{}")
    assert not (merge(tiny_root / "model", tmp_path) / MARKER_FILE).exists()


def test_single_embeddings_are_merged_in_the_other_way(tmp_path: Path) -> None:
    for config, method in (
        ({}, None),
        ({"trainable_token_indices": [5]}, "legacy"),
        ({"target_modules": SAVED}, "legacy"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        recipe = {"output_dir": str(tmp_path)}
        merge_own_adapter(recipe, str(tmp_path))
        assert recipe.get("merge_method") == method
