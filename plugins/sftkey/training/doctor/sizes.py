"""Models of a real shape with random weights, made from a config: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

GIB = 2**30

SHARES = (5, 100)
"""Labelled tokens in per cent, where a step is measured: about those of a second stage, and all."""


@dataclass(frozen=True)
class Size:
    """A model and the batches that it is tried with.

    Attributes:
        config: Of the model, in transformers' names.
        length: Tokens of a row where loss and gradients are compared; a multiple of 16, as fp8 needs.
        tokens: Rows and tokens of a row where time and memory are measured.
        at_least: The GPU memory in GiB from which on it is chosen.
    """

    config: Mapping[str, Any]
    length: int
    tokens: tuple[int, int]
    at_least: float


def _qwen2(vocab: int, hidden: int, inner: int, layers: int, heads: int, keys: int) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "model_type": "qwen2",
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": keys,
            "tie_word_embeddings": True,
        }
    )


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "tiny": Size(_qwen2(512, 64, 128, 2, 4, 2), 32, (2, 64), 0),
        "0.5b": Size(_qwen2(151936, 896, 4864, 24, 14, 2), 512, (4, 1024), 14),  # Qwen2.5-0.5B
        "1.5b": Size(_qwen2(151936, 1536, 8960, 28, 12, 2), 512, (4, 2048), 60),  # Qwen2.5-1.5B
    }
)
"""By name, from small to large."""


def size_for(gpu_bytes: int | None) -> str:
    """The largest size for a GPU with so much memory; the smallest without one."""
    gigabytes = (gpu_bytes or 0) / GIB
    return [name for name, size in SIZES.items() if size.at_least <= gigabytes][-1]


def build(config: Mapping[str, Any], device: str, **options: Any) -> Any:
    """A causal language model with the same random weights in every process, on a device.

    Args:
        config: `Size.config`, or another in transformers' names.
        device: Where it is made.
        **options: For ``from_config``: ``dtype``, ``attn_implementation``.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    settings = AutoConfig.for_model(**{**config, "use_cache": False})
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            settings, **{"dtype": torch.float32, "attn_implementation": "sdpa", **options}
        ).train()


def build_in_4_bits(config: Mapping[str, Any], device: str) -> Any:
    """The same model with its linear layers in 4 bits, by way of a folder: bitsandbytes quantises what is loaded."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    with TemporaryDirectory() as folder:
        build(config, device, dtype=torch.bfloat16).save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(
            folder,
            quantization_config=four_bits,
            dtype=torch.bfloat16,
            device_map={"": 0 if device == "cuda" else "cpu"},
        )
