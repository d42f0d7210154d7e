"""From items to records: which ones the judge is asked about, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Sequence

from sftkey.evaluation.judge.client import judge
from sftkey.evaluation.judge.prompt import JudgeItem
from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.evaluation.verdicts import Item, Record, decide, needs_judge


def judged(items: Sequence[Item], settings: JudgeSettings | None) -> list[Record]:
    """Have the judge decide what it is to decide.

    Args:
        items: All items of a task.
        settings: The judge; ``None`` for rules only.

    Returns:
        One record for each item, in their order.
    """
    if settings is None:
        return [decide(item) for item in items]
    mode = settings.mode.value
    asked = [index for index, item in enumerate(items) if needs_judge(item, mode)]
    verdicts = judge([judge_item(items[index]) for index in asked], settings) if asked else []
    found = dict(zip(asked, verdicts, strict=True))
    records = []
    for index, item in enumerate(items):
        verdict = found.get(index)
        if verdict is None:
            records.append(decide(item, mode=mode))
        else:
            records.append(
                decide(
                    item,
                    mode=mode,
                    judge_same=verdict.same,
                    judge_source=verdict.source,
                    judge_detail=verdict.detail,
                )
            )
    return records


def judge_item(item: Item) -> JudgeItem:
    """What the judge is asked about an item that has an answer."""
    assert item.extracted is not None
    return JudgeItem(question=item.question, reference=item.reference, prediction=item.extracted)
