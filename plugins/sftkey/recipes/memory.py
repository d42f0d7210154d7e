"""Peak memory per GPU of a recipe, estimated from the model's shape and the recipe's settings.

An upper bound for planning, not a measurement: every sequence counts as ``sequence_len`` tokens, all of them labelled;
`CONTEXT` and `FRAGMENTATION` stand for what no formula covers. With P parameters on N GPUs, hidden width H, L layers,
vocabulary V and T = micro_batch_size * sequence_len tokens in a micro-batch::

    peak = (states + max(output layer, one layer, optimizer step)) * fragmentation + context

    states           full training, ZeRO-3    16 P / N   (weights 2, gradients 2, fp32 weights and AdamW 12 bytes)
                     full training, FSDP2     16 P / N   (fp32 weights, gradients and AdamW; 8 P / N in pure bf16)
                     full training, fp32      16 P
                     LoRA                      2 P + 16 A, 4-bit base: about 0.52 bytes per linear weight; A = adapter
    output layer     checkpoints + gathered head + its gradient + the logits of one chunk
    one layer        checkpoints + gathered parameters + what the layer's backward pass keeps
    optimizer step   ZeRO-3: the fp32 gradients of one group of parameters; FSDP2: a copy of all of a GPU's
    checkpoints      bytes * L T H: with gradient checkpointing each layer keeps its input
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sftkey.recipes.load import Recipe, checkpoints_in_fsdp, deepspeed_settings, fsdp_version, zero_stage
from sftkey.util.sources import read_json

GIB = 2**30

CONTEXT = GIB
"""CUDA context, NCCL and ZeRO buffers: assumed, not computed."""

FRAGMENTATION = 1.1
"""Bytes that are reserved for a byte that is computed here: 1.06 to 1.11 in three recipes on an H100."""

_ZERO3_LIVE_PARAMETERS = 10**9  # `stage3_max_live_parameters` of recipes/deepspeed/zero3.json
_ZERO3_GROUP = 10**9  # DeepSpeed's `sub_group_size`: how many of a GPU's parameters are stepped at a time
_FSDP2_LAYERS = 2  # the layer at work and the one that is gathered ahead of it
_NF4_BYTES = 0.52  # 4 bits, and a double-quantised scale for each block of 64


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a decoder-only transformer with gated MLPs (Llama, Qwen, SmolLM).

    The names are those of a model's ``config.json``; `qkv_bias` and `qk_norm` follow from its ``model_type``.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture | None:
        """Read a ``config.json``; ``None`` where the model is of another kind."""
        kind = config.get("model_type")
        if kind not in ("llama", "qwen2", "qwen3", "smollm3"):
            return None
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return cls(
            vocab_size=int(config["vocab_size"]),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            num_hidden_layers=int(config["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            tie_word_embeddings=bool(config.get("tie_word_embeddings")),
            qkv_bias=kind == "qwen2",
            qk_norm=kind == "qwen3",
        )

    @property
    def query_width(self) -> int:
        """Width of the queries of one token, and of the attention's output."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of the keys of one token; the values have the same."""
        return self.num_key_value_heads * self.head_dim

    @property
    def linear_shapes(self) -> tuple[tuple[int, int], ...]:
        """Input and output width of the seven linear maps of a layer."""
        hidden, inner, query, key = self.hidden_size, self.intermediate_size, self.query_width, self.key_width
        attention = ((hidden, query), (hidden, key), (hidden, key), (query, hidden))
        return (*attention, (hidden, inner), (hidden, inner), (inner, hidden))

    @property
    def linear_parameters(self) -> int:
        """Weights of all layers' linear maps: what LoRA adapts and 4-bit loading quantises."""
        return self.num_hidden_layers * sum(fan_in * fan_out for fan_in, fan_out in self.linear_shapes)

    @property
    def parameters(self) -> int:
        """All parameters; tied embeddings count once."""
        small = 2 * self.hidden_size
        small += (self.query_width + 2 * self.key_width) if self.qkv_bias else 0
        small += 2 * self.head_dim if self.qk_norm else 0
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.linear_parameters + self.num_hidden_layers * small + self.hidden_size + embeddings

    def lora_parameters(self, rank: int) -> int:
        """Parameters of a LoRA adapter on every linear map (``lora_target_linear: true``)."""
        return self.num_hidden_layers * rank * sum(fan_in + fan_out for fan_in, fan_out in self.linear_shapes)

    @property
    def kept_per_token(self) -> int:
        """Values that the backward pass of one layer keeps for a token, in bytes in bf16 with flash attention.

        Two RMS norms with an fp32 copy (8 bytes per channel each), queries, keys, values and attention output, the q/k
        norms where there are any, and four tensors of the MLP's inner width.
        """
        attention = 4 * (self.query_width + self.key_width)
        norms = 16 * self.hidden_size + (6 * (self.query_width + self.key_width) if self.qk_norm else 0)
        return norms + attention + 8 * self.intermediate_size


def _shape(vocab: int, hidden: int, inner: int, layers: int, heads: int, keys: int, **more: bool) -> Architecture:
    return Architecture(vocab, hidden, inner, layers, heads, keys, hidden // heads, **more)


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "Qwen/Qwen3-8B-Base": _shape(151936, 4096, 12288, 36, 32, 8, qk_norm=True),
        "Qwen/Qwen3-8B": _shape(151936, 4096, 12288, 36, 32, 8, qk_norm=True),
        "Qwen/Qwen2.5-7B": _shape(152064, 3584, 18944, 28, 28, 4, qkv_bias=True),
        "Qwen/Qwen2.5-3B": _shape(151936, 2048, 11008, 36, 16, 2, qkv_bias=True, tie_word_embeddings=True),
        "Qwen/Qwen2.5-1.5B": _shape(151936, 1536, 8960, 28, 12, 2, qkv_bias=True, tie_word_embeddings=True),
        "HuggingFaceTB/SmolLM3-3B-Base": _shape(128256, 2048, 11008, 36, 16, 4, tie_word_embeddings=True),
        "HuggingFaceTB/SmolLM2-135M": _shape(49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True),
    }
)
"""The models of the shipped recipes, by their name on the Hub."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one GPU.

    Attributes:
        states: Weights, gradients and optimizer states.
        checkpoints: The inputs that gradient checkpointing keeps of each layer.
        head: The output layer and its loss, with what ZeRO-3 gathers for it.
        layer: The backward pass of one layer, with what ZeRO-3 gathers around it.
        step: What the optimizer step adds.
    """

    states: float
    checkpoints: float
    head: float
    layer: float
    step: float

    @property
    def peak(self) -> float:
        """The largest sum of what exists at the same time."""
        together = self.states + max(self.checkpoints + max(self.head, self.layer), self.step)
        return together * FRAGMENTATION + CONTEXT


def estimate_memory(
    architecture: Architecture, recipe: Mapping[str, Any], *, gpus: int = 1, zero_stage: int = 0
) -> MemoryEstimate:
    """Estimate the peak memory of a recipe on one GPU.

    Args:
        architecture: The model's shape.
        recipe: The recipe; ``micro_batch_size``, ``sequence_len``, ``bf16``, ``adapter``, ``lora_r``, ``load_in_4bit`` and
            ``gradient_checkpointing`` and FSDP2's settings count.
        gpus: Number of GPUs.
        zero_stage: DeepSpeed's ZeRO stage: 0 (none) to 3.

    Raises:
        ValueError: The settings aren't covered: an adapter under ZeRO-3, no gradient checkpointing.
    """
    if recipe.get("gradient_checkpointing") is not True and not checkpoints_in_fsdp(recipe):
        raise ValueError("the estimate holds for gradient_checkpointing: true only")
    fsdp = fsdp_version(recipe)
    if recipe.get("adapter") and (zero_stage or fsdp):
        raise ValueError("the estimate doesn't cover an adapter under DeepSpeed or FSDP")
    if fsdp == 1:
        raise ValueError("the estimate doesn't cover FSDP of version 1")
    width = 2 if recipe.get("bf16") else 4
    tokens = int(recipe.get("micro_batch_size") or 1) * int(recipe.get("sequence_len") or 512)
    whole_head = architecture.vocab_size * architecture.hidden_size
    zero3 = zero_stage == 3
    chunk = max(512, architecture.hidden_size // 2)
    logits = min(tokens, chunk) * architecture.vocab_size * (6 if width == 2 else 8)
    # The gradient of the output layer is summed over chunks in fp32 and then cast; ZeRO-3 gathers the weight itself.
    head_gradient = 0 if recipe.get("adapter") else whole_head * ((4 + 2 * width) if tokens > chunk else width)
    gathered: float = width * min(_ZERO3_LIVE_PARAMETERS, architecture.parameters) if zero3 else 0
    # FSDP2's root keeps the embeddings gathered beside the layers.
    embeddings = width * whole_head * (1 if architecture.tie_word_embeddings else 2) if fsdp else 0
    if fsdp:
        layers = architecture.parameters * width - embeddings
        gathered = embeddings + _FSDP2_LAYERS * layers / architecture.num_hidden_layers
    # Beside what is kept, gradients of three tensors of the MLP's inner width and of four hidden states.
    share = architecture.parameters / gpus
    backward = architecture.kept_per_token + 6 * architecture.intermediate_size + 8 * architecture.hidden_size
    return MemoryEstimate(
        states=_states(architecture, recipe, gpus, zero_stage),
        checkpoints=width * architecture.num_hidden_layers * tokens * architecture.hidden_size,
        head=logits + head_gradient + (width * whole_head if zero3 else embeddings),
        layer=gathered + tokens * backward * width / 2,
        step=4 * (min(share, _ZERO3_GROUP) if zero3 else share) if zero3 or fsdp else 0,
    )


def _states(architecture: Architecture, recipe: Mapping[str, Any], gpus: int, zero_stage: int) -> float:
    parameters = architecture.parameters
    if recipe.get("adapter"):
        adapter = 16 * architecture.lora_parameters(int(recipe.get("lora_r") or 8))
        if recipe.get("load_in_4bit"):
            linear = architecture.linear_parameters
            return linear * _NF4_BYTES + (parameters - linear) * 2 + adapter
        return 2 * parameters + adapter
    if fsdp_version(recipe):
        return (16 if recipe.get("sftkey_fp32_weights") or not recipe.get("bf16") else 8) * parameters / gpus
    if not zero_stage:
        # Without DeepSpeed Axolotl loads the weights in the type of training: pure bf16 has no fp32 weights.
        return (8 if recipe.get("bf16") else 16) * parameters
    weights, gradients, optimizer = 2, 2, 12
    shared = optimizer + (gradients if zero_stage >= 2 else 0) + (weights if zero_stage >= 3 else 0)
    return (16 - shared) * parameters + shared * parameters / gpus


@dataclass(frozen=True)
class MemoryNote:
    """What a recipe needs on each GPU that it is written for, as far as that is known.

    Attributes:
        text: For the user; ``None`` for a recipe that is written for no GPU.
        fits: Whether it is known to fit.
        too_large: The peak in GiB where that is more than the GPU has.
    """

    text: str | None = None
    fits: bool = False
    too_large: float | None = None


def memory_note(model: str, recipe: Recipe, folder: Path, *, gpus: int | None, gigabytes: int | None) -> MemoryNote:
    """Say whether a recipe fits its GPUs, and if not, what to change.

    Args:
        model: The base model: one of `ARCHITECTURES`, or a folder with a ``config.json``.
        recipe: The recipe.
        folder: The recipe's folder, for the DeepSpeed settings that it names.
        gpus: Number of GPUs that it is written for.
        gigabytes: The memory of each, in GB.
    """
    if gpus is None or gigabytes is None:
        return MemoryNote()
    shape = architecture_of(model)
    if shape is None:
        return MemoryNote(f"memory: the shape of {model} isn't known here, so nothing says whether it fits")
    try:
        settings = deepspeed_settings(recipe.get("deepspeed"), folder)
        stage = zero_stage({"deepspeed": settings}) or 0
        peak = estimate_memory(shape, recipe, gpus=gpus, zero_stage=stage).peak / GIB
    except (KeyError, TypeError, ValueError) as error:
        return MemoryNote(f"memory: no estimate ({error})")
    place = f"each of {gpus} GPUs" if gpus > 1 else "one GPU"
    note = f"memory: at most about {peak:.0f} GiB on {place} (an estimate)"
    has = gigabytes * 10**9 / GIB
    if peak <= has:
        return MemoryNote(note, fits=True)
    means = ["lower micro_batch_size"] if int(recipe.get("micro_batch_size") or 1) > 1 else []
    means.append("lower sequence_len")
    if recipe.get("adapter") and not recipe.get("load_in_4bit"):
        smaller = {**recipe, "adapter": "qlora", "load_in_4bit": True}
        four_bits = estimate_memory(shape, smaller, gpus=gpus).peak / GIB
        if four_bits <= has:
            means.append(f"set adapter=qlora load_in_4bit=true (about {four_bits:.0f} GiB)")
    return MemoryNote(f"{note}: more than {gigabytes} GB; {', or '.join(means)}", too_large=peak)


def architecture_of(model: str) -> Architecture | None:
    """The shape of a model: one of `ARCHITECTURES`, or a folder with a ``config.json``; None for any other."""
    if model in ARCHITECTURES:
        return ARCHITECTURES[model]
    try:
        return Architecture.from_config(read_json(Path(model) / "config.json"))
    except (ValueError, KeyError, TypeError):
        return None
