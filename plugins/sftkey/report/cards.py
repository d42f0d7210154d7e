"""The first thing on the page: for each model which strategy is ahead, and of what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sftkey.format.methods import STRATEGIES, strategy_of
from sftkey.report.comparisons import Comparison
from sftkey.report.paper import AVERAGE
from sftkey.report.runs import BASE, data_set_title
from sftkey.report.score_rows import Score, ScoreRow, leaders
from sftkey.report.scores import Scores
from sftkey.report.tables import figure, signed


def cards(scores: Scores) -> list[dict[str, Any]]:
    """For each model what is highest in Score, of the strategies that can be compared; a tie has no winner."""
    found = []
    for model in scores.models:
        name = AVERAGE if len(scores.data_sets) > 1 else next(iter(scores.data_sets), AVERAGE)
        trained = [row for row in scores.rows_of(model) if row.strategy != BASE]
        ranked = [
            (row, row.scores["score"][name])
            for row in trained
            if name in row.scores["score"] and not row.scores["score"][name].caveats
        ]
        if len(ranked) > 1:
            found.append({"model": model, **_card(scores, ranked, trained, name)})
    return found


def _card(
    scores: Scores, ranked: Sequence[tuple[ScoreRow, Score]], trained: Sequence[ScoreRow], name: str
) -> dict[str, Any]:
    what = "average Score" if name == AVERAGE else f"Score on {data_set_title(name)}"
    ahead = leaders(ranked)
    highest = max(score.value for _, score in ranked)
    lines, clear = [], False
    if not ahead:
        names, says = f"No strategy is ahead: all {len(ranked)}", f"have this {what}"
    elif len(ahead) > 1:
        names, says = " and ".join(row.label for row, _ in ahead), f"tie for the highest {what}"
    else:
        (row, score), says = ahead[0], f"has the highest {what}"
        names = row.label
        if score.interval is not None:
            lines.append(f"95% interval {score.interval.low:.3f} to {score.interval.high:.3f}")
        second = max((pair for pair in ranked if pair[0] is not row), key=lambda pair: pair[1].value)[0]
        others = dict.fromkeys(other.label for other in (second, *_compared_with(scores, row)))
        for other in (other for other in scores.rows_of(row.model) if other.label in others):
            comparison = scores.comparison(other, row, name, "score")
            if comparison is not None:
                lines.append(_line(comparison))
                clear = clear or (other is second and comparison.significant)
        lines += _without_control(scores, row)
    left_out = [row.label for row in trained if all(row is not other for other, _ in ranked)]
    if left_out:
        lines.append(f"not ranked, see the table's footnotes: {'; '.join(left_out)}")
    return {"value": figure(highest), "strategy": names, "says": says, "ahead": clear, "lines": lines}


def _line(comparison: Comparison) -> str:
    verdict = "significant" if comparison.significant else "not significant"
    return f"{signed(comparison.test.difference)} to {comparison.first}, {verdict}"


def _compared_with(scores: Scores, row: ScoreRow) -> Iterator[ScoreRow]:
    """SFT, the strategy that is its first stage, and its control, as far as they are there."""
    baseline = scores.baseline(row)
    if baseline is not None:
        yield baseline
    wanted = {_first_stage(row), control_of(row.strategy)} - {None}
    yield from (one for one in _own(scores, row) if one.strategy in wanted)


def _own(scores: Scores, row: ScoreRow) -> list[ScoreRow]:
    return [one for one in scores.rows_of(row.model) if one.suffix == row.suffix and one.transfer == row.transfer]


def _first_stage(row: ScoreRow) -> str | None:
    stages = STRATEGIES[row.strategy].stages if row.strategy in STRATEGIES else ()
    return strategy_of([stages[0].name]) if len(stages) > 1 else None


def control_of(strategy: str) -> str | None:
    """The control of a two-stage strategy: its first stage's method in the second, too."""
    stages = STRATEGIES[strategy].stages if strategy in STRATEGIES else ()
    return strategy_of([stages[0].name] * len(stages)) if len(stages) > 1 else None


def _without_control(scores: Scores, row: ScoreRow) -> list[str]:
    control = control_of(row.strategy)
    if control is None or any(one.strategy == control for one in _own(scores, row)):
        return []
    return [f"no control here ({control}): as much further training of Stage 1's kind may gain as much"]
