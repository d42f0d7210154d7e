"""All items of every evaluation as the page carries them: packed, one block for each, unpacked when it is looked at."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.report.runs import data_set_title
from sftkey.report.scores import Scores
from sftkey.util.text import shorten

TEXTS = {"q": "question", "p": "prompt", "r": "reference", "o": "output", "x": "extracted"}
_NAMES = {"id": "doc_id", "how": "extraction", "f": "failure", "by": "decided_by"}

MAX_TOTAL_TEXT = 48 * 2**20
"""Characters of all texts together, before they are packed."""

TEXT_LIMITS = (6_000, 3_000, 1_500, 700, 300, 100)
"""Characters of one text: the first with which all items fit."""


@dataclass(frozen=True)
class Block:
    """The items of one evaluation.

    Attributes:
        model: The model.
        label: The row's name in the tables.
        title: The data set's.
        total: How many items were logged.
        included: How many of them are in; all, but where they don't fit even with the shortest texts.
        packed: Columns as JSON, by gzip, in base64.
    """

    model: str
    label: str
    title: str
    total: int
    included: int
    packed: str


def sample_blocks(scores: Scores, room: int = MAX_TOTAL_TEXT) -> tuple[list[Block], int]:
    """The items of every evaluation in the tables, and the limit of one text.

    Args:
        scores: All figures.
        room: The most characters of all texts together.
    """
    found = [
        (row.model, row.label, data_set_title(name), items)
        for row in scores.rows
        for name in scores.data_sets
        if name in row.evaluations and (items := row.evaluations[name].items) is not None
    ]
    tables = [items for *_, items in found]
    limit = next((limit for limit in TEXT_LIMITS if _size(tables, limit) <= room), TEXT_LIMITS[-1])
    share = room / max(_size(tables, limit), 1)
    blocks = []
    for model, label, title, items in found:
        sizes = _sizes(items, limit)
        count = len(items) if share >= 1 else int((sizes.cumsum() <= share * sizes.sum()).sum())
        blocks.append(Block(model, label, title, len(items), count, _packed(items.iloc[:count], limit)))
    return blocks, limit


def _size(tables: Sequence[pd.DataFrame], limit: int) -> int:
    return sum(int(_sizes(items, limit).sum()) for items in tables)


def _sizes(items: pd.DataFrame, limit: int) -> pd.Series:
    """Characters of each item, in all of its texts."""
    return items[list(TEXTS.values())].map(lambda text: min(len(text), limit)).sum(axis=1)


def _packed(items: pd.DataFrame, limit: int) -> str:
    undecided = items["verdict"] == RuleVerdict.CANT_TELL.value
    columns = {
        **{name: [shorten(text, limit) for text in items[column]] for name, column in TEXTS.items()},
        **{name: list(items[column]) for name, column in _NAMES.items()},
        "v": [
            "right" if acc == 1 else "undecided" if unclear else "wrong"
            for acc, unclear in zip(items["acc"], undecided, strict=True)
        ],
        "m": [int(fmt == 1) for fmt in items["fmt"]],
    }
    text = json.dumps(columns, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # mtime: the same items give the same page
    return base64.b64encode(gzip.compress(text.encode("utf-8"), compresslevel=5, mtime=0)).decode("ascii")
