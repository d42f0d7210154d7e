"""The ``response_template`` of a tokenizer: by it transformers' ``parse_response`` splits thinking and answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sftkey.format.response_format import ResponseFormat


def response_template(response_format: ResponseFormat, anchor: str, ends: Sequence[str]) -> dict[str, Any]:
    """Describe responses in a format as transformers 5 and vLLM's parser ``hf`` read it.

    An output that isn't in the format is all content, tags included; a thinking ends where an answer opens, too.

    Args:
        response_format: How a response is written.
        anchor: What begins a turn of the assistant in the prompt.
        ends: The special tokens that end it, or that stand after it.
    """
    opening, closing = response_format.thinking_open, response_format.thinking_close
    answer, end = response_format.answer_open, response_format.answer_close
    close = _before(closing) + re.escape(closing.strip()) + _after(closing)
    stop = "|".join(re.escape(token) for token in ends)
    finish = rf"\s*(?:{stop})(?:\s|{stop})*"
    if end:
        finish = rf"{_before(end)}{re.escape(end.strip())}(?:{finish}|\s*\Z)|{finish}"
    if answer:
        opened = re.escape(answer.strip()) + _after(answer)
        # Not at the end of the thinking: a stream would take that for complete before the tag of the answer is there.
        finish = rf"(?<={re.escape(closing.strip())}\s*)\s*{opened}|{finish}"
        close = rf"{close}|{opened}"
    verbatim = {"content": "text", "content_args": {"strip": False}}
    return {
        "defaults": {"role": "assistant"},
        "start_anchor": anchor,
        "fields": {
            "thinking": {
                "open_pattern": rf"\s*{re.escape(opening.strip())}{_after(opening)}",
                "close_pattern": close,
                **verbatim,
            },
            "content": {"close_pattern": finish, **verbatim},
        },
    }


def _after(written: str) -> str:
    """Matches the white space that is written after a tag, as far as it is there."""
    pattern = ""
    for character in reversed(written[len(written.rstrip()) :]):
        pattern = f"(?:{re.escape(character)}{pattern})?"
    return pattern


def _before(written: str) -> str:
    """Matches the white space that is written before a tag, or none."""
    white_space = written[: len(written) - len(written.lstrip())]
    return f"(?:{re.escape(white_space)})?" if white_space else ""
