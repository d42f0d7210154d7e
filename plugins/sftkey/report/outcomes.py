"""The outcomes of every item as a file beside the report, so that a later report can be compared with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, Field, ValidationError, model_validator

from sftkey.evaluation.results import METRICS
from sftkey.report.collect import collect
from sftkey.report.runs import item_count, runs_of
from sftkey.report.scores import Scores, scores_of
from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile, read_json_lines
from sftkey.util.text import one_line

FILE = "outcomes.jsonl"

MAX_ITEMS = 1_000_000
_Name = Annotated[str, Field(max_length=1024)]
_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Outcomes:
    """One evaluation: its figures, and what became of each item.

    Attributes:
        model: The model.
        label: The row's name in the tables.
        data_set: The data set.
        reported: Score, Acc and Fmt.
        settings: As in `sftkey.evaluation.results.Evaluation`.
        count: How many items it is over, where known.
        items: Columns ``key`` and `METRICS`; ``None`` where no items were logged.
    """

    model: str
    label: str
    data_set: str
    reported: dict[str, float]
    settings: dict[str, str]
    count: int | None
    items: pd.DataFrame | None


class _Line(BaseModel):
    """One line of the file."""

    model: _Name
    label: _Name
    data_set: _Name
    reported: dict[_Name, _Share]
    settings: dict[_Name, _Name] = Field(default_factory=dict, max_length=50)
    count: int | None = Field(default=None, ge=0)
    items: dict[str, list[Any]] | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Line:
        if set(self.reported) != set(METRICS):
            raise ValueError(f"figures of {', '.join(METRICS)} are needed, and no others")
        if self.items is not None:
            keys, *columns = (self.items.get(name) for name in ("key", *METRICS))
            if set(self.items) != {"key", *METRICS} or len({len(values) for values in self.items.values()}) != 1:
                raise ValueError("the columns of the items are others, or not of one length")
            if not keys or len(keys) > MAX_ITEMS or not all(isinstance(key, str) and len(key) < 100 for key in keys):
                raise ValueError("an item's key isn't a short text")
            if len(set(keys)) != len(keys):
                raise ValueError("two items have one key")
            if not all(type(one) in (int, float) and 0 <= one <= 1 for values in columns for one in values or ()):
                raise ValueError("an item's figure isn't a number between 0 and 1")
        return self


def outcomes_of(scores: Scores) -> list[Outcomes]:
    """The outcomes behind every figure of the tables."""
    return [
        Outcomes(
            row.model,
            row.label,
            name,
            dict(one.reported),
            dict(one.settings),
            item_count(one),
            None if one.items is None else one.items[["key", *METRICS]],
        )
        for row in scores.rows
        for name, one in row.evaluations.items()
    ]


def as_lines(found: Iterable[Outcomes]) -> Iterator[str]:
    """The file's lines."""
    for one in found:
        items = None if one.items is None else {str(name): list(values) for name, values in one.items.items()}
        yield json.dumps({**vars(one), "items": items}, allow_nan=False) + "\n"


def read_old(place: Path) -> list[Outcomes]:
    """The outcomes of an earlier report: from its folder, or from the output root that it would be made from.

    Raises:
        UserError: There are none, or the file of the report can't be used.
    """
    path = place / FILE
    if path.is_file():
        return _read(path)
    found = outcomes_of(scores_of(runs_of(collect([place]))))
    if not found:
        raise UserError(
            f"{place} is no report with {FILE}, and there is no evaluation of a stage under it; name the folder of an "
            "earlier report (its -o), or an output root"
        )
    return found


def _read(path: Path) -> list[Outcomes]:
    found = []
    try:
        for number, content in read_json_lines(path):
            if isinstance(content, UnreadableFile):
                raise UserError(f"{path}, line {number}: {content}; write that report again")
            try:
                line = _Line.model_validate(content)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the line"
                raise UserError(
                    one_line(f"{path}, line {number}: {where[:100]}: {first['msg'][:200]}; write that report again")
                ) from None
            items = None if line.items is None else pd.DataFrame(line.items)
            names = (one_line(line.model), one_line(line.label), one_line(line.data_set))
            settings = {one_line(name): one_line(value) for name, value in line.settings.items()}
            found.append(Outcomes(*names, line.reported, settings, line.count, items))
    except UnreadableFile as error:
        raise UserError(f"{path}: {error}; write that report again") from error
    return found
