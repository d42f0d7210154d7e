"""Outcomes, copies and verdicts against cases decided by hand."""

from __future__ import annotations

import pytest
from sftkey.evaluation.headroom import (
    AnswerLoss,
    Outcome,
    Verdict,
    answer_in_last_sentence,
    ends_with_answer,
    judge_headroom,
    outcome,
)


@pytest.mark.parametrize(
    ("right", "given_reference", "own", "reference", "expected"),
    [
        (True, False, None, "31 and 40", Outcome.RIGHT),
        (False, True, None, "31 and 40", Outcome.NO_THINKING),
        (False, False, "31 and 40 ", "31 and  40.", Outcome.AFTER_CORRECT_THINKING),
        # The same thinking: that the answer differs is not the thinking's fault, whatever the batch made of it.
        (False, True, "31 and 40", "31 and 40", Outcome.AFTER_CORRECT_THINKING),
        (False, True, "31 and 41", "31 and 40", Outcome.BECAUSE_OF_THINKING),
        (False, True, "It is 31, then 40", "31 and 40", Outcome.BECAUSE_OF_THINKING),
        (False, False, "It is 31, then 40", "31 and 40", Outcome.AFTER_CORRECT_THINKING),
        (False, False, "40 and 31", "31 and 40", Outcome.UNCLEAR),
        # The same numbers, but another conclusion.
        (False, False, "31 and 40. So it is red.", "31 and 40. So it is blue.", Outcome.UNCLEAR),
        (
            False,
            False,
            "It is 31, then 40. So it is blue!",
            "31 and 40.\nSo it is blue.",
            Outcome.AFTER_CORRECT_THINKING,
        ),
        (False, False, "no idea", "the wind", Outcome.UNCLEAR),
    ],
)
def test_outcome(right: bool, given_reference: bool, own: str | None, reference: str, expected: Outcome) -> None:
    assert outcome(right, given_reference, own, reference) is expected


@pytest.mark.parametrize(
    ("thinking", "answer", "end", "last_sentence"),
    [
        ("So it is the red box.", "the red box", True, True),
        ("So it is the red box!", "The Red Box.", True, True),
        ("Natalia sold 48+24 = 72 clips altogether in April and May.", "72", False, True),
        ("He has 72.\nShe has 3.", "72", False, False),
        ("That is $1,072.50", "72", False, False),
        ("That is 72.5 dollars", "72", False, False),
        ("It costs 72", "72", True, True),
        ("nothing", "", False, False),
        ("...", "72", False, False),
        ("box", "the red box", False, False),
    ],
)
def test_copies(thinking: str, answer: str, end: bool, last_sentence: bool) -> None:
    assert ends_with_answer(thinking, answer) is end
    assert answer_in_last_sentence(thinking, answer) is last_sentence


def verdict(counts: dict[Outcome, int], given_reference: float, trained: float | None = None) -> tuple[Verdict, float]:
    outcomes = [kind for kind, count in counts.items() for _ in range(count)]
    loss = None if trained is None else AnswerLoss(trained, 1.0, 10, 10)
    found = judge_headroom(outcomes, given_reference, loss)
    assert found["headroom_interval"].low <= found["headroom"] <= found["headroom_interval"].high
    return found["verdict"], pytest.approx(found["headroom"])


def test_verdicts() -> None:
    right, mendable, because, unclear = (
        Outcome.RIGHT,
        Outcome.AFTER_CORRECT_THINKING,
        Outcome.BECAUSE_OF_THINKING,
        Outcome.UNCLEAR,
    )
    assert verdict({right: 120, mendable: 80}, 0.6) == (Verdict.HEADROOM, 0.4)
    assert verdict({right: 120, mendable: 80}, 0.6, trained=0.4) == (Verdict.HEADROOM, 0.4)
    # Learned by heart: no gradient is left, however wrong the held-out answers are.
    assert verdict({right: 20, mendable: 180}, 0.1, trained=0.001) == (Verdict.NONE, 0.9)
    assert verdict({right: 100, because: 100}, 1.0) == (Verdict.NONE, 0.0)
    assert verdict({right: 200}, 1.0) == (Verdict.NONE, 0.0)
    # Ten rows without a finding exclude nothing.
    assert verdict({right: 10}, 1.0) == (Verdict.CANT_TELL, 0.0)
    assert verdict({right: 497, mendable: 3}, 0.994) == (Verdict.NONE, 0.006)
    # Where the thinking is rarely right, a wrong answer after it is rarely the answer's fault alone: 8 of 197 thinkings.
    assert verdict({right: 8, because: 189, unclear: 3}, 0.985) == (Verdict.NONE, 3 / 200 * 8 / 197)
    # Where it is nearly always right, it is: 150 of 160.
    assert verdict({right: 150, because: 10, unclear: 40}, 0.8) == (Verdict.HEADROOM, 0.2 * 150 / 160)
    # Never right, also with the reference thinking: nothing is known of the thinking.
    assert verdict({unclear: 200}, 0.0) == (Verdict.HEADROOM, 1.0)


def test_what_was_never_written_is_no_finding() -> None:
    right, because, missing = Outcome.RIGHT, Outcome.BECAUSE_OF_THINKING, Outcome.NO_THINKING
    mended = judge_headroom([right] * 100 + [because] * 60 + [missing] * 40, 1.0, None)
    assert mended["verdict"] is Verdict.NONE
    assert mended["reason"].endswith(
        "60 are wrong because of the thinking and 40 without one, and Stage 2 doesn't train the thinking"
    )
    # A model that hasn't learned the format, or never stops.
    silent = judge_headroom([right] * 60 + [missing] * 140, 1.0, None)
    assert silent["verdict"] is Verdict.CANT_TELL
    assert "140 of 200 outputs have no complete thinking" in silent["reason"]
    # A token limit below the references: the missing ones may be right with a higher one.
    cut = judge_headroom([right] * 160 + [missing] * 40, 1.0, None, over_limit=0.2)
    assert cut["verdict"] is Verdict.CANT_TELL
    assert cut["reason"].startswith("20.0% of the reference responses are longer than the token limit")
    # Neither hides what is found all the same, or that the answers are learned.
    found = judge_headroom([Outcome.AFTER_CORRECT_THINKING] * 60 + [missing] * 140, 1.0, None, over_limit=0.5)
    assert found["verdict"] is Verdict.HEADROOM
    assert judge_headroom([missing] * 200, 1.0, AnswerLoss(0.001, 1.0, 10, 10))["verdict"] is Verdict.NONE
