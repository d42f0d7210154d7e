"""The rows of a recipe as text, cut where their tokens are cut, with what each piece weighs in the loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sftkey.datasets.loading import entry_dataset, entry_rows
from sftkey.datasets.registry import naming_keys
from sftkey.format.methods import METHODS
from sftkey.format.segments import Segment
from sftkey.training.recipe_rows import recipe_row_tokenizer
from sftkey.training.rows import RowTokenizer
from sftkey.training.weights import stage_weights
from sftkey.util.errors import UserError

_BATCH = 1_000


class Piece(NamedTuple):
    """A text that is tokenised by itself, and its weight in the loss: 0 for what isn't trained."""

    text: str
    weight: float


class ExportedRow(NamedTuple):
    """A row: its question, the whole prompt as text, the response with its end of turn, and whether the question is alone."""

    question: str
    prompt: str
    response: tuple[Piece, ...]
    alone: bool = True


def exported_rows(
    cfg: Mapping[str, Any], tokenizer: Any, skipped: Counter[str], *, evaluation: bool = False
) -> Iterator[ExportedRow]:
    """The rows that a checked recipe trains on (or evaluates), in order.

    Args:
        cfg: The recipe.
        tokenizer: Its tokenizer, set up.
        skipped: Counts the rows that are left out, by reason.
        evaluation: Those of ``test_datasets``.

    Raises:
        UserError: Rows can't be read, or none of an entry's rows can be used.
    """
    weights = _weights(cfg)
    key = "test_datasets" if evaluation else "datasets"
    for index, entry in enumerate(cfg.get(key) or []):
        place = f"{key}[{index}]"
        tokenize = recipe_row_tokenizer(entry_dataset(entry, cfg), cfg, tokenizer, evaluation=evaluation)
        used, left_out = 0, Counter[str]()
        try:
            for batch in entry_rows(entry, place).iter(batch_size=_BATCH):
                for row in _kept(batch, tokenize, left_out):
                    used += 1
                    yield _row(tokenize, row, weights)
        except KeyError as error:
            raise UserError(f"{place}: {entry['path']}: {error.args[0]}") from error
        skipped.update(left_out)
        if not used:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
            raise UserError(
                f"{place}: {entry['path']}: none of its rows can be used ({reasons}). {naming_keys(entry.get('type'))}"
            )


def _weights(cfg: Mapping[str, Any]) -> list[float]:
    method = METHODS[cfg["sftkey_method"]]
    start, _ = stage_weights(method, cfg.get("sftkey_segment_weights"), None)
    return [float(segment in method.trained) for segment in Segment] if start is None else start.tolist()


def _kept(batch: Any, tokenize: RowTokenizer, skipped: Counter[str]) -> Iterator[Mapping[str, Any]]:
    published = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
    rows = list(tokenize.expand(published))
    for row, tokens in zip(rows, tokenize.each(rows), strict=True):
        if isinstance(tokens, str):
            skipped[tokens] += 1
        else:
            yield row


def _row(tokenize: RowTokenizer, row: Mapping[str, Any], weights: list[float]) -> ExportedRow:
    example = tokenize.example(row)
    pieces = (Piece(text, weights[segment]) for segment, text in tokenize.tokenizer.pieces(example))
    alone = not example.history and not example.tools
    return ExportedRow(example.question, tokenize.tokenizer.prompt_of(example), tuple(pieces), alone)
