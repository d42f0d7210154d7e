"""Whether a model that is evaluated hears of the tags: the prompt of the training (C.1) in its chat template, or sent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sftkey.evaluation.trained_model import was_trained_on_tags
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.response_format import ResponseFormat
from sftkey.format.templates import system_prompt

logger = logging.getLogger("lm_eval.tasks.sftkey")

NAME = "training_prompt"
"""What ``--system_instruction`` says for the prompt of the training; a task's key of the same name asks for it, too."""

HOW_TO_SEND = f"--system_instruction {NAME}"

_warned: set[str] = set()


def system_message(
    task: str,
    *,
    plain: bool,
    wanted: bool,
    given: str | None,
    render: Callable[..., Any] | None,
    response_format: ResponseFormat = THINKING_ANSWER,
) -> str | None:
    """Choose the system message of a task, and warn once where the model may not know what is expected of it.

    A trained checkpoint's template takes the same prompt as a system message and then adds none of its own.

    Args:
        task: The task's name.
        plain: Whether outputs are expected in the untagged form, which has no prompt.
        wanted: Whether the training prompt is to be sent.
        response_format: The expected format; the training prompt asks for the paper's.
        given: The system message that the user gave, or `NAME`.
        render: The model's chat template, from messages to its prompt; ``None`` where it isn't applied.

    Returns:
        The system message; ``None`` for none.
    """
    if given not in (None, NAME):
        return given
    if wanted or given == NAME:
        return None if plain else system_prompt()
    if render is None:
        _warn(
            "%s is run without --apply_chat_template: the model gets the bare question, without the prompt that it "
            "was trained with. Add --apply_chat_template, or the scores say nothing about the training; a base model "
            f"without a chat template gets the prompt with {HOW_TO_SEND}.",
            task,
        )
    elif not plain and response_format is THINKING_ANSWER:
        prompt = render([{"role": "user", "content": "?"}])
        if not isinstance(prompt, str):
            _warn(
                "%s: the server applies its own chat template, so it can't be known here whether the model hears of the "
                "tags. A trained checkpoint's template has the training prompt; to send it to any other model add "
                f"{HOW_TO_SEND}, or Fmt is about 0.",
                task,
            )
        elif THINKING_ANSWER.thinking_open not in prompt and not was_trained_on_tags(render):
            _warn(
                "%s: the chat template of this model has no training prompt, so it never hears of the tags and Fmt is "
                f"about 0. Add {HOW_TO_SEND} to send it as the system message.",
                task,
            )
    return None


def _warn(message: str, task: str) -> None:
    if message not in _warned:
        _warned.add(message)
        logger.warning(message, task)
