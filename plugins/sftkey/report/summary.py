"""The other tables: paired tests, format failures, what changed between the stages, and every run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from sftkey.evaluation.statistics import mean_interval
from sftkey.report.changes import KINDS, Change
from sftkey.report.comparisons import Comparison
from sftkey.report.runs import Run, data_set_title
from sftkey.report.score_tables import METRIC_TITLES
from sftkey.report.scores import Scores
from sftkey.report.stages import LoggedStage
from sftkey.report.tables import NOTHING, Table, TableCell, ends, figure, interval_line, number, p_value, signed, texts
from sftkey.stages.marker import TrainingRecord


def comparison_table(scores: Scores) -> Table:
    """Every pair of strategies on the same items."""
    table = Table(
        name="comparisons",
        title="Paired tests",
        caption=(
            "Every pair of strategies of a model on the items that both answered. Difference: second minus first, with "
            "its 95% paired-bootstrap interval; only first, only second: items that only that one got right (or in "
            "format). p: McNemar's exact test for Acc and Fmt, sign-flip permutation test "
            "for Score and for averages; adjusted p: after Holm, over the pairs of the same model, data set and metric."
        ),
        columns=(
            "Model", "Data set", "Metric", "First", "Second", "Items", "Only first", "Only second",
            "Difference", "p", "Adjusted p", "Verdict",
        ),
    )  # fmt: skip
    for one in scores.comparisons:
        test = one.test
        remarks = [*one.caveats, *filter(None, [one.remark])]
        verdict = {"significant": one.significant, "caveats": "; ".join(remarks)}
        row = [
            *texts({"model": one.model, "data set": data_set_title(one.data_set)}),
            TableCell(METRIC_TITLES[one.metric], values={"metric": one.metric}),
            *texts({"first": one.first, "second": one.second}),
            number({"items": test.items}),
            number({"only first right": test.first_only}),
            number({"only second right": test.second_only}),
            number(
                {"difference": test.difference, **ends(test.interval), "test": test.test},
                signed,
                details=(interval_line(test.interval, signed),),
            ),
            number({"p": test.p}, p_value),
            number({"adjusted p": one.adjusted_p}, p_value),
            TableCell(_verdict(one), one.significant, footnotes=table.footnote(remarks), values=verdict),
        ]
        table.add(row, grouped=True)
    return table


def _verdict(comparison: Comparison) -> str:
    if not comparison.significant:
        return "not significant"
    return f"{comparison.second if comparison.test.difference > 0 else comparison.first} is higher"


_NOT_FOUND = "no answer found"


def failure_table(scores: Scores) -> Table:
    """Why outputs are not in the expected format: share of items by kind of failure."""
    evaluated = [
        (row, name, row.evaluations[name].items)
        for row in scores.rows
        for name in scores.data_sets
        if name in row.evaluations
    ]
    logged = [(row, name, items) for row, name, items in evaluated if items is not None]
    failures = [items["failure"] for _, _, items in logged]
    kinds = list(dict.fromkeys(kind for found in failures for kind in found[found != ""].value_counts().index))
    if any(items["no_answer"].any() for _, _, items in logged):
        kinds.append(_NOT_FOUND)
    table = Table(
        name="format_failures",
        title="Format failures",
        caption=(
            "Share of items by the reason why the output is not in the expected format, with its 95% interval; "
            f"{NOTHING} where no output failed for that reason. Whatever the format, the rules may have found no answer."
        ),
        columns=("Model", "Strategy", "Data set", *kinds),
        labels=3,
        csv_columns=("model", "method", "data set", "reason", "share", "low", "high", "items"),
    )
    for row, name, items in logged:
        names = {"model": row.model, "method": row.label, "data set": data_set_title(name)}
        failed = {kind: items["no_answer"] > 0 if kind == _NOT_FOUND else items["failure"] == kind for kind in kinds}
        table.add([*texts(names), *(_failure_cell(kind, one) for kind, one in failed.items())], grouped=True)
    return table


def _failure_cell(kind: str, failed: pd.Series) -> TableCell:
    if not failed.any():
        return TableCell(NOTHING, numeric=True)
    values = failed.to_numpy(float)
    share, interval = float(values.mean()), mean_interval(values)
    return TableCell(
        figure(share),
        details=(interval_line(interval),),
        numeric=True,
        values={"reason": kind, "share": share, **ends(interval), "items": len(values)},
    )


def change_table(changes: Sequence[Change]) -> Table:
    """How many items changed between Stage 1 and Stage 2."""
    table = Table(
        name="changes",
        title="Changed between Stage 1 and Stage 2",
        caption="Items that both stages answered, and those whose outcome changed: "
        + "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
        + ".",
        columns=("Model", "Stage 1", "Stage 2", "Data set", "Items", *(kind.capitalize() for kind in KINDS)),
    )
    for change in changes:
        caveats = (
            [f"{change.unpaired} items were answered by one stage only and are left out"] if change.unpaired else []
        )
        names = {"model": change.model, "stage 1": change.first, "stage 2": change.strategy}
        items = {"items": change.shared, "unpaired": change.unpaired}
        table.add(
            [
                *texts({**names, "data set": data_set_title(change.data_set)}),
                number(items, footnotes=table.footnote(caveats)),
                *(number({kind: count}) for kind, count in change.counts.items()),
            ]
        )
    return table


def run_table(runs: Iterable[Run], roots: Sequence[Path]) -> Table:
    """Every run: what it is, whether it finished, where it is."""
    table = Table(
        name="runs",
        title="Runs",
        caption=(
            "Every stage that was found. Only finished stages are in the tables of figures. Loss: mean over the whole "
            "training, in nats per token that the method trains; not comparable between methods."
        ),
        columns=(
            "Model", "Strategy", "State", "Trained on", "Steps", "Epochs", "Loss", "Time", "Evaluated on", "Folder",
        ),
    )  # fmt: skip
    for run in runs:
        stage = run.stages[-1] if run.stages else None
        training = stage.training if stage else TrainingRecord()
        evaluated = ", ".join(data_set_title(name) for name in run.evaluations)
        table.add(
            [
                *texts({"model": run.model, "method": run.label()}),
                _state(stage),
                TableCell(
                    " + ".join(map(data_set_title, run.trained_on)), values={"trained on": ", ".join(run.trained_on)}
                ),
                number({"steps": stage.steps if stage else None}, "{:,}".format),
                number({"epochs": training.epochs}, "{:.3g}".format),
                number({"loss": training.train_loss}, figure),
                number({"seconds": training.seconds}, _duration),
                TableCell(evaluated or NOTHING, values={"evaluated on": evaluated}),
                *texts({"folder": below_root(str(run.directory or ""), roots)}),
            ]
        )
    return table


def _state(stage: LoggedStage | None) -> TableCell:
    if stage is None:
        return TableCell("not trained", values={"state": "not trained"})
    if not stage.finished:
        return TableCell("unfinished", bold=True, values={"state": "unfinished"})
    text = f"finished {stage.finished_at}"
    values = {"state": text}
    try:
        at = datetime.fromisoformat(stage.finished_at or "")
    except ValueError:
        return TableCell(text, values=values)
    return TableCell(f"finished {at:%Y-%m-%d %H:%M} {at.tzname() or ''}".rstrip(), values=values)


def below_root(text: str, roots: Iterable[Path]) -> str:
    """Cut the output roots' paths in a text down to their last part, so that the page doesn't show the rest."""
    for root in sorted(roots, key=lambda root: len(str(root)), reverse=True):
        text = text.replace(f"{root}{os.sep}", f"{root.name}{os.sep}")
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
