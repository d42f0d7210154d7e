"""``sftkey report``: tables and figures of any number of runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from sftkey.cli.console import echo, is_quiet, progress


@click.command("report")
@click.argument(
    "output_roots",
    metavar="OUTPUT_ROOT...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sftkey_report"),
    show_default=True,
    help="Where to write index.html, tables/, figures/, changes.jsonl and outcomes.jsonl.",
)
@click.option(
    "--watch", is_flag=True, help="Write the report again whenever a file under OUTPUT_ROOT changes (Ctrl-C ends)."
)
@click.option(
    "--interval",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
@click.option(
    "--against",
    metavar="OLD",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Compare with an earlier report (its folder) or another output root: what changed, tested on the same items.",
)
def report_command(
    output_roots: tuple[Path, ...], output: Path, watch: bool, interval: int, against: Path | None
) -> None:
    """Tables and figures of all runs under OUTPUT_ROOT, as one page that opens offline.

    Reads the completion markers and training logs of the stages and what lm_eval wrote about them (with --log_samples
    for intervals, tests and the comparison of single items), at any depth.
    """
    from sftkey.report.write import Written, write_report
    from sftkey.report.write import watch as watch_roots

    def say(written: Written) -> None:
        ledger = written.collection.ledger
        for file in () if is_quiet() else ledger.skipped:
            echo(f"skipped {file.path}: {file.skipped}", err=True)
        used = len(ledger.files) - len(ledger.skipped)
        echo(f"{written.page} (from {used} files, skipped: {len(ledger.skipped)}, notes: {len(ledger.notes)})")

    progress(f"reading {', '.join(map(str, output_roots))}")
    try:
        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                watch_roots(output_roots, output, interval, say, against=against)
            return
        written = write_report(output_roots, output, against=against)
    except OSError as error:
        raise click.ClickException(f"can't write to {output}: {error}") from error
    say(written)
    if written.empty:
        roots = ", ".join(map(str, output_roots))
        raise click.ClickException(f"no completion marker, training log or results of lm_eval under {roots}")
