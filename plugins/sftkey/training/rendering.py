"""Render a chat template in bounded time, memory and length: it's a program, and may be a stranger's.

transformers' sandbox keeps a template from the machine, and not from running for ever: loops in loops, or one text that
fills the memory. So a process of its own renders, with transformers' own code.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from typing import Any

from sftkey.util.bounded_process import BoundedProcess
from sftkey.util.bounded_worker import OVER_LIMIT

MAX_SECONDS = 3.0
"""Of processor time for one prompt; they take milliseconds."""

MAX_MEMORY = 1 << 29

MAX_CHARACTERS = 8_000_000
"""Of a rendered text; a longer row isn't tokenised at all."""

_GRACE = 30.0
"""Seconds of the clock beyond the process's own limit, which is of processor time, until it is killed."""


class TemplateError(ValueError):
    """A template refuses messages, or can't be run on them; the message says the kind of error and what it said."""


class TemplateOverLimit(TemplateError):
    """A template takes more time or memory than any prompt needs, or renders more text."""


class RenderProcess(BoundedProcess):
    """Renders prompts one by one in a process that starts when it is first needed."""

    what = "renders chat templates"
    module = "sftkey.training.render_worker"

    def render(self, request: Mapping[str, Any]) -> str:
        """Render what `sftkey.training.render_worker` takes.

        Raises:
            TemplateError: The template can't be run, or doesn't want to be.
            TemplateOverLimit: It passes a bound.
        """
        reply = self.ask({**request, "most": MAX_CHARACTERS}, MAX_SECONDS + _GRACE)
        if reply is None:
            raise TemplateOverLimit(f"it was stopped: more than {MAX_SECONDS:g} s, or too much memory")
        if OVER_LIMIT in reply:
            raise TemplateOverLimit(f"it takes {reply[OVER_LIMIT]}")
        if "error" in reply:
            raise TemplateError(reply["error"])
        return str(reply["text"])


PROMPTS = RenderProcess()
"""The one that all tokenizers share."""

atexit.register(PROMPTS.close)


def render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    add_generation_prompt: bool = False,
) -> str:
    """What ``tokenizer.apply_chat_template(..., tokenize=False)`` gives, within bounds.

    Raises:
        TemplateError: The template can't be run on the messages, or refuses them.
    """
    given = list(tools) or None
    try:
        template = tokenizer.get_chat_template(None, given)
    except (AttributeError, TypeError, ValueError) as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error
    return PROMPTS.render(
        {
            "template": template,
            "messages": list(messages),
            "tools": given,
            "add_generation_prompt": add_generation_prompt,
            "tokens": tokenizer.special_tokens_map,
        }
    )
