"""What a saved tokenizer says of responses, so that servers and transformers split thinking and answer."""

from __future__ import annotations

import logging
from typing import Any

from sftkey.format.formats import texts_of
from sftkey.format.reasoning_parser import KEY
from sftkey.format.response_format import ResponseFormat
from sftkey.format.response_template import response_template
from sftkey.format.templates import with_response
from sftkey.training.rendering import TemplateError, render

LOG = logging.getLogger(__name__)
_QUESTION = "\u241f question \u241f"
_THINKING = "\u241f thinking \u241f"


def describe_responses(tokenizer: Any, response_format: ResponseFormat) -> None:
    """Let a tokenizer and its chat template carry the format of responses: ``response_template``, the texts around the parts.

    Args:
        tokenizer: With the chat template and the end of the turn that the stage is trained with.
        response_format: How a response is written.
    """
    found: dict[str, Any] = {KEY: texts_of(response_format)}
    try:
        prompt = render(tokenizer, [{"role": "user", "content": _QUESTION}], add_generation_prompt=True)
    except TemplateError as error:  # it asks for more than one question; training was with rows that it takes
        LOG.warning("the tokenizer gets no response_template: %s", error)
        prompt = ""
    turn = prompt.rpartition(_QUESTION)[2].partition(response_format.thinking_open.strip())[0]
    anchor = turn.partition(tokenizer.eos_token)[2].lstrip() or turn.strip()
    if anchor:
        ends = dict.fromkeys(filter(None, (tokenizer.eos_token, tokenizer.pad_token)))
        found["response_template"] = response_template(response_format, anchor, list(ends))
        tokenizer.response_template = found["response_template"]
    tokenizer.init_kwargs.update(found)
    if (source := tokenizer.chat_template) and not _writes_thinking(tokenizer):
        tokenizer.chat_template = with_response(source, response_format)
        if not _writes_thinking(tokenizer, response_format.thinking_open, response_format.thinking_close):
            tokenizer.chat_template = source


def _writes_thinking(tokenizer: Any, before: str = "", after: str = "") -> bool:
    """Whether the chat template writes the thinking of a response, between two texts."""
    response = {"role": "assistant", "reasoning_content": _THINKING, "content": "answer"}
    try:
        return before + _THINKING + after in render(tokenizer, [{"role": "user", "content": _QUESTION}, response])
    except TemplateError:
        return False
