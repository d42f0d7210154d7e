"""A user's own data as a recipe describes it: the kind of its answers, and the part that is held out by the hash rule."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sftkey.datasets.base import AnswerKind, ReasoningDataset, Row
from sftkey.datasets.holdout import row_is_held_out
from sftkey.datasets.own_options import NO_OPTIONS, options_in, right_option
from sftkey.format.example import SkippedRow
from sftkey.util.errors import UserError

KINDS = tuple(kind.value for kind in AnswerKind)


def as_recipe_says(on: ReasoningDataset, cfg: Mapping[str, Any], kind: str | None = None) -> ReasoningDataset:
    """A data set with what a recipe says of own rows; a published one is what it is.

    Args:
        on: The data set of an entry.
        cfg: The recipe: its ``sftkey_answers`` and, unless it has ``test_datasets``, ``sftkey_held_out``.
        kind: The kind of the answers in place of the recipe's.

    Raises:
        ValueError: `kind` is given for a published data set, and is not its own.
        UserError: ``sftkey_held_out`` is no share.
    """
    if on.path is not None:
        return on.with_kind(AnswerKind(kind) if kind else None)
    kind = kind or cfg.get("sftkey_answers")
    if kind == AnswerKind.OPTION.value and on.options is None:
        on = replace(on, kind=AnswerKind.OPTION, options=partial(_options, on), reference=partial(_right_line, on))
    elif kind is not None:
        on = on.with_kind(AnswerKind(kind))
    share = cfg.get("sftkey_held_out")
    if not share or cfg.get("test_datasets") or on.held_out is not None:
        return on
    return replace(
        on, test_split=None, held_out=partial(row_is_held_out, question=on.problem_of, share=_between(share))
    )


def _between(share: Any) -> float:
    try:
        if 0 < float(share) < 1:
            return float(share)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"sftkey_held_out: {reprlib.repr(share)} is not a share of the rows between 0 and 1, such as 0.1")


def _options(on: ReasoningDataset, row: Row) -> dict[str, str]:
    """The options in the text of a row's question."""
    found = options_in(on.question_of(row))
    if not found:
        raise SkippedRow(NO_OPTIONS)
    return found


def _right_line(on: ReasoningDataset, row: Row) -> str:
    options = _options(on, row)
    letter = right_option(on.reference_of(row), options, {})
    return f"{letter}. {options[letter]}"
