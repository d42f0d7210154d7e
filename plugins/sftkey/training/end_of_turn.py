"""Generation ends with the turn: what config and generation config of a trained model say."""

from __future__ import annotations

from typing import Any


def stop_tokens(end_of_turn: int, previous: int | list[int] | None) -> list[int]:
    """The tokens at which generation stops: the end of the turn, and what the model stopped at before.

    Args:
        end_of_turn: Id of the token that ends a turn.
        previous: ``eos_token_id`` of the model's generation config.
    """
    tokens = previous if isinstance(previous, list) else [previous]
    return [end_of_turn, *(token for token in tokens if token is not None and token != end_of_turn)]


def stop_at_end_of_turn(trainer: Any) -> None:
    """Make generation end with the turn: config and generation config of the model, in whatever wrapper it comes."""
    end_of_turn = trainer.processing_class.eos_token_id
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "generation_config", None)
    model.config.eos_token_id = end_of_turn
    if config is None:
        return
    config.eos_token_id = stop_tokens(end_of_turn, config.eos_token_id)
    config.pad_token_id = trainer.processing_class.pad_token_id
