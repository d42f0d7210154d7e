"""Which column of one's own rows holds the options of multiple choice, and whether the answers are among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftkey.datasets.base import required_text
from sftkey.datasets.own_options import options_of, right_option
from sftkey.format.example import SkippedRow

_OPTIONS = "options choices option choice alternatives candidates endings mc_options".split()
_ONE_EACH = re.compile(r"(?:options?|opt|op|choices?|answer)?[_ ]?([a-h]|[1-8])", re.I)
_SURE = 0.9


def options_column(
    rows: Sequence[Mapping[str, Any]], there: Sequence[str], given: Mapping[str, str]
) -> str | list[str] | None:
    """The column of the options, or those of one each: of that name, or that hold what can be read as options."""
    if name := given.get("options"):
        return name
    named = named_options(there)
    nested = [name for name in there if any(isinstance(row.get(name), (list, dict)) for row in rows)]
    for name in dict.fromkeys((*named, *nested)):
        if share(_readable(row, name) for row in rows) >= _SURE and name not in given.values():
            return name
    each: list[str] = []
    for name in there:
        match = _ONE_EACH.fullmatch(name)
        expected = {chr(ord("a") + len(each)), str(len(each) + 1)}
        if match and match.group(1).lower() in expected and name not in given.values():
            each.append(name)
    return each if len(each) > 1 and share(_readable(row, each) for row in rows) >= _SURE else None


def named_options(there: Iterable[str]) -> list[str]:
    """The columns whose names say that they hold options."""
    return [name for name in there if plain(name) in _OPTIONS]


def _readable(row: Mapping[str, Any], columns: str | list[str]) -> bool:
    try:
        return len(options_of(row, columns)[0]) > 1
    except (SkippedRow, KeyError):
        return False


def fit(rows: Sequence[Mapping[str, Any]], columns: str | list[str], answer: str, given: Mapping[str, str]) -> bool:
    """Whether the answers are among the options; a column that only holds lists, of topics say, isn't one of options."""
    if "options" in given or not isinstance(columns, str) or plain(columns) in _OPTIONS:
        return True
    return share(_names_one(row, columns, answer) for row in rows) > 0.5


def _names_one(row: Mapping[str, Any], columns: str, answer: str) -> bool:
    try:
        return bool(right_option(required_text(row, answer), *options_of(row, columns)))
    except (SkippedRow, KeyError):
        return False


def counts_from_one(rows: Sequence[Mapping[str, Any]], columns: str | list[str], answer: str) -> bool:
    """Whether all answers are positions that begin with 1 and end with the last: each would be taken for the next one."""
    last = False
    for row in rows:
        try:
            (options, labels), named = options_of(row, columns), required_text(row, answer).strip()
        except (SkippedRow, KeyError):
            continue
        if named in {*labels, *options.values()} or not re.fullmatch("[1-9][0-9]?", named) or int(named) > len(options):
            return False
        last = last or int(named) == len(options)
    return last


def share(values: Iterable[Any]) -> float:
    """How many of them are true, from 0 to 1."""
    found = [bool(value) for value in values]
    return sum(found) / len(found) if found else 0.0


def plain(name: str) -> str:
    """A column's name in lower case, words joined by ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
