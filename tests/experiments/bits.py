"""Yes or no for each item as hexadecimal digits, so that results keep every item and stay small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bits(values: Sequence[bool] | np.ndarray) -> str:
    """Pack an array of yes and no."""
    return np.packbits(np.asarray(values, dtype=bool)).tobytes().hex()


def from_bits(text: str, items: int) -> np.ndarray:
    """The array behind `bits`, as 0.0 and 1.0."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:items].astype(float)
