"""``sftkey judge``: the judge's verdicts for the logged samples of an earlier evaluation."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sftkey.cli.console import echo, json_option, print_json, print_table, records, start_logging
from sftkey.evaluation.judge.later import NotJudgeable, TaskJudgement, TaskPlan, plan, rejudge
from sftkey.evaluation.judge.settings import JudgeMode, JudgeSettings
from sftkey.stages.evaluate import update_cards
from sftkey.util.text import Cell, table


@click.command()
@click.argument("results_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--mode",
    type=click.Choice([JudgeMode.FALLBACK.value, JudgeMode.ALWAYS.value]),
    help="Ask about what the rules can't settle, or about everything. [default: SFTKEY_JUDGE_MODE, or fallback]",
)
@click.option("--dry-run", is_flag=True, help="Show how many items would be asked, and stop.")
@json_option
def judge_command(results_dir: Path, mode: str | None, dry_run: bool, as_json: bool) -> None:
    """Add an LLM judge's verdicts to the logged samples of an evaluation.

    RESULTS_DIR is what was given to `lm_eval --log_samples --output_path`. Samples and results are replaced by what
    judging at once would have given; the originals stay beside them as *.before-judge. The judge is the one of the
    SFTKEY_JUDGE_* variables. Verdicts are cached: run it again after an interruption, or to ask about unresolved items.
    """
    start_logging()
    environ = dict(os.environ)
    if mode is not None:
        environ["SFTKEY_JUDGE_MODE"] = mode
    try:
        settings = JudgeSettings.from_environment(environ)
        if dry_run:
            asked_about = settings.mode if settings is not None else JudgeMode(mode or JudgeMode.FALLBACK)
            planned = plan(results_dir, asked_about, settings)
        elif settings is None:
            raise click.ClickException(
                "no judge is configured: set SFTKEY_JUDGE_BASE_URL (and SFTKEY_JUDGE_MODE to something else than off)"
            )
        else:
            judgements = rejudge(results_dir, settings, _update_groups)
            update_cards(done.results for done in judgements)
    except (NotJudgeable, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if dry_run:
        print_table(_plan_rows(planned, asked_about), as_json)
    else:
        _print_outcome(judgements, as_json)


def _update_groups(path: Path, old: Mapping[str, Any], new: dict[str, Any], items: Mapping[str, int]) -> None:
    from sftkey.evaluation.lm_eval_tasks import update_groups  # takes seconds, and most results have no group

    update_groups(path, old, new, items)


def _plan_rows(plans: list[TaskPlan], mode: JudgeMode) -> list[tuple[Cell, ...]]:
    header = ("results", "task", "items", f"needed ({mode.value})", "distinct", "cached", "to ask")
    rows = [(p.results.name, p.task, p.items, p.needed, p.distinct, p.cached, p.distinct - p.cached) for p in plans]
    return [header, *rows]


def _print_outcome(judgements: list[TaskJudgement], as_json: bool) -> None:
    columns = ("results", "task", "items", "judge", "cache", "unresolved")
    rows: list[tuple[Cell, ...]] = [
        (done.results.name, done.task, done.items, *(done.sources.get(source, 0) for source in columns[3:]))
        for done in judgements
    ]
    if as_json:
        found = zip(records([columns, *rows]), judgements, strict=True)
        print_json([{**row, "before": dict(done.before), "after": dict(done.after)} for row, done in found])
        return
    changes = [
        (f"{done.before.get(name, math.nan):.4f} -> {value:.4f}" for name, value in done.after.items())
        for done in judgements
    ]
    header = (*columns, "acc", "fmt", "score")
    echo(table([header, *((*row, *change) for row, change in zip(rows, changes, strict=True))]))
