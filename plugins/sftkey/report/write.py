"""Make the report: read, compute, and write every file of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sftkey.report.changes import all_items, changes_of
from sftkey.report.collect import Collection, collect, input_files
from sftkey.report.figures import figures_of
from sftkey.report.judge_table import judge_tables
from sftkey.report.page import render_page
from sftkey.report.runs import runs_of
from sftkey.report.score_tables import score_tables
from sftkey.report.scores import scores_of
from sftkey.report.summary import change_table, comparison_table, failure_table, run_table
from sftkey.report.tables import to_csv, to_latex, to_markdown
from sftkey.util.files import write_bytes_atomically, write_text_atomically

PAGE = "index.html"


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        page: The page.
        collection: What it was made from.
    """

    page: Path
    collection: Collection

    @property
    def empty(self) -> bool:
        """Whether nothing was found to report on."""
        return not self.collection.stages and not self.collection.evaluations


def write_report(roots: Sequence[Path], output: Path, refresh: int = 0) -> Written:
    """Write ``index.html``, ``tables/``, ``figures/`` and ``changes.jsonl``.

    Args:
        roots: Output roots, searched at any depth.
        output: The folder to write to; made where it is missing. Files of an earlier report are replaced, each in one
            step.
        refresh: Seconds after which the page reloads itself; 0 for never.

    Returns:
        The page and what it was made from.

    Raises:
        OSError: The folder can't be written to.
    """
    collection = collect(roots)
    runs = runs_of(collection)
    scores = scores_of(runs)
    changes = changes_of(runs)
    panels = figures_of(runs, scores)
    tables = {
        table.name: table
        for table in (
            *score_tables(scores),
            comparison_table(scores),
            failure_table(scores),
            *judge_tables(scores),
            change_table(changes),
            run_table(runs, collection.roots),
        )
    }
    for table in tables.values():
        for ending, render in (("md", to_markdown), ("csv", to_csv), ("tex", to_latex)):
            write_text_atomically(output / "tables" / f"{table.name}.{ending}", render(table))
    for panel in panels:
        write_bytes_atomically(output / "figures" / f"{panel.name}.png", [panel.png])
        write_text_atomically(output / "figures" / f"{panel.name}.svg", panel.svg)
    lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in all_items(changes))
    write_text_atomically(output / "changes.jsonl", lines)
    page = render_page(collection, runs, scores, changes, panels, tables, datetime.now(UTC), refresh)
    write_text_atomically(output / PAGE, page)
    return Written(output / PAGE, collection)


def watch(
    roots: Sequence[Path],
    output: Path,
    seconds: int,
    written: Callable[[Written], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the report, and write it again whenever a file that it is made from has changed. Ends with Ctrl-C.

    Args:
        roots: Output roots.
        output: The folder to write to.
        seconds: How often to look; the page reloads itself as often.
        written: Called after each writing.
        sleep: Waits; may raise `KeyboardInterrupt`.
    """
    seen: dict[Path, tuple[int, int]] | None = None
    while True:
        now = input_files(roots)
        if now != seen:
            written(write_report(roots, output, refresh=seconds))
            seen = now
        sleep(seconds)
