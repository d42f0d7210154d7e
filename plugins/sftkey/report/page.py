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
from sftkey.report.cards import cards
from sftkey.report.changes import KINDS, Change, for_page
from sftkey.report.collect import Collection
from sftkey.report.drawing import Panel, style_variables
from sftkey.report.runs import Run, data_set_title
from sftkey.report.samples import sample_blocks
from sftkey.report.score_tables import METRIC_TITLES
from sftkey.report.scores import Scores
from sftkey.report.summary import below_root
from sftkey.report.tables import Table
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
    (
        "calibration",
        "Reliability",
        "Share of right answers by the probability that the model gave its answer, in ten bins; dotted where both are equal.",
    ),
)


_DETAILS = ("seeds", "decomposition", "outputs", "judge", "format_failures", "calibration")
"""The tables below those of Score, Acc and Fmt."""


def _has_figures(table: Table) -> bool:
    return bool(table.rows) and len(table.columns) > 3  # columns that name the row


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
    parts = "\n".join(map(_resource, ("page.js", "changes.js", "samples.js")))
    script = f'"use strict";\n(function () {{\n{parts}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    items, included = for_page(changes)
    blocks, limit = sample_blocks(scores)
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
        cards=cards(scores),
        scores=[tables[metric] for metric in METRIC_TITLES] if scores.data_sets else [],
        details=[tables[name] for name in _DETAILS if name in tables and _has_figures(tables[name])],
        groups=[group for group in groups if group[2]],
        change_table=tables["changes"],
        changes=change_heads,
        changes_json=_markup(_json_for_html({"changes": change_heads, "items": items})),
        kinds=list(KINDS),
        blocks=blocks,
        text_limit=limit,
        against=tables.get("against"),
        tests=tables["comparisons"],
        runs=[table for table in (tables["runs"], tables["settings"]) if table.rows],
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
