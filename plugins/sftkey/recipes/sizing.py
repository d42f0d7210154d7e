"""Which shipped recipe is the pattern for a model on given GPUs, and its batch, by the memory estimate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftkey.recipes.catalogue import shipped_recipe
from sftkey.recipes.memory import Architecture, estimate_memory
from sftkey.recipes.writing import SEQUENCES_PER_DEVICE

_QLORA = {"adapter": "qlora", "load_in_4bit": True}
_ONE_GPU = ("smollm2_135m_stage2", "qwen3_8b_lora_stage2")
_MANY_GPUS = ("qwen3_8b_stage2", "qwen3_8b_lora_stage2")
_CPU_BATCH = 4
_PER_TOKEN = 3
"""Bytes of UTF-8 for a token at least: English has four, digits and other scripts fewer."""

_PROMPT = 300
_SHORTEST, _LONGEST = 512, 16_384


@dataclass(frozen=True)
class Sizes:
    """The pattern by its name, and the keys to set in it."""

    pattern: str
    keys: dict[str, object]


def sizes(shape: Architecture | None, sequence_len: int, gpus: int, gigabytes: int) -> Sizes:
    """Choose all weights over an adapter over one of a model in 4 bits, and the largest micro-batch that fits.

    Args:
        shape: The model's; ``None`` where it isn't known, which takes the smallest batch.
        sequence_len: Longest sequence.
        gpus: Number of GPUs; 0 for a CPU.
        gigabytes: The memory of each.
    """
    if not gpus:
        return Sizes(_ONE_GPU[0], _batch(_CPU_BATCH))
    *full, lora = _MANY_GPUS if gpus > 1 else _ONE_GPU
    candidates: list[tuple[str, dict[str, object]]] = [*((name, {}) for name in full), (lora, {}), (lora, _QLORA)]
    if shape is None:
        return Sizes(full[0] if gpus > 1 else lora, _batch(1))
    for name, keys in candidates:
        pattern = shipped_recipe(name)
        for micro in (SEQUENCES_PER_DEVICE >> shift for shift in range(6)):
            config = {**pattern.config, **keys, "micro_batch_size": micro, "sequence_len": sequence_len}
            # Each GPU of several has an adapter's whole model.
            shared = gpus if pattern.zero_stage else 1
            peak = estimate_memory(shape, config, gpus=shared, zero_stage=pattern.zero_stage).peak
            if peak <= gigabytes * 10**9:
                return Sizes(name, {**keys, **_batch(micro)})
    return Sizes(lora, {**_QLORA, **_batch(1)})


def _batch(micro: int) -> dict[str, object]:
    return {"micro_batch_size": micro, "gradient_accumulation_steps": SEQUENCES_PER_DEVICE // micro}


def sequence_length(rows: Iterable[Sequence[str]], longest: int | None) -> int:
    """A ``sequence_len`` for 99 of 100 rows, by their bytes: a power of two from 512.

    Args:
        rows: The texts of each row.
        longest: The most tokens that the model takes, if known.
    """
    lengths = sorted(sum(len(text.encode("utf-8", "replace")) for text in texts) for texts in rows) or [0]
    tokens = lengths[int(len(lengths) * 0.99) if len(lengths) >= 100 else -1] // _PER_TOKEN + _PROMPT
    most = min(longest or _LONGEST, _LONGEST)
    return min(max(_SHORTEST, 1 << (tokens - 1).bit_length()), most)
