"""The estimate's parts against models built without data, on PyTorch's meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sftkey.recipes.memory import ARCHITECTURES, CONTEXT, FRAGMENTATION, GIB, Architecture, estimate_memory
from torch.autograd.graph import saved_tensors_hooks

MODEL_TYPES = {"Qwen3": "qwen3", "Qwen2": "qwen2", "SmolLM3": "smollm3", "SmolLM2": "llama"}

PUBLISHED = {
    "Qwen/Qwen3-8B-Base": 8_190_735_360,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "HuggingFaceTB/SmolLM3-3B-Base": 3_075_098_624,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
}
"""Tensor sizes of the checkpoints on the Hub."""

RECIPE = {"bf16": True, "gradient_checkpointing": True, "micro_batch_size": 8, "sequence_len": 1024}


def config_of(name: str) -> dict[str, Any]:
    shape = ARCHITECTURES[name]
    kind = next(kind for part, kind in MODEL_TYPES.items() if part in name)
    fields = {
        field: getattr(shape, field)
        for field in Architecture.__slots__
        if field not in ("qkv_bias", "qk_norm", "head_dim")
    }
    more = {"head_dim": shape.head_dim} if kind == "qwen3" else {}
    return {"model_type": kind, **fields, **more, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}


def on_meta(name: str, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = config_of(name) | changes
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_those_of_the_model(name: str) -> None:
    model = on_meta(name)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert ARCHITECTURES[name].parameters == count == PUBLISHED[name]
    linear = sum(
        module.weight.numel() for module in model.model.layers.modules() if isinstance(module, torch.nn.Linear)
    )
    assert ARCHITECTURES[name].linear_parameters == linear


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_shape_is_read_from_a_config(name: str) -> None:
    assert Architecture.from_config(config_of(name)) == ARCHITECTURES[name]
    assert Architecture.from_config({"model_type": "mamba"}) is None


def test_lora_parameters_are_those_that_peft_adds() -> None:
    from peft import LoraConfig, get_peft_model

    model = on_meta("Qwen/Qwen3-8B-Base", num_hidden_layers=2)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules=targets))
    added = sum(parameter.numel() for name, parameter in adapted.named_parameters() if "lora_" in name)
    assert ARCHITECTURES["Qwen/Qwen3-8B-Base"].lora_parameters(16) == added * 36 // 2


class FlashLike(torch.autograd.Function):
    """Keeps what flash attention keeps: queries, keys, values and its output."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError


def flash_like(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    return FlashLike.apply(query, key, value).transpose(1, 2).contiguous(), None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_a_layer_keeps_is_what_autograd_saves(name: str) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register("flash_like", flash_like)
    model = on_meta(name, num_hidden_layers=1)
    model.config._attn_implementation = "flash_like"
    shape, tokens = ARCHITECTURES[name], 64
    hidden = torch.empty(1, tokens, shape.hidden_size, dtype=torch.bfloat16, device="meta", requires_grad=True)
    rotation = (torch.empty(1, tokens, shape.head_dim, dtype=torch.bfloat16, device="meta"),) * 2
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            storages[storage._cdata] = storage  # held, so that no address is used twice
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model.layers[0](hidden, position_embeddings=rotation, attention_mask=None)
    saved = sum(storage.nbytes() for storage in storages.values()) / tokens
    # Tables of the rotation, the norms' scales per token and the copy of the output for its projection: a few percent.
    assert shape.kept_per_token == pytest.approx(saved, rel=0.06)


def test_states_by_hand() -> None:
    shape = ARCHITECTURES["Qwen/Qwen2.5-1.5B"]
    p = 1_543_714_304
    for stage, expected in ((0, 8 * p), (1, 4 * p + 12 * p / 8), (2, 2 * p + 14 * p / 8), (3, 16 * p / 8)):
        assert estimate_memory(shape, RECIPE, gpus=8, zero_stage=stage).states == expected
    assert estimate_memory(shape, {**RECIPE, "bf16": False}).states == 16 * p


def test_a_peak_by_hand() -> None:
    # Qwen2.5-3B: 36 layers of width 2048, micro-batches of 4 x 1024 tokens on 8 GPUs, a chunk of 1024 rows in the head.
    estimate = estimate_memory(
        ARCHITECTURES["Qwen/Qwen2.5-3B"], {**RECIPE, "micro_batch_size": 4}, gpus=8, zero_stage=3
    )
    assert estimate.checkpoints == 2 * 36 * 4096 * 2048
    assert estimate.head == 1024 * 151936 * 6 + 151936 * 2048 * (4 + 2 + 2) + 2 * 151936 * 2048
    assert estimate.step == 4 * 3_085_938_688 / 8
    together = estimate.states + estimate.checkpoints + estimate.head
    assert estimate.peak == together * FRAGMENTATION + CONTEXT


FSDP2 = {"fsdp_version": 2, "fsdp_config": {"activation_checkpointing": True}, "sftkey_fp32_weights": True}


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-3B"])
def test_fsdp2_by_hand(name: str) -> None:
    shape = ARCHITECTURES[name]
    recipe = {key: value for key, value in RECIPE.items() if key != "gradient_checkpointing"} | FSDP2
    ours, zero3 = estimate_memory(shape, recipe, gpus=8), estimate_memory(shape, RECIPE, gpus=8, zero_stage=3)
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    layers = (shape.parameters - embeddings) / shape.num_hidden_layers
    assert ours.states == zero3.states == 16 * shape.parameters / 8
    assert ours.checkpoints == zero3.checkpoints
    # Gathered in bf16: the embeddings, and for a layer's backward pass that layer and the next.
    assert ours.head - zero3.head == pytest.approx(2 * embeddings - 2 * shape.vocab_size * shape.hidden_size)
    assert ours.layer - zero3.layer == pytest.approx(2 * embeddings + 2 * 2 * layers - 2 * min(10**9, shape.parameters))
    assert ours.step == 4 * shape.parameters / 8
    half = estimate_memory(shape, {**recipe, "sftkey_fp32_weights": None}, gpus=8)
    assert half.states == 8 * shape.parameters / 8


def test_lora_and_four_bits() -> None:
    shape = ARCHITECTURES["Qwen/Qwen3-8B-Base"]
    recipe = {**RECIPE, "micro_batch_size": 4, "adapter": "lora", "lora_r": 16}
    full = estimate_memory(shape, recipe)
    four = estimate_memory(shape, {**recipe, "adapter": "qlora", "load_in_4bit": True})
    assert full.states == 2 * shape.parameters + 16 * shape.lora_parameters(16)
    assert full.peak / GIB < 22.5
    assert four.peak / GIB < 15
    assert full.step == 0


def test_more_of_anything_needs_more() -> None:
    shape = ARCHITECTURES["Qwen/Qwen2.5-7B"]
    peak = estimate_memory(shape, RECIPE, gpus=8, zero_stage=3).peak
    for change in ({"micro_batch_size": 32}, {"sequence_len": 8192}):
        assert estimate_memory(shape, {**RECIPE, **change}, gpus=8, zero_stage=3).peak > peak
    assert estimate_memory(shape, RECIPE, gpus=4, zero_stage=3).peak > peak


@pytest.mark.parametrize(
    ("changes", "stage", "message"),
    [
        ({"gradient_checkpointing": False}, 3, "gradient_checkpointing"),
        ({"adapter": "lora"}, 3, "adapter under DeepSpeed"),
        ({"adapter": "lora", **FSDP2}, 0, "adapter under DeepSpeed or FSDP"),
        ({**FSDP2, "fsdp_version": 1}, 0, "FSDP of version 1"),
    ],
)
def test_what_is_not_covered_is_said(changes: dict[str, Any], stage: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_memory(ARCHITECTURES["Qwen/Qwen2.5-3B"], {**RECIPE, **changes}, zero_stage=stage)
