"""The ``<think>...</think>`` block with which most published reasoning traces begin."""

from __future__ import annotations

from sftkey.format.formats import THINKING_ANSWER

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

NO_THINK_BLOCK = "no think block"


def split_think_block(response: str) -> tuple[str, str] | None:
    """Split a response into the content of its think block and the text after it, both stripped.

    ``None`` unless the response begins with its only block. ``<think>`` itself may be missing: some chat templates put it
    into the prompt, so that the published response begins inside the block.
    """
    inside, close, after = response.partition(THINK_CLOSE)
    inside = inside.lstrip().removeprefix(THINK_OPEN)
    if not close or THINK_OPEN in inside or has_think_tag(after):
        return None
    return inside.strip(), after.strip()


def split_reasoning(response: str) -> tuple[str, str] | None:
    """The reasoning and the answer of a response that holds both: in the paper's tags, or as `split_think_block`."""
    parsed = THINKING_ANSWER.parse(response)
    if parsed.well_formed:
        return str(parsed.thinking).strip(), str(parsed.answer).strip()
    return split_think_block(response)


def has_think_tag(text: str) -> bool:
    """Whether an opening or closing think tag stands in ``text``."""
    return THINK_OPEN in text or THINK_CLOSE in text
