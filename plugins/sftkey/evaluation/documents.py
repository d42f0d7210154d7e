"""Chooses the rows that a task asks about."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sftkey.datasets.base import ReasoningDataset, Row
from sftkey.datasets.holdout import problem_key
from sftkey.datasets.registry import TYPES, find_dataset, naming_keys
from sftkey.format.example import SkippedRow
from sftkey.util.errors import UserError

MESSAGES = f"{TYPES}messages"

logger = logging.getLogger("lm_eval.tasks.sftkey")


def documents(docs: Any, dataset: str | ReasoningDataset) -> Any:
    """The rows that a task asks about: of data without a test split the held-out ones, each distinct problem once.

    Args:
        docs: A split, as ``datasets.Dataset``.
        dataset: The data set, or a name or module that `find_dataset` knows.

    Returns:
        The chosen rows with the columns that evaluation needs. Rows without question or reference are left out, counted
        and logged by reason.

    Raises:
        ValueError: No row is left.
        UserError: The data lack a column.
    """
    on = find_dataset(dataset) if isinstance(dataset, str) else dataset
    name = dataset if isinstance(dataset, str) else on.name
    whole, published, there = docs, len(docs), docs.column_names
    if read := [column for column in on.columns if column in docs.column_names]:
        docs = docs.select_columns(read)
    try:
        if on.held_out is not None:
            docs = docs.filter(on.held_out, desc=f"{name}: held-out rows")
        chosen, left_out = _choose(docs, on)
        if not chosen and not left_out:  # a row that can't be read is none that is held out
            left_out = Counter(
                {reason: count for reason, count in _choose(whole, on)[1].items() if reason != "duplicate"}
            )
    except KeyError as error:
        keys = "sftkey_columns (in a task's file: columns) names them" if on.expand is None else naming_keys(MESSAGES)
        missing = str(error.args[0]).partition("; it has: ")[0]
        raise UserError(f"{name}: {missing}; it has: {', '.join(sorted(there))}; {keys}") from error
    if not chosen:
        raise ValueError(
            f"{name}: no row to evaluate among {published}: "
            + (", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none is held out")
        )
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        logger.info("%s: %d rows are evaluated, left out: %s", name, len(chosen), reasons)
    return docs.select(chosen)


def _choose(docs: Iterable[Row], on: ReasoningDataset) -> tuple[list[int], Counter[str]]:
    chosen: list[int] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for index, row in enumerate(docs):
        try:
            messages = on.messages_of(row, on.question_of(row))
            on.reference_of(row)
        except SkippedRow as skipped:
            left_out[skipped.reason] += 1
            continue
        if on.held_out is not None:
            problem = problem_key("\n".join(str(message["content"]) for message in messages))
            if problem in seen:
                left_out["duplicate"] += 1
                continue
            seen.add(problem)
        chosen.append(index)
    return chosen, left_out
