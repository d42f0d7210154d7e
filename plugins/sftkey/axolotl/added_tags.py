"""Added tag tokens start with random embeddings: the stage that adds them must train these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkey.recipes.load import response_format
from sftkey.util.errors import UserError


def refuse_frozen_tags(model: Any, tokenizer: Any, recipe: Mapping[str, Any]) -> None:
    """Refuse a stage that adds the tags as tokens and freezes their embeddings.

    Args:
        model: The model as it is about to be trained.
        tokenizer: Its tokenizer, which holds the tags as added tokens.
        recipe: The recipe as Axolotl validated it.

    Raises:
        UserError: The tags' embeddings are frozen.
    """
    if not any(parameter.requires_grad for parameter in model.get_input_embeddings().parameters()):
        key = "unfrozen_parameters" if recipe.get("unfrozen_parameters") else "adapter"
        raise UserError(
            f"{key}: the embeddings stay frozen, those of the added tag tokens too, which would never be trained. Train the "
            "embeddings here as well, or use sftkey_tags: text"
        )
    indices = recipe.get("peft_trainable_token_indices")
    if not indices:
        return
    if isinstance(indices, Mapping):
        indices = indices.get("embed_tokens") or []
    missing = {
        tag: token
        for tag in response_format(recipe).tags
        if (token := tokenizer.convert_tokens_to_ids(tag)) not in indices
    }
    if missing:
        listed = ", ".join(f"{token} ({tag})" for tag, token in missing.items())
        raise UserError(f"peft_trainable_token_indices: lacks {listed}; add them, or use sftkey_tags: text")
