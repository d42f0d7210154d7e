"""The formats of a response: those that have a name, and those that a recipe spells out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from types import MappingProxyType
from typing import Any

from sftkey.format.response_format import ResponseFormat

THINKING_ANSWER = ResponseFormat("thinking_answer", "<Thinking>", "</Thinking>", "<Answer>", "</Answer>")
"""The paper's: ``<Thinking>{thinking}</Thinking><Answer>{answer}</Answer>`` (Eq. 2, appendix D)."""

THINK = ResponseFormat("think", "<think>\n", "\n</think>\n\n")
"""Thinking in ``<think>``, then the answer without tags: as Qwen3 and DeepSeek-R1 write it."""

FORMATS: Mapping[str, ResponseFormat] = MappingProxyType({one.name: one for one in (THINKING_ANSWER, THINK)})
"""Those that ``sftkey_format`` can name."""

PARTS = ("thinking_open", "thinking_close", "answer_open", "answer_close")
"""The keys of a format that a recipe spells out."""

MAX_TAG = 200
"""Most characters of what stands around a part."""


def read_format(value: Any) -> ResponseFormat:
    """Read the value of ``sftkey_format``.

    Args:
        value: A name in `FORMATS`, a mapping of `PARTS` to texts, or ``None`` for the paper's.

    Raises:
        ValueError: It is neither, or outputs couldn't be matched against it.
    """
    if value is None:
        return THINKING_ANSWER
    if isinstance(value, str):
        if value not in FORMATS:
            raise ValueError(f"{value!r} is not one of {', '.join(FORMATS)}")
        return FORMATS[value]
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is neither a name ({', '.join(FORMATS)}) nor a mapping of {', '.join(PARTS)}")
    unknown = [str(key) for key in value if key not in PARTS]
    if unknown:
        raise ValueError(f"has no part {', '.join(unknown)}; its parts are {', '.join(PARTS)}")
    texts = {part: value.get(part) or "" for part in PARTS}
    for part, text in texts.items():
        if not isinstance(text, str) or len(text) > MAX_TAG:
            raise ValueError(f"{part} is not a text of at most {MAX_TAG} characters")
        if not text.strip() and (text or part.startswith("thinking")):
            raise ValueError(f"{part} has to be a text to see: outputs are matched by it")
    if texts["answer_close"] and not texts["answer_open"]:
        raise ValueError("answer_close needs an answer_open")
    own = ResponseFormat("own", **texts)
    for one, other in permutations(own.tags, 2):
        if one in other:
            raise ValueError(f"{one!r} stands in {other!r} too, so an output couldn't be matched")
    return next((named for named in FORMATS.values() if named.tags == own.tags and texts_of(named) == texts), own)


def texts_of(response_format: ResponseFormat) -> dict[str, str]:
    """A format spelt out: the text of each of `PARTS`."""
    return {part: getattr(response_format, part) for part in PARTS}
