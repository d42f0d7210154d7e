"""The verdict on what Stage 2 can gain: the outcome of each row, the headroom, and the meaning of each number.

Needs no torch, and numpy only to compute, since the help text shows the meanings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from sftkey.evaluation.rules.text import normalise

NEGLIGIBLE_POINTS = 2.0
"""Points below which the upper end of the 95% interval means no headroom."""

LEARNED_LOSS = 0.02
"""Mean answer loss on training rows, in nats per token, below which Stage 2 has nothing left to learn from them."""


class Outcome(StrEnum):
    """The outcome of one held-out row."""

    RIGHT = "right"
    AFTER_CORRECT_THINKING = "wrong after correct thinking"
    BECAUSE_OF_THINKING = "wrong because of the thinking"
    UNCLEAR = "wrong, and wrong with the reference thinking, too"
    NO_THINKING = "wrong without a thinking"


class Verdict(StrEnum):
    """Whether Stage 2 can pay."""

    HEADROOM = "headroom"
    NONE = "none"
    CANT_TELL = "can't tell"


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """Teacher-forced prediction of the reference answers: mean loss in nats per token, share of tokens that are right."""

    loss: float
    accuracy: float
    tokens: int
    rows: int


MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "rows": "Held-out rows; shares are of these, from 0 to 1.",
        "accuracy": "Acc: share of outputs with the right answer, by rules, in whatever format.",
        "accuracy_given_reference": "The same with the reference thinking in the place of the model's own: the model "
        "writes only what follows </Thinking>.",
        "format_rate": "Fmt: share of outputs in exactly the expected format.",
        "unfinished": "Share of outputs that the token limit cut off.",
        "over_limit": "Share of rows whose reference response is longer than the token limit.",
        "given_reference": "How well the reference answers' tokens are predicted after the reference thinking, "
        "teacher-forced: loss = mean cross-entropy in nats per token; accuracy = share of tokens that are the model's first "
        "choice; tokens and rows = how many.",
        "given_own": "The same after the model's own thinking, over the outputs that have one; null where none has.",
        "on_training_rows": "As given_reference, on rows that Stage 1 was trained on and Stage 2 would be; null without "
        "such rows.",
        "copied": "Share of rows whose reference answer is the end of the reference thinking, but for case, white space and "
        "punctuation.",
        "in_last_sentence": "Share of rows whose reference answer stands, as whole words, in the last sentence of the "
        "reference thinking.",
        "own_copied": "Share of well-formed outputs whose answer is the end of their own thinking.",
        "outcomes": f"Rows by outcome. {Outcome.AFTER_CORRECT_THINKING}: the thinking says the same as the reference; or has "
        "the same numbers in the same order and the answer is wrong with the reference thinking, too. "
        f"{Outcome.BECAUSE_OF_THINKING}: another thinking, and right with the reference thinking. {Outcome.UNCLEAR}: another "
        f"thinking, of which it isn't known whether it is right. {Outcome.NO_THINKING}: the output has none, or one that "
        "isn't closed or has tags inside.",
        "shares_of_wrong": "The wrong outcomes as shares of all wrong ones; empty where none is wrong.",
        "gradient_shares": "For each group of segments the norm of its part of the gradient of Stage 1's loss (held-out "
        "rows), over the sum of the three norms; empty with --no-gradient.",
        "headroom": f"Share of rows that Stage 2 mends if it mends all that it can, an upper bound: all that are "
        f'"{Outcome.AFTER_CORRECT_THINKING}", and of the "{Outcome.UNCLEAR}" the share accuracy / accuracy_given_reference, '
        "which estimates how often a thinking is right. 0.01 is one point of Acc.",
        "headroom_interval": "Its 95% interval (bootstrap over the rows; exact: binomial, where all rows agree).",
        "verdict": f"{Verdict.NONE}: the upper end of the interval is below {NEGLIGIBLE_POINTS:g} points, or the loss on "
        f"training rows is below {LEARNED_LOSS} nats. {Verdict.HEADROOM}: the lower end is above 0, and headroom at least "
        f"{NEGLIGIBLE_POINTS:g} points. {Verdict.CANT_TELL}: anything else; also, unless there is headroom, where half of "
        f"the outputs have no thinking or over_limit is at least {NEGLIGIBLE_POINTS:g}%.",
        "reason": "Why, in one sentence.",
    }
)
"""The meaning of each key of ``Diagnosis.as_dict``."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def outcome(right: bool, right_given_reference: bool, own: str | None, reference: str) -> Outcome:
    """Classify a row.

    A thinking counts as correct if it equals the reference, normalised; or if the answer is wrong
    after the reference thinking, too, and both thinkings have the same numbers in the same order, with the same conclusion
    or a number in it.

    Args:
        right: Whether the model's answer is right.
        right_given_reference: Whether its answer after the reference thinking is right.
        own: The model's thinking; ``None`` where it has none.
        reference: The reference thinking.
    """
    if right:
        return Outcome.RIGHT
    if own is None:
        return Outcome.NO_THINKING
    if normalise(own) == normalise(reference):
        return Outcome.AFTER_CORRECT_THINKING
    if right_given_reference:
        return Outcome.BECAUSE_OF_THINKING
    return Outcome.AFTER_CORRECT_THINKING if _same_calculation(own, reference) else Outcome.UNCLEAR


def _same_calculation(own: str, reference: str) -> bool:
    """Whether two thinkings have the same numbers in the same order, and a conclusion that is one of them."""
    numbers = _NUMBER.findall(reference)
    if not numbers or _NUMBER.findall(own) != numbers:
        return False
    conclusions = [_sentences(thinking)[-1] for thinking in (own, reference)]
    return all(map(_NUMBER.search, conclusions)) or len(set(map(normalise, conclusions))) == 1


def ends_with_answer(thinking: str, answer: str) -> bool:
    """Whether an answer is the end of a thinking, but for case, white space and punctuation."""
    wanted = normalise(answer).split()
    return bool(wanted) and normalise(thinking).split()[-len(wanted) :] == wanted


def answer_in_last_sentence(thinking: str, answer: str) -> bool:
    """Whether an answer stands, as whole words, in the last sentence or line of a thinking."""
    sentences, wanted = _sentences(thinking), normalise(answer)
    if not sentences or not wanted:
        return False
    return re.search(rf"(?<![\w.]){re.escape(wanted)}(?!\w|\.\d)", normalise(sentences[-1])) is not None


def _sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text.strip()) if part.strip()]


def judge_headroom(
    outcomes: Sequence[Outcome],
    accuracy_given_reference: float,
    on_training_rows: AnswerLoss | None,
    over_limit: float = 0.0,
) -> dict[str, Any]:
    """Compute the fields ``headroom`` to ``reason`` of `Diagnosis`.

    An unclear outcome counts with the probability that a thinking is right, estimated as Acc over Acc given the reference
    thinking: an answer is right if its thinking is and if then the answer is.

    Args:
        outcomes: The outcome of each row; at least one.
        accuracy_given_reference: Acc with the reference thinking.
        on_training_rows: Loss of the answers that Stage 2 would be trained on, where known.
        over_limit: Share of rows whose reference response is longer than the token limit of the outputs.
    """
    import numpy as np

    from sftkey.evaluation.statistics import mean_interval

    accuracy = outcomes.count(Outcome.RIGHT) / len(outcomes)
    thinking_is_right = min(1.0, accuracy / accuracy_given_reference) if accuracy_given_reference else 1.0
    worth = {Outcome.AFTER_CORRECT_THINKING: 1.0, Outcome.UNCLEAR: thinking_is_right}
    values = np.array([worth.get(found, 0.0) for found in outcomes])
    headroom, interval = float(values.mean()), mean_interval(values)
    wrong = sum(found is not Outcome.RIGHT for found in outcomes)
    count = {kind: outcomes.count(kind) for kind in Outcome}
    share = f"of {wrong} wrong outcomes {count[Outcome.AFTER_CORRECT_THINKING]} are wrong after correct thinking"
    if count[Outcome.UNCLEAR]:
        share += f" and {count[Outcome.UNCLEAR]} would be wrong with the reference thinking, too"
    if on_training_rows is not None and on_training_rows.loss < LEARNED_LOSS:
        verdict = Verdict.NONE
        reason = (
            f"the answers of the training rows are learned already (loss {on_training_rows.loss:.4f} nats per token, "
            f"{on_training_rows.accuracy:.1%} of tokens right): Stage 2 would find no gradient in them"
        )
    elif interval.low > 0 and 100 * headroom >= NEGLIGIBLE_POINTS:
        verdict, reason = Verdict.HEADROOM, share
    # Outputs without a thinking are no finding.
    elif 2 * count[Outcome.NO_THINKING] >= len(outcomes):
        verdict = Verdict.CANT_TELL
        reason = (
            f"{count[Outcome.NO_THINKING]} of {len(outcomes)} outputs have no complete thinking to judge an answer by: train "
            "Stage 1 until it writes the format, or allow longer outputs"
        )
    elif 100 * over_limit >= NEGLIGIBLE_POINTS:
        verdict = Verdict.CANT_TELL
        reason = f"{over_limit:.1%} of the reference responses are longer than the token limit: allow longer outputs"
    elif 100 * interval.high < NEGLIGIBLE_POINTS:
        verdict, reason = Verdict.NONE, f"{share}; {_rest(count)}" if wrong else "no outcome is wrong"
    else:
        verdict, reason = Verdict.CANT_TELL, f"{share}; too few to tell, diagnose more rows"
    return {"headroom": headroom, "headroom_interval": interval, "verdict": verdict, "reason": reason}


def _rest(count: dict[Outcome, int]) -> str:
    if not count[Outcome.NO_THINKING]:
        return "the rest is wrong because of the thinking, which Stage 2 doesn't train"
    return (
        f"{count[Outcome.BECAUSE_OF_THINKING]} are wrong because of the thinking and {count[Outcome.NO_THINKING]} without "
        "one, and Stage 2 doesn't train the thinking"
    )
