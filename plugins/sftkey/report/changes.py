"""What changed between Stage 1 and Stage 2, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sftkey.evaluation.results import METRICS, Evaluation
from sftkey.report.runs import Run
from sftkey.util.text import shorten

KINDS: Mapping[str, str] = {
    "fixed": "wrong after Stage 1, right after Stage 2",
    "broken": "right after Stage 1, wrong after Stage 2",
    "format lost": "in the expected format after Stage 1, not after Stage 2",
    "format gained": "not in the expected format after Stage 1, but after Stage 2",
}
"""An item may be of two kinds: fixed and format lost, say."""

MAX_SHOWN_TEXT = 6_000
MAX_TOTAL_TEXT = 6 * 2**20
"""Characters of a text, and of all texts together, that the page carries; the file beside it has all items."""


@dataclass(frozen=True)
class Change:
    """One two-stage run on one data set.

    Attributes:
        model: The model.
        strategy: The label of the two-stage run.
        first: The label of its Stage 1.
        data_set: The data set.
        shared: Items that both stages answered.
        unpaired: Items that only one of them answered.
        counts: Items of each kind of `KINDS`.
        items: One row per changed item: ``kinds``, ``doc_id``, ``question``, ``reference``, and what else
            `sftkey.evaluation.results.ITEM_COLUMNS` has, once with ``_1`` and once with ``_2`` behind its name.
    """

    model: str
    strategy: str
    first: str
    data_set: str
    shared: int
    unpaired: int
    counts: Mapping[str, int]
    items: pd.DataFrame


def changes_of(runs: Iterable[Run]) -> list[Change]:
    """Compare every run with the stage that it started from, on each data set on which both logged their items."""
    runs = list(runs)
    by_directory = {run.directory: run for run in runs if run.directory is not None}
    found = []
    for run in runs:
        if len(run.stages) < 2:
            continue
        before = by_directory[run.stages[-2].output_dir]
        for data_set, evaluation in run.evaluations.items():
            earlier = before.evaluations.get(data_set)
            if earlier is None or earlier.items is None or evaluation.items is None:
                continue
            change = _change(before, run, data_set, earlier, evaluation)
            if change is not None:
                found.append(change)
    return found


def _change(before: Run, run: Run, data_set: str, earlier: Evaluation, later: Evaluation) -> Change | None:
    assert earlier.items is not None
    assert later.items is not None
    columns = ["key", "output", "extracted", "extraction", "failure", "verdict", "decided_by", *METRICS]
    both = earlier.items[["doc_id", "question", "reference", *columns]].merge(
        later.items[columns], on="key", suffixes=("_1", "_2")
    )
    if not len(both):
        return None
    masks = {
        "fixed": (both["acc_1"] < 1) & (both["acc_2"] == 1),
        "broken": (both["acc_1"] == 1) & (both["acc_2"] < 1),
        "format lost": (both["fmt_1"] == 1) & (both["fmt_2"] < 1),
        "format gained": (both["fmt_1"] < 1) & (both["fmt_2"] == 1),
    }
    kinds = pd.DataFrame(masks)
    both["kinds"] = [[kind for kind in KINDS if row[kind]] for row in kinds.to_dict("records")]
    return Change(
        model=run.model,
        strategy=run.label(data_set),
        first=before.label(data_set),
        data_set=data_set,
        shared=len(both),
        unpaired=len(earlier.items) + len(later.items) - 2 * len(both),
        counts={kind: int(mask.sum()) for kind, mask in masks.items()},
        items=both[kinds.any(axis=1)].reset_index(drop=True),
    )


def for_page(changes: Iterable[Change]) -> tuple[list[dict[str, Any]], list[int]]:
    """The changed items as the page carries them, texts shortened, up to `MAX_TOTAL_TEXT` characters.

    Returns:
        The items, each with the index of its change under ``c``; and for each change how many of its items are in.
        The room is shared out evenly, so that no data set with long outputs pushes out the others.
    """
    changes = list(changes)
    items: list[dict[str, Any]] = []
    included = []
    room = MAX_TOTAL_TEXT
    for index, change in enumerate(changes):
        share, count = room // (len(changes) - index), 0
        for row in change.items.to_dict("records"):
            item = _page_item(index, row)
            size = sum(len(value) for value in item.values() if isinstance(value, str))
            if size > share:
                break
            share, room, count = share - size, room - size, count + 1
            items.append(item)
        included.append(count)
    return items, included


def _page_item(index: int, row: Mapping[Any, Any]) -> dict[str, Any]:
    def text(column: str) -> str:
        return shorten(row[column], MAX_SHOWN_TEXT)

    item: dict[str, Any] = {"c": index, "k": row["kinds"], "id": row["doc_id"]}
    item |= {"q": text("question"), "r": text("reference")}
    for stage in ("1", "2"):
        item |= {
            f"o{stage}": text(f"output_{stage}"),
            f"x{stage}": text(f"extracted_{stage}"),
            f"how{stage}": row[f"extraction_{stage}"],
            f"f{stage}": row[f"failure_{stage}"],
            f"by{stage}": row[f"decided_by_{stage}"],
            f"a{stage}": int(row[f"acc_{stage}"] == 1),
            f"m{stage}": int(row[f"fmt_{stage}"] == 1),
        }
    return item


def all_items(changes: Iterable[Change]) -> Iterable[dict[str, Any]]:
    """Every changed item, for the file beside the page."""
    for change in changes:
        for row in change.items.to_dict("records"):
            yield {
                "model": change.model,
                "stage_1": change.first,
                "stage_2": change.strategy,
                "data_set": change.data_set,
                **{str(key): value for key, value in row.items() if key != "key"},
            }
