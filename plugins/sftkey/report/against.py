"""What changed since an earlier report: each evaluation that is in both, tested on the items that both have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sftkey.evaluation.results import METRICS
from sftkey.evaluation.statistics import SIGNIFICANT, PairedTest, holm, paired_test, unpaired_test
from sftkey.report.comparisons import disagreement
from sftkey.report.outcomes import Outcomes
from sftkey.report.runs import data_set_title
from sftkey.report.score_tables import METRIC_TITLES
from sftkey.report.tables import Table, TableCell, ends, figure, interval_line, number, p_value, signed, texts

_OTHER_ITEMS = "no item is in both"


@dataclass(frozen=True)
class _Pair:
    """The same row and data set in both reports, or in one of them."""

    old: Outcomes | None
    new: Outcomes | None
    metric: str
    test: PairedTest | None
    caveats: tuple[str, ...] = ()


def against_table(new: Sequence[Outcomes], old: Sequence[Outcomes], name: str) -> Table:
    """Compare two reports.

    Args:
        new: The outcomes of this report.
        old: Those of the earlier one.
        name: What the earlier one is called.
    """
    table = Table(
        name="against",
        title=f"Against {name}",
        caption=(
            "Each row and data set of the tables in the earlier report (old) and in this one (new). Where items are in both, "
            "the difference is on these, tested in pairs (McNemar's exact test for Acc and Fmt, sign-flip permutation for "
            "Score); where none is, by a permutation of all items. Adjusted p: after Holm, over the rows of the same metric."
        ),
        columns=(
            "Model", "Strategy", "Data set", "Metric", "Old", "New", "Difference", "Only old", "Only new", "p", "Adjusted p",
            "Verdict",
        ),
    )  # fmt: skip
    pairs = [pair for metric in METRICS for pair in _pairs(new, old, metric)]
    adjusted: dict[int, float] = {}
    for metric in METRICS:
        tested = [(index, pair.test) for index, pair in enumerate(pairs) if pair.metric == metric and pair.test]
        adjusted |= dict(zip((index for index, _ in tested), holm([test.p for _, test in tested]), strict=True))
    for index in sorted(range(len(pairs)), key=lambda index: _key(pairs[index])):
        table.add(_row(table, pairs[index], adjusted.get(index)), grouped=True)
    return table


def _key(pair: _Pair) -> tuple[str, ...]:
    one = pair.new or pair.old
    assert one is not None
    return one.model.lower(), one.label, one.data_set, str(METRICS.index(pair.metric))


def _pairs(new: Iterable[Outcomes], old: Iterable[Outcomes], metric: str) -> list[_Pair]:
    named_new, named_old = ({(one.model, one.label, one.data_set): one for one in found} for found in (new, old))
    return [_pair(named_old.get(name), named_new.get(name), metric) for name in {**named_old, **named_new}]


def _pair(old: Outcomes | None, new: Outcomes | None, metric: str) -> _Pair:
    if old is None or new is None:
        return _Pair(old, new, metric, None)
    caveats = [
        f"{name}: {old.settings.get(name, 'unknown')}, now {new.settings.get(name, 'unknown')}"
        for name in sorted({*old.settings, *new.settings})
        if old.settings.get(name) != new.settings.get(name)
    ]
    if old.items is None or new.items is None:
        return _Pair(old, new, metric, None, (*caveats, "no items of both: not tested"))
    both = old.items[["key", metric]].merge(new.items[["key", metric]], on="key", suffixes=("_old", "_new"))
    if not len(both):
        caveats.append(_OTHER_ITEMS)
        test = unpaired_test(old.items[metric].to_numpy(float), new.items[metric].to_numpy(float))
    else:
        if not len(both) == len(old.items) == len(new.items):
            caveats.append(f"on the {len(both):,} items of both, of {len(old.items):,} and {len(new.items):,}")
        test = paired_test(both[f"{metric}_old"].to_numpy(float), both[f"{metric}_new"].to_numpy(float))
    return _Pair(old, new, metric, test, tuple(caveats))


def _row(table: Table, pair: _Pair, adjusted: float | None) -> list[TableCell]:
    one = pair.new or pair.old
    assert one is not None
    figures = [None if side is None else side.reported[pair.metric] for side in (pair.old, pair.new)]
    test = pair.test
    caveats = [*pair.caveats]
    if test is not None and adjusted is not None:
        caveats += filter(None, [disagreement(test, adjusted)])
    difference = test.difference if test else _plain(figures)
    verdict = _verdict(pair, adjusted)
    return [
        *texts({"model": one.model, "method": one.label, "data set": data_set_title(one.data_set)}),
        TableCell(METRIC_TITLES[pair.metric], values={"metric": pair.metric}),
        number({"old": figures[0]}, figure),
        number({"new": figures[1]}, figure),
        number(
            {"difference": difference, **ends(test.interval if test else None), "test": test.test if test else None},
            signed,
            details=(interval_line(test.interval, signed),) if test else (),
        ),
        number({"only old right": test.first_only if test else None}),
        number({"only new right": test.second_only if test else None}),
        number({"p": test.p if test else None}, p_value),
        number({"adjusted p": adjusted}, p_value),
        TableCell(
            verdict,
            verdict in ("higher", "lower"),
            footnotes=table.footnote(caveats),
            values={"verdict": verdict, "caveats": "; ".join(caveats)},
        ),
    ]


def _plain(figures: Sequence[float | None]) -> float | None:
    old, new = figures
    return None if old is None or new is None else new - old


def _verdict(pair: _Pair, adjusted: float | None) -> str:
    if pair.old is None:
        return "new"
    if pair.new is None:
        return "gone"
    if pair.test is None or adjusted is None:
        return "not tested"
    found = (pair.test.difference, pair.test.first_only or 0, pair.test.interval.low, pair.test.interval.high)
    if _OTHER_ITEMS not in pair.caveats and not np.any(found):
        return "the same"
    if adjusted >= SIGNIFICANT:
        return "not significant"
    return "higher" if pair.test.difference > 0 else "lower"
