"""Ask the judge about the items that need it, and decide all of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sftkey.evaluation.judge.client import JudgeVerdict, judge
from sftkey.evaluation.judge.fitness import measure, refusal
from sftkey.evaluation.judge.prompt import JudgeItem
from sftkey.evaluation.judge.settings import Fitness, JudgeSettings
from sftkey.evaluation.verdicts import Item, Record, decide, needs_judge

logger = logging.getLogger(__name__)


def judged(items: Sequence[Item], settings: JudgeSettings | None) -> list[Record]:
    """Decide every item, with the judge's verdict where the mode asks for it.

    Args:
        items: All items of a task.
        settings: The judge; ``None`` for rules only.

    Returns:
        One record for each item, in their order.
    """
    if settings is None:
        return [decide(item) for item in items]
    mode = settings.mode.value
    asked = [judge_item(item) for item in items if needs_judge(item, mode)]
    found, figures = _ask(asked, settings) if asked else ([], None)
    verdicts = iter(found)
    records = []
    for item in items:
        if needs_judge(item, mode):
            one = next(verdicts)
            said: dict[str, Any] = {"judge_same": one.same, "judge_source": one.source, "judge_detail": one.detail}
            records.append(decide(item, mode=mode, **said, judge_fitness=figures))
        else:
            records.append(decide(item, mode=mode, judge_fitness=figures))
    return records


def _ask(asked: list[JudgeItem], settings: JudgeSettings) -> tuple[list[JudgeVerdict], dict[str, float] | None]:
    """The judge's verdicts, none where it isn't fit; and what was measured of it."""
    if settings.fitness is Fitness.OFF:
        return judge(asked, settings), None
    report = measure(settings)
    figures = None if isinstance(report, str) else report.figures
    reason = refusal(report, settings)
    if reason is None:
        return judge(asked, settings), figures
    logger.error("judge %s: RULES ONLY, none of %d items was asked about: %s", settings.model, len(asked), reason)
    return [JudgeVerdict(None, "unresolved", f"not asked: {reason}")] * len(asked), figures


def judge_item(item: Item) -> JudgeItem:
    """Make the judge's question of an item; it sees all that the rules saw."""
    return JudgeItem(question=item.question, reference=item.reference, prediction=item.for_judge)
