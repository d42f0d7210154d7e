"""The ``<think>...</think>`` block with which most published reasoning traces begin."""

from __future__ import annotations

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

NO_THINK_BLOCK = "no think block"
"""Why a row is skipped whose response doesn't begin with exactly one block."""


def split_think_block(response: str) -> tuple[str, str] | None:
    """Split a response into the content of its think block and the text after it.

    The block stands at the start and there is only one. ``<think>`` itself may be missing: some chat templates put it
    into the prompt, so that the published response begins inside the block.

    Args:
        response: A model's response, of any length and content.

    Returns:
        Both texts without the whitespace around them, or ``None`` where the response isn't of this form.
    """
    inside, close, after = response.partition(THINK_CLOSE)
    inside = inside.lstrip().removeprefix(THINK_OPEN)
    if not close or THINK_OPEN in inside or has_think_tag(after):
        return None
    return inside.strip(), after.strip()


def has_think_tag(text: str) -> bool:
    """Whether an opening or closing think tag stands in ``text``."""
    return THINK_OPEN in text or THINK_CLOSE in text
