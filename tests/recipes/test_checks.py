"""Every impossible recipe is an error that says what to change."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sftkey.format.formats import THINKING_ANSWER
from sftkey.recipes.checks import check_recipe
from sftkey.util.errors import UserError

COLUMNS = "sftkey.datasets.columns"

RECIPE: dict[str, Any] = {
    "base_model": "Qwen/Qwen3-8B-Base",
    "plugins": ["sftkey.SFTKeyPlugin"],
    "sftkey_method": "key-tag",
    "datasets": [{"path": "openai/gsm8k", "name": "main", "type": "sftkey.datasets.gsm8k"}],
    "num_epochs": 3,
}


def test_a_good_recipe_passes() -> None:
    check_recipe(RECIPE)
    check_recipe({**RECIPE, "tokens": list(THINKING_ANSWER.tags), "sftkey_tags": "tokens", "sftkey_warmup_epochs": 0.5})
    check_recipe({**RECIPE, "adapter": "lora", "sftkey_tags": "text"})
    check_recipe({**RECIPE, "adapter": "lora", "sftkey_tags": "tokens", "sftkey_after": "stage1.yml"})
    check_recipe({**RECIPE, "adapter": "lora", "sftkey_tags": "tokens", "peft_trainable_token_indices": [1]})
    check_recipe({**RECIPE, "sftkey_segment_schedule": {"thinking": 0}})
    check_recipe({**RECIPE, "num_epochs": "3", "warmup_ratio": "1e-1"})
    check_recipe({**RECIPE, "sftkey_requires": ">=0.1"})
    check_recipe({**RECIPE, "datasets": [{"path": "hf://me/rows.jsonl", "type": COLUMNS}]})
    check_recipe({**RECIPE, "datasets": [{"path": "me/rows", "data_files": "part.jsonl", "type": COLUMNS}]})
    check_recipe({**RECIPE, "datasets": [{"path": "me/rows", "type": "support.their_lab.commonsenseqa"}]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sftkey_metod": "sft"}, "unknown key 'sftkey_metod'; did you mean 'sftkey_method'"),
        ({"sftkeyafter": "x.yml"}, "unknown key 'sftkeyafter'; did you mean 'sftkey_after'"),
        ({"sftkey_method": None}, "sftkey_method is missing; set it to one of sft, sft-tag, key-tag, key"),
        ({"sftkey_method": "key_tag"}, "'key_tag' is not one of .*; did you mean 'key-tag'"),
        ({"train_on_inputs": True}, "train_on_inputs: true and sftkey_method: key-tag exclude each other.*remove"),
        ({"use_eaft": True}, "use_eaft: does not go with sftkey_method .it is another loss.*remove it"),
        ({"use_dft": True}, "use_dft: does not go with sftkey_method .it is another loss.*remove it"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: does not go with sftkey_method .it is another loss"),
        ({"eot_tokens": ["<|im_end|>"]}, "eot_tokens: does not go with sftkey_method .the end of the turn is the chat"),
        (
            {"chunked_cross_entropy": True},
            "chunked_cross_entropy: does not go with .*has its own: sftkey_sparse_logits",
        ),
        ({"trainer_cls": "my.Trainer"}, "trainer_cls: does not go with sftkey_method .*remove it"),
        ({"chat_template": "chatml"}, "'chatml' has no exact segments; set chat_template: thinking_answer"),
        (
            {"chat_template": "thinking_answer_plain"},
            "does not fit the tagged method key-tag; set it to thinking_answer",
        ),
        ({"sftkey_method": "sft", "chat_template": "thinking_answer"}, "does not fit the untagged method sft"),
        ({"sftkey_method": "sft", "default_system_message": "x"}, "has no system message; remove the key"),
        ({"default_system_message": "x<|im_end|>"}, r"holds <\|im_end\|>, which would end its turn early"),
        ({"sftkey_method": ["sft"]}, r"sftkey_method: \['sft'\] is not a text"),
        ({"sftkey_after": 1}, "sftkey_after: 1 is not a text"),
        ({"sftkey_warmup_epochs": "half"}, "sftkey_warmup_epochs: 'half' is not a number"),
        ({"sftkey_warmup_epochs": float("nan")}, "sftkey_warmup_epochs: nan is not a number"),
        ({"num_epochs": True}, "num_epochs: True is not a number"),
        ({"tensor_parallel_size": ["2"]}, r"tensor_parallel_size: \['2'\] is not a number"),
        ({"datasets": "openai/gsm8k"}, "datasets: 'openai/gsm8k' is not a list of entries such as"),
        ({"datasets": ["openai/gsm8k"]}, "datasets: .* is not a list of entries such as"),
        ({"test_datasets": {"path": "x"}}, "test_datasets: .* is not a list of entries such as"),
        (
            {"datasets": [{"path": "x", "data_files": 1, "type": COLUMNS}]},
            r"datasets\[0\]: data_files: 1 is not a text",
        ),
        *(
            (
                {"datasets": [{"path": "x", "type": COLUMNS, key: value}]},
                rf"^datasets\[0\]: {key}: .* is not a text; put it in",
            )
            for key in ("path", "name", "split", "revision", "ds_type")
            for value in (False, 1, date(2024, 1, 1), ["x"], {"x": "y"})
        ),
        (
            {"test_datasets": [{"path": "x", "name": False, "type": COLUMNS}]},
            r"test_datasets\[0\]: name: False is not a",
        ),
        ({"tokens": "<Answer>"}, "tokens: '<Answer>' is not a list of texts"),
        ({"special_tokens": ["<Answer>"]}, "special_tokens: .* is not a mapping such as"),
        ({"special_tokens": {"additional_special_tokens": 1}}, "additional_special_tokens: 1 is not a list of texts"),
        *(
            ({"sftkey_columns": value}, "sftkey_columns: .* is not a mapping such as")
            for value in (3, ["q"], {"q": "x"}, {"question": ["x"]}, {"options": ["A"]}, {"options": None})
        ),
        ({"datasets": []}, "datasets: is empty"),
        ({"datasets": [{"path": "x", "type": "alpaca"}]}, r"datasets\[0\]: type 'alpaca' carries no segments"),
        (
            {"datasets": [{"path": "x", "type": "sftkey.datasets.gsm9k"}]},
            r"there is no such module; did you mean sftkey\.datasets\.gsm8k\? This version .* knows gsm8k, .*messages",
        ),
        ({"datasets": [{"path": "x", "type": "sftkey.datasets.base"}]}, "there is no such module"),
        (
            {"datasets": [{"type": "sftkey.datasets.columns"}]},
            r"datasets\[0\]: path: it names no rows; set it to a file",
        ),
        (
            {"test_datasets": [{"path": "", "type": "sftkey.datasets.columns"}]},
            r"test_datasets\[0\]: path: it names no",
        ),
        (
            {"datasets": [{"path": "x", "type": "no_such_lab.svamp"}]},
            r"^datasets\[0\]: type 'no_such_lab.svamp' can't be imported \(ModuleNotFoundError: No module named "
            r"'no_such_lab'\); install its package, or name its folder in PYTHONPATH$",
        ),
        (
            {"test_datasets": [{"path": "x", "type": "support.their_lab"}]},
            r"^test_datasets\[0\]: type 'support.their_lab' has no ReasoningDataset and no `load`; a module",
        ),
        ({"datasets": [{"path": "no/rows.jsonl", "type": COLUMNS}]}, r"datasets\[0\]: there is no no/rows\.jsonl"),
        ({"test_datasets": [{"path": "/no/rows", "type": COLUMNS}]}, r"test_datasets\[0\]: there is no /no/rows"),
        (
            {"datasets": [{"path": "json", "data_files": ["/no/rows.jsonl"], "type": COLUMNS}]},
            r"there is no /no/rows\.jsonl",
        ),
        (
            {"sftkey_requires": ">=99", "sftkey_from_the_future": 1, "sftkey_method": "future"},
            r"^sftkey_requires: this recipe needs sftkey >=99, and .* is installed; install a version >=99 from",
        ),
        ({"sftkey_requires": "newest"}, "'newest' is not a version specifier"),
        ({"test_datasets": [{"path": "x", "type": "chat_template"}]}, r"test_datasets\[0\]: type 'chat_template'"),
        ({"excess_length_strategy": "truncate"}, "would cut the answer off; use drop"),
        ({"streaming": True}, "streaming: does not go with"),
        ({"rl": "dpo"}, "rl: does not go with"),
        ({"context_parallel_size": 2}, "context_parallel_size"),
        ({"sequence_parallel_degree": "2"}, "^sequence_parallel_degree: > 1 splits sequences, .*; remove it$"),
        ({"sftkey_warmup_epochs": 0.5, "warmup_steps": 10}, "sftkey_warmup_epochs and warmup_steps are both set"),
        ({"sftkey_warmup_epochs": 0.5, "warmup_ratio": 0.1}, "sftkey_warmup_epochs and warmup_ratio are both set"),
        ({"sftkey_warmup_epochs": 4}, "longer than num_epochs: 3"),
        ({"sftkey_warmup_epochs": -1}, "sftkey_warmup_epochs: -1 is less than 0"),
        ({"tokens": ["<Answer>"]}, "lists <Answer> but not <Thinking>, </Thinking>, </Answer>"),
        ({"tokens": list(THINKING_ANSWER.tags), "sftkey_tags": "text"}, "sftkey_tags: text, but the tags are listed"),
        ({"special_tokens": {"additional_special_tokens": ["<Answer>"]}}, "must not be special tokens"),
        ({"special_tokens": {"eos_token": "<|endoftext|>"}}, "stops at the end of the turn"),
        ({"adapter": "lora", "sftkey_tags": "tokens"}, "embed_tokens and lm_head would stay frozen"),
        (
            {"adapter": "lora", "sftkey_tags": "tokens", "lora_modules_to_save": ["embed_tokens"]},
            "but lm_head would stay frozen",
        ),
        ({"sftkey_segment_weights": {"answers": 1}}, "maps thinking, format and answer"),
        ({"sftkey_segment_weights": {"answer": -1}}, "weights are finite numbers >= 0"),
        ({"sftkey_segment_weights": {"answer": float("nan")}}, "weights are finite numbers >= 0"),
        (
            {"sftkey_segment_schedule": {"thinking": float("inf")}},
            "sftkey_segment_schedule: .* are finite numbers >= 0",
        ),
        ({"sftkey_segment_schedule": {"thinking": True}}, "weights are finite numbers >= 0"),
        ({"sftkey_segment_weights": {"answer": 0, "format": 0}}, "leaves nothing to train"),
        ({"sftkey_context_grad": "no"}, "sftkey_context_grad: 'no' is not true or false"),
    ],
)
def test_an_impossible_recipe_says_what_to_change(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_recipe({**RECIPE, **changes})


WITHOUT_CONTEXT_GRAD = {**RECIPE, "sftkey_context_grad": False}


def test_recipes_without_the_context_gradient(tmp_path: Path) -> None:
    check_recipe(WITHOUT_CONTEXT_GRAD)
    check_recipe({**WITHOUT_CONTEXT_GRAD, "sftkey_method": "key"})
    check_recipe({**WITHOUT_CONTEXT_GRAD, "sftkey_segment_weights": {"thinking": 0, "answer": 2}})
    check_recipe({**WITHOUT_CONTEXT_GRAD, "adapter": "lora", "attn_implementation": "flash_attention_2"})
    check_recipe({**WITHOUT_CONTEXT_GRAD, "gradient_checkpointing": True, "sample_packing": False})
    check_recipe({**WITHOUT_CONTEXT_GRAD, "fsdp_version": 2, "fsdp_config": {"offload_params": False}})
    check_recipe({**WITHOUT_CONTEXT_GRAD, "deepspeed": {"zero_optimization": "auto"}})
    (tmp_path / "zero2.json").write_text('{"zero_optimization": {"stage": 2}}')
    check_recipe(
        {**WITHOUT_CONTEXT_GRAD, "deepspeed": "zero2.json", "axolotl_config_path": str(tmp_path / "recipe.yml")}
    )
    # The exact gradient goes with all of it.
    check_recipe({**RECIPE, "sftkey_method": "sft-tag", "sample_packing": True, "sftkey_context_grad": True})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sftkey_method": "sft-tag"}, "sft-tag does not go with .*trains the thinking.*set it to key-tag or key"),
        ({"sftkey_segment_weights": {"thinking": 0.2}}, "sftkey_segment_weights: thinking: 0.2 .*set it to 0"),
        ({"sftkey_segment_schedule": {"thinking": 1}}, "sftkey_segment_schedule: thinking: 1 .*set it to 0"),
        ({"sample_packing": True}, "sample_packing .*each row has a context of its own; remove it"),
        ({"neftune_noise_alpha": 5}, "neftune_noise_alpha .*remove it"),
        ({"flex_attention": True}, "flex_attention .*remove it"),
        ({"attn_implementation": "flex_attention"}, "set it to sdpa, eager or flash_attention_2"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size: 2 .*remove it"),
        ({"tensor_parallel_size": "2"}, "tensor_parallel_size: 2 .*remove it"),
        ({"adapter": "llama-adapter"}, "adapter: llama-adapter .*set it to lora or qlora"),
        ({"fsdp_config": {"offload_params": True}}, "FSDP of version 1 .*set fsdp_version: 2"),
        (
            {"fsdp_version": 2, "fsdp_config": {"activation_checkpointing": True}},
            "activation_checkpointing .*remove it",
        ),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, "DeepSpeed ZeRO-3 .*use ZeRO-1 or 2"),
        ({"deepspeed": "no/such/zero3_bf16.json"}, "DeepSpeed ZeRO-3"),
    ],
)
def test_what_does_not_go_without_the_context_gradient(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_recipe({**WITHOUT_CONTEXT_GRAD, **changes})


def test_weights_in_fp32_are_for_fsdp2() -> None:
    sharded = {**RECIPE, "fsdp_version": 2, "fsdp_config": {"reshard_after_forward": True}}
    check_recipe({**sharded, "sftkey_fp32_weights": True})
    check_recipe({**RECIPE, "sftkey_fp32_weights": False})
    for changes, message in (
        ({"sftkey_fp32_weights": "yes"}, "'yes' is not true or false"),
        ({"sftkey_fp32_weights": True, "fsdp_version": 1}, "is for FSDP2 .*remove it"),
        ({"sftkey_fp32_weights": True, "fsdp_config": None}, "is for FSDP2 .*remove it"),
        ({"sftkey_fp32_weights": True, "adapter": "lora"}, "below adapter: lora; remove it"),
    ):
        with pytest.raises(UserError, match=message):
            check_recipe({**sharded, **changes})


def test_the_zero_stage_is_read_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"zero_optimization": {"stage": 3}}')
    recipe = {**WITHOUT_CONTEXT_GRAD, "deepspeed": "plan.json", "axolotl_config_path": str(tmp_path / "recipe.yml")}
    with pytest.raises(UserError, match="ZeRO-3"):
        check_recipe(recipe)
