"""The words and numbers of a diagnosis, defined once: for its code, its help text and its JSON. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

NEGLIGIBLE_POINTS = 2.0
"""Headroom of which even the upper end of the 95% interval is below this is none."""

LEARNED_LOSS = 0.02
"""Mean answer loss on training rows, in nats per token, below which Stage 2 has nothing left to learn from them."""


class Outcome(StrEnum):
    """What became of one held-out row."""

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
"""What each key of ``Diagnosis.as_dict`` means."""
