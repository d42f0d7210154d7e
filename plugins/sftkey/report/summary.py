"""Which tables the report has, and what stands in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from sftkey.evaluation.results import METRICS
from sftkey.evaluation.statistics import mean_interval
from sftkey.report.changes import KINDS, Change
from sftkey.report.comparisons import Comparison
from sftkey.report.paper import AVERAGE, disagreements
from sftkey.report.runs import BASELINE, Run, data_set_title
from sftkey.report.score_rows import Score, ScoreRow
from sftkey.report.scores import Scores
from sftkey.report.stages import LoggedStage
from sftkey.report.tables import Table, TableCell, figure, p_value, signed, text_row
from sftkey.stages.marker import TrainingRecord

METRIC_TITLES: Mapping[str, str] = {"score": "Score", "acc": "Acc", "fmt": "Fmt"}

_CAPTIONS = {
    "score": "Score = 0.7 Acc + 0.3 Fmt (Table 1 of the paper).",
    "acc": "Share of items with the right answer (Table 6 of the paper).",
    "fmt": "Share of outputs in exactly the expected format (Table 7 of the paper).",
}
_HOW_TO_READ = (
    "In brackets the 95% interval (bootstrap over items); below it the difference to SFT on the same items, n.s. where "
    "it is not significant (5%, Holm-adjusted over the pairs of a column). Best of a model and column in bold."
)
NOTHING = "\u2013"

_OWN_FIGURES = {(one.metric, one.model, one.strategy, one.column): one.computed for one in disagreements()}


def score_tables(scores: Scores) -> list[Table]:
    """Score, Acc and Fmt: model x strategy x data set, average, difference to SFT, the paper's figures."""
    return [_score_table(scores, metric) for metric in METRICS]


def _score_table(scores: Scores, metric: str) -> Table:
    columns = (*scores.data_sets, AVERAGE) if len(scores.data_sets) > 1 else scores.data_sets
    cells = (cell for row in scores.rows for by_data_set in row.scores.values() for cell in by_data_set.values())
    with_paper = any(cell.paper is not None for cell in cells)
    paper = " Paper: the published figure and the difference to it." if with_paper else ""
    table = Table(
        name=metric,
        title=METRIC_TITLES[metric],
        caption=_CAPTIONS[metric],
        reading=_HOW_TO_READ + paper + _limits(scores),
        columns=("Model", "Method", *(data_set_title(name) for name in columns)),
    )
    records = []
    for model in scores.models:
        table.groups.add(len(table.rows))
        for index, row in enumerate(scores.rows_of(model)):
            line = [TableCell(model if index == 0 else ""), TableCell(row.label)]
            for name in columns:
                line.append(_score_cell(scores, table, row, name, metric))
                records.append(_score_record(scores, row, name, metric))
            table.rows.append(line)
    table.frame = pd.DataFrame([record for record in records if record is not None])
    return table


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


def _to_sft(scores: Scores, row: ScoreRow, name: str, metric: str) -> Comparison | None:
    baseline = scores.baseline(row)
    if baseline is None:
        return None
    found = scores.comparison(baseline, row, name, metric)
    return found


def _score_cell(scores: Scores, table: Table, row: ScoreRow, name: str, metric: str) -> TableCell:
    cell = row.scores[metric].get(name)
    if cell is None:
        if name == AVERAGE and row.evaluations:
            reason = "no average: not every data set of this model is evaluated"
            return TableCell(NOTHING, footnotes=table.footnote([reason]), numeric=True)
        missing = row.missing.get(name) or row.missing.get(None) or "no evaluation of it was found"
        return TableCell(NOTHING, footnotes=table.footnote([] if name == AVERAGE else [missing]), numeric=True)
    details = []
    if cell.interval is not None:
        details.append(("interval", f"[{cell.interval.low:.3f}, {cell.interval.high:.3f}]"))
    comparison = _to_sft(scores, row, name, metric)
    caveats = list(cell.caveats)
    if cell.of is not None and name != AVERAGE and _limit(scores, name) is None:
        caveats.append(f"evaluated on {cell.items:,} of {cell.of:,} items")
    if comparison is not None:
        details.append(_difference(comparison))
        if not cell.caveats:
            caveats += [f"difference to SFT: {caveat}" for caveat in comparison.caveats]
    elif row.strategy != BASELINE and (plain := _plain_difference(scores, row, name, metric)) is not None:
        details.append(("delta", f"{signed(plain)} to SFT, not tested"))
    if cell.paper is not None:
        details.append(("paper", f"paper {figure(cell.paper)} ({signed(cell.value - cell.paper)})"))
        own = _OWN_FIGURES.get((metric, row.model, row.strategy, name))
        if own is not None:
            caveats.append(f"the paper prints {figure(cell.paper)}, its other cells give {figure(own)}")
    return TableCell(figure(cell.value), cell.best, tuple(details), table.footnote(caveats), numeric=True)


def _difference(comparison: Comparison) -> tuple[str, str]:
    difference = comparison.test.difference
    if not comparison.significant:
        return "delta", f"{signed(difference)} n.s."
    return ("delta up" if difference > 0 else "delta down"), f"{signed(difference)} to SFT"


def _plain_difference(scores: Scores, row: ScoreRow, name: str, metric: str) -> float | None:
    """The difference of two figures where no items were logged to test it; only of like with like."""
    baseline = scores.baseline(row)
    own, other = row.scores[metric].get(name), baseline.scores[metric].get(name) if baseline else None
    if own is None or other is None or own.items != other.items or own.items is None:
        return None
    if own.interval is not None and other.interval is not None:
        return None  # items were logged, and none is shared
    return own.value - other.value


def _score_record(scores: Scores, row: ScoreRow, name: str, metric: str) -> dict[str, object] | None:
    cell = row.scores[metric].get(name)
    if cell is None:
        return None
    comparison = _to_sft(scores, row, name, metric)
    return {
        "model": row.model,
        "method": row.label,
        "data set": data_set_title(name),
        "metric": metric,
        "value": cell.value,
        **_ends(cell),
        "items": cell.items,
        "of items": cell.of or cell.items,
        "best": cell.best,
        "difference to SFT": comparison.test.difference if comparison else None,
        "difference low": comparison.test.interval.low if comparison else None,
        "difference high": comparison.test.interval.high if comparison else None,
        "test": comparison.test.test if comparison else None,
        "p": comparison.test.p if comparison else None,
        "adjusted p": comparison.adjusted_p if comparison else None,
        "significant": comparison.significant if comparison else None,
        "paper": cell.paper,
        "difference to paper": None if cell.paper is None else cell.value - cell.paper,
        "caveats": "; ".join([*cell.caveats, *(comparison.caveats if comparison else ())]),
    }


def _ends(cell: Score) -> dict[str, object]:
    if cell.interval is None:
        return {"low": None, "high": None}
    return {"low": cell.interval.low, "high": cell.interval.high}


def comparison_table(scores: Scores) -> Table:
    """Every pair of methods on the same items."""
    table = Table(
        name="comparisons",
        title="Paired tests",
        caption=(
            "Every pair of methods of a model on the items that both answered. Difference: second minus first, with "
            "its 95% paired-bootstrap interval; only first, only second: items that only that one got right (or in "
            "format). p: McNemar's exact test for Acc and Fmt, sign-flip permutation test "
            "for Score and for averages; adjusted p: after Holm, over the pairs of the same model, data set and metric."
        ),
        columns=(
            "Model", "Data set", "Metric", "First", "Second", "Items", "Only first", "Only second",
            "Difference", "p", "Adjusted p", "Verdict",
        ),
    )  # fmt: skip
    records: list[dict[str, object]] = []
    for one in scores.comparisons:
        if not table.rows or records[-1]["model"] != one.model:
            table.groups.add(len(table.rows))
        records.append(_comparison_record(one))
        test = one.test
        interval = ("interval", f"[{signed(test.interval.low)}, {signed(test.interval.high)}]")
        numbers = [str(test.items), _count(test.first_only), _count(test.second_only)]
        table.rows.append(
            [
                *text_row([one.model, data_set_title(one.data_set), METRIC_TITLES[one.metric], one.first, one.second]),
                *(TableCell(text, numeric=True) for text in numbers),
                TableCell(signed(test.difference), details=(interval,), numeric=True),
                TableCell(p_value(test.p), numeric=True),
                TableCell(p_value(one.adjusted_p), numeric=True),
                TableCell(_verdict(one), bold=one.significant, footnotes=table.footnote(one.caveats)),
            ]
        )
    table.frame = pd.DataFrame(records)
    return table


def _count(number: int | None) -> str:
    return NOTHING if number is None else str(number)


def _verdict(comparison: Comparison) -> str:
    if not comparison.significant:
        return "not significant"
    return f"{comparison.second if comparison.test.difference > 0 else comparison.first} is higher"


def _comparison_record(one: Comparison) -> dict[str, object]:
    return {
        "model": one.model,
        "data set": data_set_title(one.data_set),
        "metric": one.metric,
        "first": one.first,
        "second": one.second,
        "items": one.test.items,
        "only first right": one.test.first_only,
        "only second right": one.test.second_only,
        "difference": one.test.difference,
        "low": one.test.interval.low,
        "high": one.test.interval.high,
        "test": one.test.test,
        "p": one.test.p,
        "adjusted p": one.adjusted_p,
        "significant": one.significant,
        "caveats": "; ".join(one.caveats),
    }


def failure_table(scores: Scores) -> Table:
    """Why outputs are not in the expected format: share of items by kind of failure."""
    rows: list[tuple[ScoreRow, str, dict[str, pd.Series]]] = []
    for row in scores.rows:
        for name in scores.data_sets:
            evaluation = row.evaluations.get(name)
            if evaluation is None or evaluation.items is None:
                continue
            failures = evaluation.items["failure"]
            kinds = failures[failures != ""].value_counts().index
            rows.append((row, name, {str(kind): failures == kind for kind in kinds}))
    columns = tuple(dict.fromkeys(kind for _, _, found in rows for kind in found))
    table = Table(
        name="format_failures",
        title="Format failures",
        caption=(
            "Share of items by the reason why the output is not in the expected format, with its 95% interval; "
            f"{NOTHING} where no output failed for that reason."
        ),
        columns=("Model", "Method", "Data set", *columns),
    )
    records: list[dict[str, object]] = []
    model = None
    for row, name, found in rows:
        if row.model != model:
            table.groups.add(len(table.rows))
            model = row.model
        cells = []
        for kind in columns:
            if kind not in found:
                cells.append(TableCell(NOTHING, numeric=True))
                continue
            values = found[kind].to_numpy(float)
            share, interval = float(values.mean()), mean_interval(values)
            ends = ("interval", f"[{interval.low:.3f}, {interval.high:.3f}]")
            cells.append(TableCell(figure(share), details=(ends,), numeric=True))
            records.append(
                {
                    "model": row.model,
                    "method": row.label,
                    "data set": data_set_title(name),
                    "reason": kind,
                    "share": share,
                    "low": interval.low,
                    "high": interval.high,
                    "items": len(values),
                }
            )
        table.rows.append([*text_row([row.model, row.label, data_set_title(name)]), *cells])
    names = ["model", "method", "data set", "reason", "share", "low", "high", "items"]
    table.frame = pd.DataFrame(records, columns=names)
    return table


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
        caveat = (
            [f"{change.unpaired} items were answered by one stage only and are left out"] if change.unpaired else []
        )
        numbers = [TableCell(str(change.counts[kind]), numeric=True) for kind in KINDS]
        table.rows.append(
            [
                *text_row([change.model, change.first, change.strategy, data_set_title(change.data_set)]),
                TableCell(str(change.shared), numeric=True, footnotes=table.footnote(caveat)),
                *numbers,
            ]
        )
    table.frame = pd.DataFrame(
        {
            "model": change.model,
            "stage 1": change.first,
            "stage 2": change.strategy,
            "data set": data_set_title(change.data_set),
            "items": change.shared,
            "unpaired": change.unpaired,
            **change.counts,
        }
        for change in changes
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
        columns=("Model", "Method", "State", "Trained on", "Steps", "Epochs", "Loss", "Time", "Evaluated on", "Folder"),
    )
    records = []
    for run in runs:
        stage = run.stages[-1] if run.stages else None
        training = stage.training if stage else TrainingRecord()
        record = {
            "model": run.model,
            "method": run.label(),
            "state": "not trained"
            if stage is None
            else f"finished {stage.finished_at}"
            if stage.finished
            else "unfinished",
            "trained on": ", ".join(run.trained_on),
            "steps": stage.steps if stage else None,
            "epochs": training.epochs,
            "loss": training.train_loss,
            "seconds": training.seconds,
            "evaluated on": ", ".join(data_set_title(name) for name in run.evaluations),
            "folder": below_root(str(run.directory or ""), roots),
        }
        records.append(record)
        table.rows.append(
            [
                *text_row([run.model, run.label()]),
                TableCell(_state(stage), bold=stage is not None and not stage.finished),
                TableCell(str(record["trained on"])),
                TableCell(NOTHING if stage is None or stage.steps is None else f"{stage.steps:,}", numeric=True),
                TableCell(NOTHING if training.epochs is None else f"{training.epochs:.3g}", numeric=True),
                TableCell(NOTHING if training.train_loss is None else figure(training.train_loss), numeric=True),
                TableCell(NOTHING if training.seconds is None else _duration(training.seconds), numeric=True),
                TableCell(str(record["evaluated on"]) or NOTHING),
                TableCell(str(record["folder"])),
            ]
        )
    table.frame = pd.DataFrame(records)
    return table


def _state(stage: LoggedStage | None) -> str:
    if stage is None:
        return "not trained"
    if not stage.finished:
        return "unfinished"
    try:
        at = datetime.fromisoformat(stage.finished_at or "")
    except ValueError:
        return f"finished {stage.finished_at}"
    return f"finished {at:%Y-%m-%d %H:%M} {at.tzname() or ''}".rstrip()


def below_root(text: str, roots: Iterable[Path]) -> str:
    """A text with the output roots' paths cut down to their last part: what lies above them is nobody's business."""
    for root in sorted(roots, key=lambda root: len(str(root)), reverse=True):
        text = text.replace(f"{root}{os.sep}", f"{root.name}{os.sep}")
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
