"""The paper's figures from the user's own runs: loss curves (Figure 3), Acc differences (Figure 2), Acc against Fmt.

Every panel is a figure of its own, small enough for a phone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sftkey.datasets.registry import DATASETS
from sftkey.report.drawing import (
    INK,
    MARKERS,
    MUTED,
    STYLE,
    WIDTH,
    Panel,
    add_legend,
    color_of,
    finish,
    new_panel,
    printable,
    slug,
)
from sftkey.report.paper import AVERAGE
from sftkey.report.runs import Run, data_set_title, order_of
from sftkey.report.score_rows import Score, ScoreRow
from sftkey.report.scores import Scores

CURVE_TITLES = {
    "loss_answer": "Answer loss",
    "loss_thinking": "Thinking loss",
    "loss_format": "Format loss (tags and end of turn)",
    "acc_answer": "Answer-token accuracy",
}
_EVALUATION: dict[str, Any] = {
    "linestyle": ":", "linewidth": 1, "marker": "o", "markersize": 3.5, "markerfacecolor": "none"
}  # fmt: skip
_MAX_POINTS = 400
_LOG_SPAN = 20
"""Largest loss by smallest loss from which on a loss axis is logarithmic."""


def figures_of(runs: Iterable[Run], scores: Scores, more: Iterable[Panel] = ()) -> list[Panel]:
    """Draw every figure for which there is data; give these and `more` names of their own."""
    runs = list(runs)
    with mpl.rc_context(cast(Any, STYLE)):
        panels = [*_curves(runs), *_differences(scores), *_accuracy_and_format(scores), *more]
    taken: Counter[str] = Counter()
    for index, panel in enumerate(panels):
        taken[panel.name] += 1
        if taken[panel.name] > 1:  # two data sets of one title
            panels[index] = replace(panel, name=f"{panel.name}_{taken[panel.name]}")
    return panels


# ---- loss curves -----------------------------------------------------------------------------------------------------


def _curves(runs: Sequence[Run]) -> Iterator[Panel]:
    """One panel per model, training data and segment; both stages one after the other on the axis of examples seen."""
    logged = [run for run in runs if run.stages and len(run.stages[-1].log)]
    key = lambda run: (run.model, run.trained_on)  # noqa: E731
    columns = (*DATASETS, *sorted({name for run in logged for name in run.trained_on} - set(DATASETS)))
    logged.sort(key=lambda run: (run.model.lower(), run.model, [columns.index(name) for name in run.trained_on]))
    for (model, data), group in itertools.groupby(logged, key):
        group_runs = sorted(group, key=lambda run: (*order_of(run.strategy), run.variant))
        names = " + ".join(data_set_title(name) for name in data) or "unknown data"
        for metric, title in CURVE_TITLES.items():
            if not any((run.stages[-1].log["metric"] == metric).any() for run in group_runs):
                continue
            figure, axes = new_panel(f"{title}\n{printable(model)}, {printable(names)}")
            for run in group_runs:
                _draw_run(axes, run, metric)
            axes.set_xlabel("examples seen")
            axes.set_xlim(left=0)
            axes.set_ylabel("share of answer tokens" if metric == "acc_answer" else "nats per token")
            if metric != "acc_answer":
                _scale(axes, group_runs, metric)
            _name_evaluation_split(axes, group_runs, metric)
            add_legend(axes)
            yield finish(figure, f"{metric}_{slug(model)}_{slug(names)}", "curves", model, f"{title}: {model}, {names}")


def _scale(axes: Axes, runs: Sequence[Run], metric: str) -> None:
    """Make the axis logarithmic where losses span so much that the last differences would be a flat line."""
    logs = [run.stages[-1].log for run in runs]
    values = np.concatenate([log.loc[log["metric"] == metric, "value"].to_numpy(float) for log in logs])
    if values.min() > 0 and values.max() / values.min() > _LOG_SPAN:
        axes.set_yscale("log")
        axes.set_ylabel("nats per token (log scale)")
        steps = (1.0, 2.0, 5.0) if values.max() / values.min() < 200 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=steps))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _name_evaluation_split(axes: Axes, runs: Sequence[Run], metric: str) -> None:
    logs = [run.stages[-1].log for run in runs]
    if any(((log["metric"] == metric) & (log["split"] == "eval")).any() for log in logs):
        axes.plot([], [], color=MUTED[0], label="evaluation split", **_EVALUATION)


def _draw_run(axes: Axes, run: Run, metric: str) -> None:
    """Draw a run's last stage from where its earlier stages end; those are runs of their own."""
    stage = run.stages[-1]
    start = sum(earlier.examples for earlier in run.stages[:-1])
    color = color_of(run.strategy)
    log = stage.log[stage.log["metric"] == metric]
    label = run.label() + ("" if run.finished else " (unfinished)")
    train = log[log["split"] == "train"]
    if len(train):
        x = start + train["examples"].to_numpy(float)
        y = train["value"].to_numpy(float)
        if len(x) > _MAX_POINTS:
            x, y = _binned(x), _binned(y)
        (line,) = axes.plot(x, y, color=color, linewidth=1.6, label=printable(label))
        if not run.finished:
            line.set_linestyle((0, (4, 2)))
        _hand_over(axes, run, metric, x[0], y[0], start, color)
    held_out = log[log["split"] == "eval"]
    if len(held_out):
        axes.plot(
            start + held_out["examples"].to_numpy(float),
            held_out["value"].to_numpy(float),
            color=color,
            label=None if len(train) else printable(label),
            **_EVALUATION,
        )


def _hand_over(axes: Axes, run: Run, metric: str, x: float, y: float, start: float, color: str) -> None:
    """Draw a dotted line from the end of the stage before to the beginning of this one."""
    if len(run.stages) < 2:
        return
    axes.axvline(start, color=MUTED[0], linewidth=0.7, linestyle=(0, (2, 3)))
    earlier = run.stages[-2].log
    earlier = earlier[(earlier["metric"] == metric) & (earlier["split"] == "train")]
    if len(earlier):
        offset = start - run.stages[-2].examples
        last = earlier.iloc[-1]
        axes.plot(
            [offset + float(last["examples"]), x], [float(last["value"]), y], color=color, linewidth=1, linestyle=":"
        )


def _binned(values: np.ndarray) -> np.ndarray:
    """Thin a curve to the means of at most `_MAX_POINTS` equal stretches."""
    return np.array([part.mean() for part in np.array_split(values, _MAX_POINTS)])


# ---- accuracy differences --------------------------------------------------------------------------------------------


def _differences(scores: Scores) -> Iterator[Panel]:
    """Figure 2: accuracy differences to SFT-Tag, a box per model over its data sets, the last box over the models."""
    for strategy in ("Key-Tag", "SFTKey-Tag"):
        found = {model: _model_differences(scores, model, strategy) for model in scores.models}
        found = {model: points for model, points in found.items() if points}
        if not found:
            continue
        averages = [float(np.mean([value for value, _, _ in points])) for points in found.values()]
        boxes = [[value for value, _, _ in points] for points in found.values()]
        names = [printable(model) for model in found]
        if len(found) > 1:
            boxes.append(averages)
            names.append("Avg-Acc")
        title = f"Accuracy: {strategy} minus SFT-Tag"
        figure, axes = new_panel(title, width=max(WIDTH, 1.0 + 0.75 * len(boxes)))
        color = color_of(strategy)
        axes.axhline(0, color=MUTED[0], linewidth=0.8)
        axes.boxplot(
            boxes,
            widths=0.5,
            showfliers=False,
            boxprops={"color": color},
            whiskerprops={"color": color},
            capprops={"color": color},
            medianprops={"color": color, "linewidth": 2},
        )
        for position, points in enumerate(found.values(), 1):
            _scatter(axes, position, points)
        crowded = len(names) > 2 or max(map(len, names)) > 16
        axes.set_xticks(
            range(1, len(names) + 1), names, rotation=20 if crowded else 0, ha="right" if crowded else "center"
        )
        axes.grid(False, axis="x")
        axes.set_ylabel("difference of Acc, 95% interval")
        yield finish(
            figure, f"differences_{slug(strategy)}", "differences", "", f"{title}, by data set, with 95% intervals"
        )


def _model_differences(scores: Scores, model: str, strategy: str) -> list[tuple[float, float, float]]:
    """Difference, lower and upper end for each data set and variant, on the items that both answered."""
    rows = [row for row in scores.rows_of(model) if not row.transfer]
    points = []
    for second in (row for row in rows if row.strategy == strategy):
        candidates = [row for row in rows if row.strategy == "SFT-Tag"]
        same = [row for row in candidates if row.suffix == second.suffix] or candidates
        if len(same) != 1:
            continue
        found = [scores.comparison(same[0], second, name, "acc") for name in scores.data_sets]
        points += [(one.test.difference, one.test.interval.low, one.test.interval.high) for one in found if one]
    return points


def _scatter(axes: Axes, position: int, points: Sequence[tuple[float, float, float]]) -> None:
    offsets = np.linspace(-0.14, 0.14, len(points)) if len(points) > 1 else [0.0]
    for offset, (value, low, high) in zip(offsets, points, strict=True):
        x = position + float(offset)
        axes.plot([x, x], [low, high], color=MUTED[0], linewidth=1)
        axes.plot([x], [value], marker="o", markersize=4, color=INK[0], linestyle="none")


# ---- accuracy and format ---------------------------------------------------------------------------------------------


def _accuracy_and_format(scores: Scores) -> Iterator[Panel]:
    """Each strategy a point with its intervals, an arrow from Stage 1 to Stage 2."""
    for model in scores.models:
        for name in (*scores.data_sets, AVERAGE):
            if name == AVERAGE and len(scores.data_sets) < 2:
                continue
            rows = [row for row in scores.rows_of(model) if name in row.scores["acc"] and not row.transfer]
            if not rows:
                continue
            title = f"{printable(model)}, {printable(data_set_title(name))}"
            figure, axes = new_panel(title)
            for row in rows:
                _draw_point(axes, row, name)
            for row in rows:
                _draw_arrow(axes, row, rows, name)
            axes.set_xlabel("Fmt (share of outputs in format)")
            axes.set_ylabel("Acc (share of items right)")
            axes.margins(0.12)
            add_legend(axes)
            yield finish(
                figure,
                f"accuracy_format_{slug(model)}_{slug(name)}",
                "accuracy and format",
                model,
                f"Accuracy against format: {model}, {data_set_title(name)}",
            )


def _draw_point(axes: Axes, row: ScoreRow, name: str) -> None:
    x, y = row.scores["fmt"][name], row.scores["acc"][name]
    color = color_of(row.strategy)
    axes.errorbar(
        [x.value],
        [y.value],
        xerr=_error(x),
        yerr=_error(y),
        color=color,
        ecolor=color,
        elinewidth=1,
        marker=MARKERS.get(row.strategy, "v"),
        markersize=7,
        linestyle="none",
        label=printable(row.label),
    )


def _error(cell: Score) -> list[list[float]] | None:
    if cell.interval is None:
        return None
    return [[max(0.0, cell.value - cell.interval.low)], [max(0.0, cell.interval.high - cell.value)]]


def _draw_arrow(axes: Axes, row: ScoreRow, rows: Sequence[ScoreRow], name: str) -> None:
    first = {"SFTKey-Tag": "SFT-Tag", "SFTKey": "SFT"}.get(row.strategy)
    starts = [one for one in rows if one.strategy == first and one.suffix == row.suffix]
    if len(starts) != 1:
        return
    axes.annotate(
        "",
        xy=(row.scores["fmt"][name].value, row.scores["acc"][name].value),
        xytext=(starts[0].scores["fmt"][name].value, starts[0].scores["acc"][name].value),
        arrowprops={"arrowstyle": "-|>", "color": color_of(row.strategy), "linewidth": 1.4, "shrinkA": 6, "shrinkB": 6},
    )
