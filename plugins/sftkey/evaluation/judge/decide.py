"""Ask the judge about the items that need it, and decide all of them."""

from __future__ import annotations

from collections.abc import Sequence

from sftkey.evaluation.judge.client import judge
from sftkey.evaluation.judge.prompt import JudgeItem
from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.evaluation.verdicts import Item, Record, decide, needs_judge


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
    verdicts = iter(judge(asked, settings) if asked else [])
    records = []
    for item in items:
        if needs_judge(item, mode):
            found = next(verdicts)
            records.append(
                decide(item, mode=mode, judge_same=found.same, judge_source=found.source, judge_detail=found.detail)
            )
        else:
            records.append(decide(item, mode=mode))
    return records


def judge_item(item: Item) -> JudgeItem:
    """Make the judge's question of an item; it sees all that the rules saw."""
    return JudgeItem(question=item.question, reference=item.reference, prediction=item.for_judge)
