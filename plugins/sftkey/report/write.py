"""Make the report: read, compute, and write every file of it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sftkey.report.against import against_table
from sftkey.report.calibration import calibration_panels, calibration_tables, calibrations
from sftkey.report.changes import all_items, changes_of
from sftkey.report.collect import Collection, collect, input_files
from sftkey.report.figures import figures_of
from sftkey.report.judge_table import judge_tables
from sftkey.report.outcomes import FILE, Outcomes, as_lines, outcomes_of, read_old
from sftkey.report.output_tables import decomposition_table, output_table
from sftkey.report.page import render_page
from sftkey.report.run_settings import label_single_seeds, seed_tables, settings_table
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


def write_report(roots: Sequence[Path], output: Path, refresh: int = 0, against: Path | None = None) -> Written:
    """Write ``index.html``, ``tables/``, ``figures/``, ``changes.jsonl`` and ``outcomes.jsonl``.

    Args:
        roots: Output roots, searched at any depth.
        output: The folder to write to; made where it is missing. Files of an earlier report are replaced, each in one
            step.
        refresh: Seconds after which the page reloads itself; 0 for never.
        against: An earlier report's folder, or an output root, to compare with.

    Returns:
        The page and what it was made from.

    Raises:
        OSError: The folder can't be written to.
        UserError: There is nothing to compare with in `against`.
    """
    return _write(roots, output, refresh, _read(against))


def _read(against: Path | None) -> tuple[str, list[Outcomes]] | None:
    """An earlier report with its name; before anything is written, as it may be the one that is written again."""
    return None if against is None else (against.resolve().name, read_old(against))


def _write(roots: Sequence[Path], output: Path, refresh: int, old: tuple[str, list[Outcomes]] | None) -> Written:
    collection = collect(roots)
    runs = runs_of(collection)
    scores = scores_of(runs)
    outcomes = outcomes_of(scores)
    changes = changes_of(runs)
    calibrated = calibrations(scores)
    panels = figures_of(runs, scores, calibration_panels(calibrated))
    if missing := "".join(sorted({character for panel in panels for character in panel.missing})):
        collection.ledger.note(
            f"No font on this machine has the characters {missing}: figures saved as PNG show boxes for them, those saved "
            "as SVG and this page show them."
        )
    tables = {
        table.name: table
        for table in (
            *score_tables(scores),
            comparison_table(scores),
            decomposition_table(scores),
            output_table(scores),
            failure_table(scores),
            *judge_tables(scores),
            *calibration_tables(calibrated),
            *seed_tables(runs),
            change_table(changes),
            *([] if old is None else [against_table(outcomes, old[1], old[0])]),
            run_table(runs, collection.roots),
            settings_table(runs),
        )
    }
    label_single_seeds((table for name, table in tables.items() if name not in ("runs", "settings")), runs)
    # The same in every writing of a report, another one in each report.
    label = f"-{hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:6]}"
    for table in tables.values():
        for ending, text in (("md", to_markdown(table)), ("csv", to_csv(table)), ("tex", to_latex(table, label))):
            write_text_atomically(output / "tables" / f"{table.name}.{ending}", text)
    for panel in panels:
        write_bytes_atomically(output / "figures" / f"{panel.name}.png", [panel.png])
        write_text_atomically(output / "figures" / f"{panel.name}.svg", panel.svg)
    lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in all_items(changes))
    write_text_atomically(output / "changes.jsonl", lines)
    write_text_atomically(output / FILE, as_lines(outcomes))
    page = render_page(collection, runs, scores, changes, panels, tables, datetime.now(UTC), refresh)
    write_text_atomically(output / PAGE, page)
    return Written(output / PAGE, collection)


def watch(
    roots: Sequence[Path],
    output: Path,
    seconds: int,
    written: Callable[[Written], None],
    sleep: Callable[[float], None] = time.sleep,
    against: Path | None = None,
) -> None:
    """Write the report, and write it again whenever a file that it is made from has changed. Ends with Ctrl-C.

    Args:
        roots: Output roots.
        output: The folder to write to.
        seconds: How often to look; the page reloads itself as often.
        written: Called after each writing.
        sleep: Waits; may raise `KeyboardInterrupt`.
        against: As for `write_report`.
    """
    old = _read(against)
    seen: dict[Path, tuple[int, int]] | None = None
    while True:
        now = input_files(roots)
        if now != seen:
            written(_write(roots, output, seconds, old))
            seen = now
        sleep(seconds)
