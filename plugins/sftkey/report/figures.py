"""The paper's figures from the user's own runs: loss curves (Figure 3), Acc differences (Figure 2), Acc against Fmt.

Every panel is a figure of its own, small enough for a phone. On the page its colours are variables of the style sheet,
so that it follows the light or dark theme; in the files beside the page they are those of the light theme.
"""

from __future__ import annotations

import io
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sftkey.datasets.registry import DATASETS
from sftkey.report.paper import AVERAGE
from sftkey.report.runs import BASE, Run, data_set_title, order_of
from sftkey.report.score_rows import Score, ScoreRow
from sftkey.report.scores import Scores

COLORS: Mapping[str, tuple[str, str]] = {
    # strategy -> colour on a light and on a dark page
    "SFT": ("#64748b", "#94a3b8"),
    "SFT-Tag": ("#2563eb", "#60a5fa"),
    "Key-Tag": ("#c2410c", "#fb923c"),
    "SFTKey-Tag": ("#047857", "#34d399"),
    "SFTKey": ("#7e22ce", "#c084fc"),
    "other": ("#a16207", "#facc15"),
    BASE: ("#57534e", "#d6d3d1"),
}
INK, MUTED, GRID = ("#1f2933", "#e6e9ee"), ("#5b6775", "#a3adba"), ("#e3e7ec", "#323a46")

_MARKERS = {"SFT": "o", "SFT-Tag": "s", "Key-Tag": "^", "SFTKey-Tag": "D", "SFTKey": "P", BASE: "X"}
_STYLE: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK[0],
    "text.parse_math": False,  # a $ in a name is a $
    "axes.edgecolor": MUTED[0],
    "axes.labelcolor": INK[0],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID[0],
    "grid.linewidth": 0.8,
    "xtick.color": MUTED[0],
    "ytick.color": MUTED[0],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "sftkey",
}
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
WIDTH, HEIGHT = 3.8, 3.1


@dataclass(frozen=True)
class Panel:
    """One figure.

    Attributes:
        name: File name without ending.
        kind: Which group of the page it belongs to: ``curves``, ``differences``, ``accuracy and format``.
        model: The model that it is about; empty where it is about all.
        title: What it shows, for the page and for readers who don't see it.
        png: The figure as PNG.
        svg: The figure as SVG, in the colours of the light theme.
        inline: The figure as an ``<svg>`` element for the page.
    """

    name: str
    kind: str
    model: str
    title: str
    png: bytes
    svg: str
    inline: str


def figures_of(runs: Iterable[Run], scores: Scores) -> list[Panel]:
    """Draw every figure for which there is data."""
    runs = list(runs)
    with mpl.rc_context(cast(Any, _STYLE)):
        return [*_curves(runs), *_differences(scores), *_accuracy_and_format(scores)]


def color_of(strategy: str) -> str:
    """The colour of a strategy on a light page."""
    return COLORS.get(strategy, COLORS["other"])[0]


def style_variables() -> str:
    """The style sheet's variables that the inline figures use, each with its light and its dark colour."""
    return "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in _variables().items())


def _variables() -> dict[str, tuple[str, str]]:
    series = {f"s-{_slug(name)}": colors for name, colors in COLORS.items()}
    return {"ink": INK, "muted": MUTED, "grid": GRID, **series}


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
            figure, axes = _panel(f"{title}\n{_label(model)}, {_label(names)}")
            for run in group_runs:
                _draw_run(axes, run, metric)
            axes.set_xlabel("examples seen")
            axes.set_xlim(left=0)
            axes.set_ylabel("share of answer tokens" if metric == "acc_answer" else "nats per token")
            if metric != "acc_answer":
                _scale(axes, group_runs, metric)
            _name_evaluation_split(axes, group_runs, metric)
            _legend(axes)
            yield _finish(
                figure, f"{metric}_{_slug(model)}_{_slug(names)}", "curves", model, f"{title}: {model}, {names}"
            )


def _scale(axes: Axes, runs: Sequence[Run], metric: str) -> None:
    """A logarithmic axis where losses span so much that the methods' last differences would be a flat line."""
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
    """A run's last stage where its earlier stages end; those are runs of their own, and drawn as such."""
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
        (line,) = axes.plot(x, y, color=color, linewidth=1.6, label=_label(label))
        if not run.finished:
            line.set_linestyle((0, (4, 2)))
        _hand_over(axes, run, metric, x[0], y[0], start, color)
    held_out = log[log["split"] == "eval"]
    if len(held_out):
        axes.plot(
            start + held_out["examples"].to_numpy(float),
            held_out["value"].to_numpy(float),
            color=color,
            label=None if len(train) else _label(label),
            **_EVALUATION,
        )


def _hand_over(axes: Axes, run: Run, metric: str, x: float, y: float, start: float, color: str) -> None:
    """A dotted line from the end of the stage before to the beginning of this one."""
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
    """Means of equal stretches, at most `_MAX_POINTS` of them: what the eye would make of a longer curve."""
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
        names = [_label(model) for model in found]
        if len(found) > 1:
            boxes.append(averages)
            names.append("Avg-Acc")
        title = f"Accuracy: {strategy} minus SFT-Tag"
        figure, axes = _panel(title, width=max(WIDTH, 1.0 + 0.75 * len(boxes)))
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
        yield _finish(
            figure, f"differences_{_slug(strategy)}", "differences", "", f"{title}, by data set, with 95% intervals"
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
    """Each method a point with its intervals, an arrow from Stage 1 to Stage 2."""
    for model in scores.models:
        for name in (*scores.data_sets, AVERAGE):
            if name == AVERAGE and len(scores.data_sets) < 2:
                continue
            rows = [row for row in scores.rows_of(model) if name in row.scores["acc"] and not row.transfer]
            if not rows:
                continue
            title = f"{_label(model)}, {_label(data_set_title(name))}"
            figure, axes = _panel(title)
            for row in rows:
                _draw_point(axes, row, name)
            for row in rows:
                _draw_arrow(axes, row, rows, name)
            axes.set_xlabel("Fmt (share of outputs in format)")
            axes.set_ylabel("Acc (share of items right)")
            axes.margins(0.12)
            _legend(axes)
            yield _finish(
                figure,
                f"accuracy_format_{_slug(model)}_{_slug(name)}",
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
        marker=_MARKERS.get(row.strategy, "v"),
        markersize=7,
        linestyle="none",
        label=_label(row.label),
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


# ---- drawing and saving ----------------------------------------------------------------------------------------------


def _panel(title: str, width: float = WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _legend(axes: Axes) -> None:
    figure = axes.figure
    handles, labels = axes.get_legend_handles_labels()
    if handles and isinstance(figure, Figure):
        columns = len(labels) if sum(map(len, labels)) <= 36 else 2 if max(map(len, labels)) <= 24 else 1
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            handlelength=1.3,
            labelspacing=0.3,
            columnspacing=1,
        )


def _finish(figure: Figure, name: str, kind: str, model: str, title: str) -> Panel:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not again for every format
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    text = svg.getvalue()
    return Panel(name, kind, model, title, png.getvalue(), text, _inline(text, name))


def _inline(svg: str, name: str) -> str:
    """An ``<svg>`` element for the page: it scales, its ids are its own, its colours are the page's variables."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", element)
    element = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", element)
    prefix = f"{name}-"
    element = re.sub(r'\bid="', f'id="{prefix}', element)
    element = re.sub(r"url\(#", f"url(#{prefix}", element)
    element = re.sub(r'xlink:href="#', f'href="#{prefix}', element)
    for variable, (light, _) in _variables().items():
        element = element.replace(f": {light}", f": var(--{variable})")
    return element.replace("<svg", '<svg aria-hidden="true"', 1)


def _label(text: str) -> str:
    """A name as it may stand in a figure: printable, one line, of bounded length."""
    printable = "".join(c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in " ".join(text.split()))
    return printable if len(printable) <= 60 else printable[:57] + "..."


def _slug(text: str) -> str:
    """A name as it may stand in a file name, an id and a variable of a style sheet."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "x"
