"""The report as one HTML file: opens offline, loads nothing, runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from sftkey.evaluation.statistics import RESAMPLES
from sftkey.format.methods import STRATEGIES, strategy_of
from sftkey.report.changes import KINDS, Change, for_page
from sftkey.report.collect import Collection
from sftkey.report.drawing import Panel, style_variables
from sftkey.report.paper import AVERAGE
from sftkey.report.runs import BASE, Run, data_set_title
from sftkey.report.score_rows import ScoreRow
from sftkey.report.score_tables import METRIC_TITLES
from sftkey.report.scores import Scores
from sftkey.report.summary import below_root
from sftkey.report.tables import Table, figure, signed
from sftkey.util.text import one_line
from sftkey.util.version import __version__

_GROUPS = (
    (
        "curves",
        "Loss per segment",
        "Loss of each segment, as trained (lines) and on the evaluation split (points), over the examples seen; a "
        "second stage begins where its first one ended (dotted). A loss axis is logarithmic where the losses span much. "
        "The log holds means over steps, not items, so these curves have no intervals. Compare Figure 3 of the paper.",
    ),
    (
        "differences",
        "Accuracy differences",
        "Each point a data set (and run) with its 95% interval, each box a model; with several models the last box is "
        "over their averages. Compare Figure 2 of the paper.",
    ),
    (
        "accuracy and format",
        "Accuracy against format",
        "Each strategy a point with its 95% intervals; the arrow goes from Stage 1 to Stage 2.",
    ),
)


def render_page(
    collection: Collection,
    runs: Sequence[Run],
    scores: Scores,
    changes: Sequence[Change],
    panels: Sequence[Panel],
    tables: dict[str, Table],
    made: datetime,
    refresh: int = 0,
) -> str:
    """Write the page.

    Args:
        collection: What was found, with its ledger.
        runs: All runs.
        scores: All figures.
        changes: What changed between the stages.
        panels: The figures, drawn.
        tables: The tables by name.
        made: When the report was made.
        refresh: Seconds after which the page reloads itself; 0 for never.
    """
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    items, included = for_page(changes)
    change_heads = [
        {
            "model": change.model,
            "title": data_set_title(change.data_set),
            "first": change.first,
            "strategy": change.strategy,
            "included": count,
            "total": len(change.items),
        }
        for change, count in zip(changes, included, strict=True)
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.clear()
    environment.finalize = _printable
    template = environment.from_string(_resource("page.html.jinja"))
    groups = [(title, text, _by_model(one for one in panels if one.kind == kind)) for kind, title, text in _GROUPS]
    return template.render(
        style=_markup(f":root{{{style_variables()}}}\n" + _resource("page.css")),
        script=_markup(script),
        script_hash=f"sha256-{digest}",
        refresh=refresh,
        roots=[root.name or str(root) for root in collection.roots],
        made=made.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        used=[file for file in collection.ledger.files if file.skipped is None],
        skipped=collection.ledger.skipped,
        notes=collection.ledger.notes,
        below_root=lambda text: below_root(str(text), collection.roots),
        finished=sum(stage.finished for stage in collection.stages.values()),
        unfinished=sum(not stage.finished for stage in collection.stages.values()),
        evaluations=sum(len(run.evaluations) for run in runs),
        cards=_cards(scores),
        scores=[tables[metric] for metric in METRIC_TITLES] if scores.data_sets else [],
        failures=tables["format_failures"],
        judge=tables.get("judge"),
        groups=[group for group in groups if group[2]],
        change_table=tables["changes"],
        changes=change_heads,
        changes_json=_markup(_json_for_html({"changes": change_heads, "items": items})),
        kinds=list(KINDS),
        tests=tables["comparisons"],
        runs=tables["runs"],
        version=__version__,
        resamples=f"{RESAMPLES:,}",
    )


def _by_model(panels: Iterable[Panel]) -> dict[str, list[Panel]]:
    found: dict[str, list[Panel]] = {}
    for panel in panels:
        found.setdefault(panel.model, []).append(panel)
    return found


def _resource(name: str) -> str:
    return files("sftkey.report").joinpath(name).read_text(encoding="utf-8")


def _printable(value: Any) -> Any:
    """Every text on the page is shown on one line; what is markup is ours."""
    return one_line(value) if type(value) is str else value


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _json_for_html(value: Any) -> str:
    """JSON that can stand in a ``<script>`` element whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _first_stage(scores: Scores, row: ScoreRow) -> ScoreRow | None:
    """The row of the strategy that is a two-stage strategy's first stage."""
    stages = STRATEGIES[row.strategy].stages if row.strategy in STRATEGIES else ()
    first = strategy_of([stages[0].name]) if len(stages) > 1 else None
    found = [one for one in scores.rows_of(row.model) if one.suffix == row.suffix and not one.transfer]
    return next((one for one in found if one.strategy == first), None)


def _cards(scores: Scores) -> list[dict[str, Any]]:
    """For each model the strategy with the highest Score, of those that can be compared."""
    cards = []
    for model in scores.models:
        names = [AVERAGE] if len(scores.data_sets) > 1 else list(scores.data_sets)
        found = [
            (row, row.scores["score"][name])
            for row in scores.rows_of(model)
            for name in names
            if row.strategy != BASE and name in row.scores["score"] and not row.scores["score"][name].caveats
        ]
        if len(found) < 2:
            continue
        row, cell = max(found, key=lambda pair: pair[1].value)
        name = names[0]
        lines = []
        if cell.interval is not None:
            lines.append(f"95% interval {cell.interval.low:.3f} to {cell.interval.high:.3f}")
        baseline, before = scores.baseline(row), _first_stage(scores, row)
        for other in (baseline, before if before is not baseline else None):
            comparison = scores.comparison(other, row, name, "score") if other else None
            if other is not None and comparison is not None:
                verdict = "significant" if comparison.significant else "not significant"
                lines.append(f"{signed(comparison.test.difference)} to {other.label}, {verdict}")
        left_out = [
            one.label
            for one in scores.rows_of(model)
            if one.strategy != BASE and all(one is not other for other, _ in found)
        ]
        if left_out:
            lines.append(f"not ranked, see the table's footnotes: {'; '.join(left_out)}")
        what = "average Score" if name == AVERAGE else f"Score on {data_set_title(name)}"
        cards.append({"model": model, "value": figure(cell.value), "strategy": row.label, "what": what, "lines": lines})
    return cards
