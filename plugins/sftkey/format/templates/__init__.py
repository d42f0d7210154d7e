"""The Jinja chat templates, filled in from `sftkey.format.formats` so that the format is written once.

Both have ChatML turns. ``thinking_answer`` opens with the paper's training prompt (C.1) unless the messages bring
their own system message; ``thinking_answer_plain``, for the untagged methods, has neither tags nor system prompt.

Before the turns stands what a server's request needs: contents as lists of parts or none, thinking as ``reasoning_content``,
``reasoning`` or ``thinking``, tools refused. Earlier thinking that the messages bring is kept, as it was trained; a turn
without any is its content alone. An answer whose tags stand in the content beside its thinking, as llama.cpp leaves them,
gets no second ones. ``enable_thinking: false`` begins the response with an empty thought.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.response_format import ResponseFormat

START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"

TAGGED = "thinking_answer"
PLAIN = "thinking_answer_plain"
TEMPLATES = (TAGGED, PLAIN)
"""The names that a recipe's ``chat_template`` may have with this plugin."""


@cache
def system_prompt() -> str:
    """The paper's training prompt, verbatim with its line breaks (appendix C.1)."""
    return _read("system_prompt.txt").removesuffix("\n")


def chat_template(name: str, system_message: str | None = None) -> str:
    """The text of a chat template.

    Args:
        name: One of `TEMPLATES`.
        system_message: Replaces the paper's C.1 prompt as the default system message of ``thinking_answer``.

    Returns:
        Jinja source that a tokenizer can carry as its ``chat_template``.

    Raises:
        ValueError: `name` is not one of `TEMPLATES`, or a system message is given for a template that has none.
    """
    end = _source("empty_thought") if name == TAGGED else ""
    turns = turns_template(name, system_message)
    return _source("request", tagged=name == TAGGED) + turns + end


def turns_template(name: str, system_message: str | None = None) -> str:
    """The part of a chat template that decides what is trained; takes the arguments of `chat_template`."""
    if name not in TEMPLATES:
        raise ValueError(f"chat_template {name!r} is not one of {', '.join(TEMPLATES)}")
    if name == PLAIN and system_message is not None:
        raise ValueError(f"chat_template {PLAIN} has no system message; remove default_system_message")
    # Last, because a user's text may hold what looks like a placeholder.
    message = json.dumps(system_prompt() if system_message is None else system_message, ensure_ascii=False)
    return _source(name).replace("__SYSTEM_PROMPT__", message)


def _source(name: str, *, tagged: bool = True) -> str:
    values = {
        "__START__": START_OF_TURN,
        "__END__": END_OF_TURN,
        "__THINKING_OPEN__": THINKING_ANSWER.thinking_open,
        "__THINKING_CLOSE__": THINKING_ANSWER.thinking_close,
        "__ANSWER_OPEN__": THINKING_ANSWER.answer_open if tagged else "",
        "__ANSWER_CLOSE__": THINKING_ANSWER.answer_close if tagged else "",
    }
    source = _read(f"{name}.jinja").removesuffix("\n")
    for placeholder, value in values.items():
        source = source.replace(placeholder, value)
    return source


def with_system_message(source: str, message: str | None) -> str:
    """A chat template of a model's own that opens with a system message where the messages bring none.

    Args:
        source: Jinja source; one that this function has made gets the new message in the place of the old one, one of
            `with_response` loses what was put before it.
        message: The system message; ``None`` for the template as it is.
    """
    if source.startswith(_LAST_RESPONSE):
        source = source.partition(_END_OF_RESPONSE)[2]
    if source.startswith(_NO_SYSTEM):
        source = source.partition(_THEN)[2]
    if message is None:
        return source
    # Jinja reads JSON's texts as its own.
    return f"{_NO_SYSTEM}{json.dumps(message, ensure_ascii=False)}{_THEN}{source}"


_NO_SYSTEM = (
    "{%- if not messages or messages[0]['role'] != 'system' -%}{%- set messages = [{'role': 'system', 'content': "
)
_THEN = "}] + messages -%}{%- endif -%}"


def with_response(source: str, response_format: ResponseFormat) -> str:
    """A chat template of a model's own that writes the thinking of a response: of the last message, if it is one.

    By such a rendering llama.cpp learns the tags of the thinking. No prompt is another by it: none ends with a response.

    Args:
        source: Jinja source of a template that leaves ``reasoning_content`` out.
        response_format: How a response is written.
    """
    parts = (response_format.thinking_open, response_format.thinking_close + response_format.answer_open)
    opening, between, closing = (
        json.dumps(text, ensure_ascii=False) for text in (*parts, response_format.answer_close)
    )
    written = f"{opening} + {_LAST}['reasoning_content'] + {between} + {_LAST}['content'] + {closing}"
    return f"{_LAST_RESPONSE}{written}{_END_OF_RESPONSE}{source}"


_LAST = "messages[-1]"
_LAST_RESPONSE = (
    f"{{%- if messages and {_LAST}['role'] == 'assistant' and {_LAST}['reasoning_content'] is string and "
    f"{_LAST}['content'] is string -%}}{{%- set messages = messages[:-1] + [{{'role': 'assistant', 'content': "
)
_END_OF_RESPONSE = "}] -%}{%- endif -%}"


def _read(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
