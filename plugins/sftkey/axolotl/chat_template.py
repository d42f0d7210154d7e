"""The chat template of a recipe that uses the model's own."""

from __future__ import annotations

from typing import Any

from sftkey.format.templates import with_system_message
from sftkey.recipes.load import TOKENIZER_DEFAULT, Recipe, own_system_message, template_name
from sftkey.training.own_template import end_of_turn
from sftkey.training.tokenizers import TokenizerError
from sftkey.util.errors import UserError
from sftkey.util.text import one_line


def own_template(cfg: Recipe) -> tuple[str, str]:
    """The text of the template, and the token that ends a turn in it.

    Args:
        cfg: A recipe whose ``chat_template`` is `TOKENIZER_DEFAULT` or ``jinja``.

    Raises:
        UserError: There is no tokenizer or no template, or its turns have no end.
    """
    tokenizer = _load(cfg)
    if template_name(cfg) != TOKENIZER_DEFAULT:
        tokenizer.chat_template = cfg["chat_template_jinja"]
    try:
        end = end_of_turn(tokenizer)
    except TokenizerError as error:
        raise UserError(f"chat_template: {error}") from error
    return with_system_message(tokenizer.get_chat_template(), own_system_message(cfg)), end


def _load(cfg: Recipe) -> Any:
    from transformers import AutoTokenizer

    name = str(cfg.get("tokenizer_config") or cfg.get("base_model"))
    try:
        return AutoTokenizer.from_pretrained(
            name, revision=cfg.get("revision_of_model"), trust_remote_code=bool(cfg.get("trust_remote_code"))
        )
    except (OSError, ValueError) as error:
        raise UserError(f"chat_template: the tokenizer of {name} can't be loaded ({one_line(str(error))})") from error
