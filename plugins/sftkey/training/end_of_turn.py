"""Generation is greedy and ends with the turn: what config and generation config of a trained model say."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

SAMPLING = (
    "temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff penalty_alpha repetition_penalty "
    "encoder_repetition_penalty presence_penalty frequency_penalty no_repeat_ngram_size num_beams num_beam_groups "
    "diversity_penalty length_penalty sequence_bias bad_words_ids"
).split()
"""What of a generation config makes outputs other than those that are scored, which are the likeliest token each time."""


def stop_tokens(end_of_turn: int, previous: int | list[int] | None) -> list[int]:
    """The tokens at which generation stops: the end of the turn, and what the model stopped at before.

    Args:
        end_of_turn: Id of the token that ends a turn.
        previous: ``eos_token_id`` of the model's generation config.
    """
    tokens = previous if isinstance(previous, list) else [previous]
    return [end_of_turn, *(token for token in tokens if token is not None and token != end_of_turn)]


def greedy(generation: MutableMapping[str, Any]) -> None:
    """Make the content of a ``generation_config.json`` greedy, in place: a base model's often samples."""
    for name in SAMPLING:
        generation.pop(name, None)
    generation["do_sample"] = False


def stop_at_end_of_turn(trainer: Any) -> None:
    """Make generation greedy and end with the turn: config and generation config of the model, in whatever wrapper."""
    end_of_turn = trainer.processing_class.eos_token_id
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "generation_config", None)
    model.config.eos_token_id = end_of_turn
    if config is None:
        return
    for name in SAMPLING:
        if hasattr(config, name):
            setattr(config, name, getattr(type(config)(), name, None))
    config.do_sample = False
    config.eos_token_id = stop_tokens(end_of_turn, config.eos_token_id)
    config.pad_token_id = trainer.processing_class.pad_token_id
