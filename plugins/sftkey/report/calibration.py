"""How well the probability of the answer says whether it is right: reliability curves, expected calibration error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np

from sftkey.evaluation.statistics import CONFIDENCE, Interval, Values
from sftkey.report.drawing import MUTED, STYLE, Panel, add_legend, color_of, finish, new_panel, printable, slug
from sftkey.report.runs import data_set_title
from sftkey.report.score_rows import ScoreRow
from sftkey.report.scores import Scores
from sftkey.report.tables import Table, ends, figure, interval_line, number, texts

BINS = 10
_RESAMPLES = 1_000


@dataclass(frozen=True)
class Calibration:
    """The answers of one evaluation whose probability is logged.

    Attributes:
        row: The row of the tables.
        data_set: The data set.
        probability: Of each answer.
        right: 1 or 0 for each.
        items: How many items the evaluation has.
    """

    row: ScoreRow
    data_set: str
    probability: Values
    right: Values
    items: int


def bins_of(probability: Values, right: Values) -> list[tuple[float, float, int]]:
    """Mean probability, share of right answers and number of each bin of equal width that holds an answer."""
    places = np.minimum((probability * BINS).astype(int), BINS - 1)
    chosen = [(probability[places == place], right[places == place]) for place in np.unique(places)]
    return [(float(inside.mean()), float(correct.mean()), len(inside)) for inside, correct in chosen]


def expected_error(probability: Values, right: Values) -> float:
    """The expected calibration error: the mean distance of probability and share of right answers, bins by size."""
    return sum(abs(mean - share) * count for mean, share, count in bins_of(probability, right)) / len(right)


def calibrations(scores: Scores) -> list[Calibration]:
    """Every evaluation in the tables with logged probabilities."""
    found = []
    for row, name in ((row, name) for row in scores.rows for name in scores.data_sets):
        items = row.evaluations[name].items if name in row.evaluations else None
        if items is None:
            continue
        logged = items[items["answer_probability"].notna()]
        if len(logged):
            probability, right = (logged[column].to_numpy(float) for column in ("answer_probability", "acc"))
            found.append(Calibration(row, name, probability, right, len(items)))
    return found


def calibration_tables(found: list[Calibration]) -> list[Table]:
    """The table; none without logged probabilities."""
    table = Table(
        name="calibration",
        title="Calibration of the answer",
        caption=(
            "Probability: of the answer's tokens, given the prompt and what the model wrote before them (sftkey calibrate). "
            f"ECE: the expected calibration error over {BINS} bins of equal width, with its 95% bootstrap interval; both "
            "are too high with few items. Brier: mean squared distance of probability and outcome. Training on answers alone "
            "may make a model sure of wrong ones: compare the stages."
        ),
        columns=("Model", "Strategy", "Data set", "Answers", "Acc of these", "Mean probability", "ECE", "Brier"),
    )
    for one in found:
        ece = expected_error(one.probability, one.right)
        interval = _interval(one, ece)
        left = one.items - len(one.right)
        notes = [f"{left} of {one.items} items have no answer in their format, or one that is too long"] if left else []
        table.add(
            [
                *texts({"model": one.row.model, "method": one.row.label, "data set": data_set_title(one.data_set)}),
                number({"answers": len(one.right)}, "{:,}".format, footnotes=table.footnote(notes)),
                number({"acc": float(one.right.mean())}, figure),
                number({"probability": float(one.probability.mean())}, figure),
                number({"ece": ece, **ends(interval)}, figure, details=(interval_line(interval),)),
                number({"brier": float(np.mean((one.probability - one.right) ** 2))}, figure),
            ],
            grouped=True,
        )
    return [table] if table.rows else []


def _interval(one: Calibration, ece: float) -> Interval:
    """Percentiles of resamples, which are less well calibrated than the sample; widened to hold the figure itself."""
    generator = np.random.default_rng(len(one.right))
    drawn = (generator.integers(0, len(one.right), len(one.right)) for _ in range(_RESAMPLES))
    errors = [expected_error(one.probability[chosen], one.right[chosen]) for chosen in drawn]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(errors, [tail, 100 - tail])
    return Interval(min(float(low), ece), max(float(high), ece))


def calibration_panels(found: list[Calibration]) -> Iterator[Panel]:
    """A reliability curve of each strategy, a panel for each model and data set."""
    for model, name in dict.fromkeys((one.row.model, one.data_set) for one in found):
        with mpl.rc_context(cast(Any, STYLE)):
            title = f"{model}, {data_set_title(name)}"
            panel, axes = new_panel(f"Reliability of the answer\n{printable(title)}")
            axes.plot([0, 1], [0, 1], color=MUTED[0], linewidth=0.8, linestyle=(0, (2, 3)))
            for one in (one for one in found if (one.row.model, one.data_set) == (model, name)):
                x, y, _ = zip(*bins_of(one.probability, one.right), strict=True)
                color = color_of(one.row.strategy)
                axes.plot(x, y, color=color, marker="o", markersize=4, linewidth=1.4, label=printable(one.row.label))
            axes.set_xlabel("probability of the answer")
            axes.set_ylabel("share of right answers")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
            add_legend(axes)
            kind, file = "calibration", f"calibration_{slug(model)}_{slug(data_set_title(name))}"
            yield finish(panel, file, kind, model, f"Reliability of the answer: {title}")
