"""What an output of an evaluated model is expected to be: its format, and what the prompt holds of it already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkey.format.formats import THINKING_ANSWER, read_format
from sftkey.format.methods import METHODS
from sftkey.format.response_format import ResponseFormat
from sftkey.util.errors import UserError
from sftkey.util.files import MARKER_FILE
from sftkey.util.sources import UnreadableFile, read_json

KEY = "sftkey_format"

STAGE, ANSWERS = "sftkey_stage", "sftkey_answers"
"""What lm-eval's ``--metadata`` may say to the task of own data: the stage's output directory, the kind of its answers."""


@dataclass
class Expected:
    """What an output is expected to be.

    Attributes:
        response_format: The format that a task names; ``None`` for that of the evaluated model, known once there is one.
        opened: What the prompt holds of the response already.
    """

    response_format: ResponseFormat | None = None
    opened: str = ""

    def look_at(self, render: Callable[..., Any]) -> None:
        """Learn from a model's chat template, the method of lm-eval's model that turns messages into a prompt.

        Raises:
            UserError: The marker of the model can't be read.
        """
        if self.response_format is None:
            self.response_format = format_of(_place_of(render))
        prompt = render([{"role": "user", "content": "?"}])
        if isinstance(prompt, str):  # a server that applies its own template gives none
            self.opened = opened_by(prompt, self.response_format)


def _place_of(render: Callable[..., Any]) -> Any:
    tokenizer = getattr(getattr(render, "__self__", None), "tokenizer", None)
    return getattr(tokenizer, "name_or_path", None)


def was_trained_on_tags(render: Callable[..., Any]) -> bool:
    """Whether the model of a chat template is a stage of a tagged method, whose own template asks for what it learned.

    Raises:
        UserError: The marker of the model can't be read.
    """
    method = (recipe_of(_place_of(render)) or {}).get("sftkey_method")
    return isinstance(method, str) and method in METHODS and METHODS[method].tagged


def format_of(place: Any) -> ResponseFormat:
    """The format that a model writes by its completion marker; the paper's where there is none.

    Args:
        place: The folder of a model or of its tokenizer, or a name on the Hub.

    Raises:
        UserError: The marker can't be read, or names no format.
    """
    config = recipe_of(place)
    return (
        THINKING_ANSWER if config is None else named_format(config.get(KEY), f"{Path(str(place)) / MARKER_FILE}: {KEY}")
    )


def recipe_of(place: Any) -> Mapping[str, Any] | None:
    """The recipe that a model was trained by, as its completion marker has it; ``None`` where there is no marker.

    Args:
        place: See `format_of`.

    Raises:
        UserError: The marker can't be read.
    """
    marker = Path(str(place or "")) / MARKER_FILE
    if not place or not marker.is_file():
        return None
    try:
        recipe = read_json(marker).get("recipe")
    except UnreadableFile as error:
        raise UserError(f"{marker} can't be read ({error})") from error
    config = recipe.get("config") if isinstance(recipe, Mapping) else None
    return config if isinstance(config, Mapping) else {}


def named_format(value: Any, where: str) -> ResponseFormat:
    """Read a format; raises `UserError`, which begins with `where`, for what is none."""
    try:
        return read_format(value)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def opened_by(prompt: str, response_format: ResponseFormat) -> str:
    """What the end of a prompt holds of a response in the format."""
    opening = response_format.thinking_open
    for length in range(len(opening), len(opening.rstrip()) - 1, -1):
        if prompt.endswith(opening[:length]):
            return opening[:length]
    return ""
