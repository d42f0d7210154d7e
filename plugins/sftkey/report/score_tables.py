"""The tables of the paper from the user's own runs: Score, Acc and Fmt."""

from __future__ import annotations

from collections.abc import Mapping

from sftkey.evaluation.results import METRICS
from sftkey.report.comparisons import Comparison
from sftkey.report.paper import AVERAGE, disagreements
from sftkey.report.runs import BASELINE, data_set_title
from sftkey.report.score_rows import Score, ScoreRow
from sftkey.report.scores import Scores
from sftkey.report.tables import NOTHING, Table, TableCell, ends, figure, interval_line, signed, texts

METRIC_TITLES: Mapping[str, str] = {"score": "Score", "acc": "Acc", "fmt": "Fmt"}

_CAPTIONS = {
    "score": "Score = 0.7 Acc + 0.3 Fmt (Table 1 of the paper).",
    "acc": "Share of items with the right answer (Table 6 of the paper).",
    "fmt": "Share of outputs in exactly the expected format (Table 7 of the paper).",
}
_OWN_FIGURES = {(one.metric, one.model, one.strategy, one.column): one.computed for one in disagreements()}


def score_tables(scores: Scores) -> list[Table]:
    """Score, Acc and Fmt: model x strategy x data set, average, difference to SFT, the paper's figures."""
    return [_score_table(scores, metric) for metric in METRICS]


def _score_table(scores: Scores, metric: str) -> Table:
    columns = (*scores.data_sets, AVERAGE) if len(scores.data_sets) > 1 else scores.data_sets
    table = Table(
        name=metric,
        title=METRIC_TITLES[metric],
        caption=_CAPTIONS[metric],
        reading=_how_to_read(scores) + _limits(scores),
        columns=("Model", "Strategy", *(data_set_title(name) for name in columns)),
        labels=2,
    )
    for model in scores.models:
        for index, row in enumerate(scores.rows_of(model)):
            names = [TableCell(model if index == 0 else "", values={"model": model}), *texts({"method": row.label})]
            table.add([*names, *(_cell(scores, table, row, name, metric) for name in columns)], grouped=True)
    return table


def _how_to_read(scores: Scores) -> str:
    """What stands in the cells, of what does stand there; the same for the three tables."""
    found = [score for row in scores.rows for by_data_set in row.scores.values() for score in by_data_set.values()]
    baselines = [(row, scores.baseline(row)) for row in scores.rows]
    tested = {(one.first, one.second) for one in scores.comparisons}
    with_difference = any(
        baseline and {(row.label, baseline.label), (baseline.label, row.label)} & tested for row, baseline in baselines
    )
    parts = []
    if any(score.interval for score in found):
        parts.append("In brackets the 95% interval (bootstrap over items).")
    if with_difference:
        parts.append(
            "Below it the difference to SFT on the same items, n.s. where it is not significant (5%, Holm-adjusted over "
            "the pairs of a column)."
        )
    if any(score.best for score in found):
        parts.append("Best of a model and column in bold.")
    if any(score.paper is not None for score in found):
        parts.append("Paper: the published figure and the difference to it.")
    return " ".join(parts)


def _cell(scores: Scores, table: Table, row: ScoreRow, name: str, metric: str) -> TableCell:
    score = row.scores[metric].get(name)
    if score is None:
        return _missing(table, row, name)
    details = [] if score.interval is None else [interval_line(score.interval)]
    baseline = scores.baseline(row)
    comparison = scores.comparison(baseline, row, name, metric) if baseline else None
    footnotes = list(score.caveats)
    if score.of is not None and name != AVERAGE and _limit(scores, name) is None:
        footnotes.append(f"evaluated on {score.items:,} of {score.of:,} items")
    if comparison is not None:
        details.append(_difference(comparison))
        if not score.caveats:
            footnotes += [f"difference to SFT: {caveat}" for caveat in comparison.caveats]
    elif row.strategy != BASELINE and (plain := _plain_difference(baseline, row, name, metric)) is not None:
        details.append(("delta", f"{signed(plain)} to SFT, not tested"))
    if score.paper is not None:
        details.append(("paper", f"paper {figure(score.paper)} ({signed(score.value - score.paper)})"))
        own = _OWN_FIGURES.get((metric, row.model, row.strategy, name))
        if own is not None:
            footnotes.append(f"the paper prints {figure(score.paper)}, its other cells give {figure(own)}")
    values = {"data set": data_set_title(name), "metric": metric, **_values(score, comparison)}
    return TableCell(figure(score.value), score.best, tuple(details), table.footnote(footnotes), True, values)


def _missing(table: Table, row: ScoreRow, name: str) -> TableCell:
    reason = row.missing.get(name) or row.missing.get(None) or "no evaluation of it was found"
    if name == AVERAGE:
        reason = "no average: not every data set of this model is evaluated" if row.evaluations else ""
    return TableCell(NOTHING, footnotes=table.footnote([reason] if reason else []), numeric=True)


def _values(score: Score, comparison: Comparison | None) -> dict[str, object]:
    test = comparison.test if comparison else None
    return {
        "value": score.value,
        **ends(score.interval),
        "items": score.items,
        "of items": score.of or score.items,
        "best": score.best,
        "difference to SFT": test.difference if test else None,
        **ends(test.interval if test else None, "difference "),
        "test": test.test if test else None,
        "p": test.p if test else None,
        "adjusted p": comparison.adjusted_p if comparison else None,
        "significant": comparison.significant if comparison else None,
        "paper": score.paper,
        "difference to paper": None if score.paper is None else score.value - score.paper,
        "caveats": "; ".join([*score.caveats, *(comparison.caveats if comparison else ())]),
    }


def _limit(scores: Scores, name: str) -> tuple[int, int] | None:
    """Items evaluated and items of the task, where they are the same for a whole column and not equal."""
    cells = [row.scores["acc"][name] for row in scores.rows if name in row.scores.get("acc", {})]
    limits = {(cell.items, cell.of) for cell in cells}
    items, of = limits.pop() if len(limits) == 1 else (None, None)
    return None if items is None or of is None else (items, of)


def _limits(scores: Scores) -> str:
    found = {data_set_title(name): _limit(scores, name) for name in scores.data_sets}
    parts = [f"{title} {limit[0]:,} of {limit[1]:,}" for title, limit in found.items() if limit is not None]
    return f" Items evaluated: {', '.join(parts)}." if parts else ""


def _difference(comparison: Comparison) -> tuple[str, str]:
    difference = comparison.test.difference
    if not comparison.significant:
        return "delta", f"{signed(difference)} n.s."
    return ("delta up" if difference > 0 else "delta down"), f"{signed(difference)} to SFT"


def _plain_difference(baseline: ScoreRow | None, row: ScoreRow, name: str, metric: str) -> float | None:
    """The difference of two figures where no items were logged to test it; only of like with like."""
    own, other = row.scores[metric].get(name), baseline.scores[metric].get(name) if baseline else None
    if own is None or other is None or own.items != other.items or own.items is None:
        return None
    if own.interval is not None and other.interval is not None:
        return None  # items were logged, and none is shared
    return own.value - other.value
