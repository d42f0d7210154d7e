"""What Acc is made of, and what the outputs are like: lengths, share cut off, who decided."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sftkey.evaluation.decomposition import CUT_OFF
from sftkey.evaluation.results import Evaluation
from sftkey.evaluation.statistics import mean_interval
from sftkey.evaluation.verdicts import DecidedBy, RuleVerdict
from sftkey.report.runs import data_set_title
from sftkey.report.score_rows import ScoreRow
from sftkey.report.scores import Scores
from sftkey.report.tables import NOTHING, Table, TableCell, ends, figure, interval_line, number, texts

_NAMES = ("Model", "Strategy", "Data set")


def decomposition_table(scores: Scores) -> Table:
    """Acc by the format of the output, and what can't count towards it."""
    table = Table(
        name="decomposition",
        title="What Acc is made of",
        caption=(
            "Acc = Fmt times Acc among the well-formed outputs + (1 - Fmt) times Acc among the others. No answer: the rules "
            "found none. Undecided: neither the rules nor a judge could tell; counted as wrong. In brackets the 95% interval."
        ),
        columns=(*_NAMES, "Items", "Acc", "Fmt", "Acc, well-formed", "Acc, others", "No answer", "Undecided"),
    )
    for names, one, items in _logged(scores):
        formed = items["fmt"] == 1
        decided = items["verdict"] != ""
        table.add(
            [
                *names,
                number({"items": len(items)}, "{:,}".format),
                number({"acc": one.reported["acc"]}, figure),
                number({"fmt": one.reported["fmt"]}, figure),
                _share("acc well-formed", items.loc[formed, "acc"]),
                _share("acc others", items.loc[~formed, "acc"]),
                _share("no answer", items["no_answer"]),
                _share("undecided", items.loc[decided, "verdict"] == RuleVerdict.CANT_TELL.value),
            ],
            grouped=True,
        )
    return table


def output_table(scores: Scores) -> Table:
    """Lengths of outputs and thinking, the share that was cut off, and the judge's share with its errors."""
    measured = any("judge_sensitivity" in one.judge for _, one, _ in _logged(scores))
    table = Table(
        name="outputs",
        title="Outputs",
        caption=(
            "Length in characters, median and below it the 95th percentile; lm-eval logs texts, not tokens. Thinking: of the "
            "outputs that have one, closed or not. Cut off: thinking or answer is opened and never closed. Judged: the judge "
            "decided."
            + (
                " Judge misses, judge's false yes: its errors on known answers, of those that are the same and of those that "
                "are different."
                if measured
                else ""
            )
        ),
        columns=(
            *_NAMES, "Output", "Thinking", "Cut off", "Judged",
            *(("Judge misses", "Judge's false yes") if measured else ()),
        ),
    )  # fmt: skip
    for names, one, items in _logged(scores):
        cut_off = _share("cut off", items["failure"].isin(CUT_OFF))
        if one.plain and cut_off.text == "0":
            note = "an untagged form has no closing tag: an output that was cut off counts as one without answer"
            cut_off = TableCell(NOTHING, numeric=True, footnotes=table.footnote([note]), values={"cut off": None})
        errors = [
            None if rate is None else 1 - rate
            for rate in (one.judge.get("judge_sensitivity"), one.judge.get("judge_specificity"))
        ]
        table.add(
            [
                *names,
                _length("output", items["length"]),
                _length("thinking", items["thinking_length"].dropna()),
                cut_off,
                _share("judged", items["decided_by"].isin((DecidedBy.JUDGE.value, DecidedBy.CACHE.value))),
                *(
                    [number({"judge misses": errors[0]}, figure), number({"judge false yes": errors[1]}, figure)]
                    if measured
                    else []
                ),
            ],
            grouped=True,
        )
    return table


def _logged(scores: Scores) -> Iterator[tuple[list[TableCell], Evaluation, pd.DataFrame]]:
    """Every evaluation with its items, and the cells that name it."""
    for row, name in ((row, name) for row in scores.rows for name in scores.data_sets):
        one = row.evaluations.get(name)
        if one is not None and one.items is not None:
            yield _names(row, name), one, one.items


def _names(row: ScoreRow, name: str) -> list[TableCell]:
    return texts({"model": row.model, "method": row.label, "data set": data_set_title(name)})


def _share(column: str, values: pd.Series) -> TableCell:
    """A mean of values between 0 and 1 with its interval; `NOTHING` over no items, and no interval where no item has it."""
    if not len(values):
        return TableCell(NOTHING, numeric=True, values={column: None, f"{column} of": 0})
    numbers = values.to_numpy(float)
    mean, interval = float(numbers.mean()), mean_interval(numbers)
    cell = {column: mean, **ends(interval, f"{column} "), f"{column} of": len(values)}
    if not mean and not column.startswith("acc"):
        return TableCell("0", numeric=True, values=cell)
    return TableCell(figure(mean), numeric=True, values=cell, details=(interval_line(interval),))


def _length(column: str, lengths: pd.Series) -> TableCell:
    if not len(lengths):
        return TableCell(NOTHING, numeric=True, values={f"{column} median": None})
    middle, most = (float(lengths.quantile(share)) for share in (0.5, 0.95))
    values = {f"{column} median": middle, f"{column} mean": float(lengths.mean()), f"{column} 95%": most}
    return TableCell(f"{middle:,.0f}", numeric=True, values=values, details=(("interval", f"95%: {most:,.0f}"),))
