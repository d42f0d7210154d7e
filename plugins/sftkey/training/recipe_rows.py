"""A recipe's tokenizer and the tokenization of its rows, for every front end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkey.datasets.base import ReasoningDataset
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.methods import METHODS
from sftkey.format.response_format import ResponseFormat
from sftkey.format.templates import END_OF_TURN, chat_template
from sftkey.training.rows import RowTokenizer
from sftkey.training.tokenization import ExampleTokenizer
from sftkey.training.tokenizers import TokenizerError
from sftkey.training.weights import weighted_method
from sftkey.util.errors import UserError


def recipe_row_tokenizer(
    dataset: ReasoningDataset,
    cfg: Mapping[str, Any],
    tokenizer: Any,
    form: ResponseFormat = THINKING_ANSWER,
    *,
    evaluation: bool,
    kind: type[ExampleTokenizer] = ExampleTokenizer,
) -> RowTokenizer:
    """The tokenization of a data set's rows by a recipe's method, weights and longest sequence.

    Args:
        dataset: How a row becomes an `Example`.
        cfg: The recipe.
        tokenizer: Its tokenizer.
        form: How its responses are written.
        evaluation: Whether the rows are for evaluation.
        kind: `ExampleTokenizer`, or the one for templates of the model's own.

    Raises:
        UserError: The tokenizer can't give exact segments.
    """
    try:
        method = weighted_method(
            METHODS[cfg["sftkey_method"]], cfg.get("sftkey_segment_weights"), cfg.get("sftkey_segment_schedule")
        )
        example_tokenizer = kind(tokenizer, method, dataset.untagged, form)
    except TokenizerError as error:
        raise UserError(f"tokenizer: {error}") from error
    sequence_len = (evaluation and cfg.get("eval_sequence_len")) or cfg["sequence_len"]
    return RowTokenizer(dataset, example_tokenizer, sequence_len, evaluation)


def set_up_tokenizer(tokenizer: Any, template: str, system_message: str | None, *, tags_as_tokens: bool) -> None:
    """Give a tokenizer the chat template, the end of the turn as its end, padding, and the tags where they are tokens."""
    tokenizer.chat_template = chat_template(template, system_message)
    tokenizer.eos_token = END_OF_TURN
    if tokenizer.pad_token is None:
        tokenizer.pad_token = END_OF_TURN
    tokenizer.padding_side = "right"
    if tags_as_tokens:
        tokenizer.add_tokens(list(THINKING_ANSWER.tags))
