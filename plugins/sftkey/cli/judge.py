"""``axolotl sftkey judge``: the judge's verdicts for the logged samples of an earlier evaluation."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from sftkey.evaluation.judge.client import JudgeMode, JudgeSettings
from sftkey.evaluation.judge.later import NotJudgeable, TaskJudgement, TaskPlan, plan, rejudge
from sftkey.stages.evaluate import update_cards
from sftkey.util.text import table


@click.command()
@click.argument("results_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--mode",
    type=click.Choice([JudgeMode.FALLBACK.value, JudgeMode.ALWAYS.value]),
    help="Ask about what the rules can't settle, or about everything. [default: SFTKEY_JUDGE_MODE, or fallback]",
)
@click.option("--dry-run", is_flag=True, help="Show how many items would be asked, and stop.")
def judge_command(results_dir: Path, mode: str | None, dry_run: bool) -> None:
    """Add an LLM judge's verdicts to the logged samples of an evaluation.

    RESULTS_DIR is what was given to `lm_eval --log_samples --output_path`. Samples and results are replaced by what
    judging at once would have given; the originals stay beside them as *.before-judge. The judge is the one of the
    SFTKEY_JUDGE_* variables. Verdicts are cached: run it again after an interruption, or to ask about unresolved items.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    environ = dict(os.environ)
    if mode is not None:
        environ["SFTKEY_JUDGE_MODE"] = mode
    try:
        settings = JudgeSettings.from_environment(environ)
        if dry_run:
            asked_about = settings.mode if settings is not None else JudgeMode(mode or JudgeMode.FALLBACK)
            click.echo(_plan_table(plan(results_dir, asked_about, settings), asked_about))
            return
        if settings is None:
            raise click.ClickException(
                "no judge is configured: set SFTKEY_JUDGE_BASE_URL (and SFTKEY_JUDGE_MODE to something else than off)"
            )
        judgements = rejudge(results_dir, settings)
        update_cards(done.results for done in judgements)
        click.echo(_outcome_table(judgements))
    except (NotJudgeable, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _plan_table(plans: list[TaskPlan], mode: JudgeMode) -> str:
    header = ("results", "task", "items", f"needed ({mode.value})", "distinct", "cached", "to ask")
    rows = [
        (
            p.results.name,
            p.task,
            f"{p.items:,}",
            f"{p.needed:,}",
            f"{p.distinct:,}",
            f"{p.cached:,}",
            f"{p.distinct - p.cached:,}",
        )
        for p in plans
    ]
    return table([header, *rows])


def _outcome_table(judgements: list[TaskJudgement]) -> str:
    header = ("results", "task", "items", "judge", "cache", "unresolved", "acc", "fmt", "score")
    rows = [
        (
            done.results.name,
            done.task,
            f"{done.items:,}",
            *(f"{done.sources.get(source, 0):,}" for source in ("judge", "cache", "unresolved")),
            *(f"{done.before.get(name, float('nan')):.4f} -> {value:.4f}" for name, value in done.after.items()),
        )
        for done in judgements
    ]
    return table([header, *rows])
