"""The question to the judge, and its verdict read from the reply (section 3, appendix C.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from sftkey.util.text import encodable, shorten

MAX_ANSWER_CHARS = 4_000
"""A longer reference or prediction is not sent: a verdict on half an answer is none. The item is unresolved."""

MAX_QUESTION_CHARS = 12_000
"""Of a longer question, which is only context, the judge sees this many characters: its beginning and its end."""


@dataclass(frozen=True)
class JudgeItem:
    """One comparison for the judge.

    Attributes:
        question: The question that both answers answer.
        reference: The reference answer; ``{answer1}`` of the prompt (C.2).
        prediction: The answer extracted from the model's output; ``{answer2}``.
    """

    question: str
    reference: str
    prediction: str


class TooLong(ValueError):
    """An answer is too long for the judge's prompt."""


def judge_prompt(item: JudgeItem) -> str:
    """Fill in the paper's evaluation prompt (C.2): the reference is Response 1, the prediction Response 2.

    Braces in the three texts stay as they are. A lone surrogate, which no server can be sent, becomes ``?``.

    Args:
        item: The comparison.

    Returns:
        The text of the one user message.

    Raises:
        TooLong: Reference or prediction has more than `MAX_ANSWER_CHARS` characters.
    """
    for name, text in (("reference", item.reference), ("prediction", item.prediction)):
        if len(text) > MAX_ANSWER_CHARS:
            raise TooLong(f"the {name} has {len(text):,} characters, more than {MAX_ANSWER_CHARS:,}")
    values = {
        "question": shorten(item.question, MAX_QUESTION_CHARS),
        "answer1": item.reference,
        "answer2": item.prediction,
    }
    # One pass over the template: what is filled in is not looked at again.
    text = re.sub(r"\{(question|answer1|answer2)\}", lambda match: values[match.group(1)], prompt_template())
    return encodable(text)


@cache
def prompt_template() -> str:
    """The paper's evaluation prompt, verbatim with its line breaks (appendix C.2)."""
    text = resources.files(__package__).joinpath("judge_prompt.txt").read_text(encoding="utf-8")
    return text.removesuffix("\n")


_VERDICT = re.compile(r"[\W_]*(yes|no)(?![^\W_])(.*)", re.I | re.S)
_WORD = re.compile(r"[^\W_]")
_SAME_PHRASE = re.compile(r"[^\S\n]+[^\W_]")
_SUBJECT = re.compile(r"\s+(?:they|the|both|these|those|it|because|since|yes|no)\b", re.I)
_NEGATION = re.compile(r"\b(?:not|neither|nor|never|cannot)\b|n['’]t\b", re.I)
_SAMENESS = re.compile(r"\b(?:same|identical|equivalent|equals?|match(?:es|ing)?|agrees?|correct|right)\b", re.I)
_DIFFERENCE = re.compile(r"\b(?:differ\w*|unequal|distinct|mismatch\w*|wrong|incorrect)\b", re.I)
_HEDGE = re.compile(
    r"\b(?:but|however|although|though|unless|except|maybe|perhaps|possibly|probably|might|or|depends|unclear|unsure"
    r"|uncertain|sure|certain|determine|tell|decide|unable|insufficient|impossible|partly|partially|almost)\b",
    re.I,
)


def read_verdict(reply: str) -> bool | None:
    """Read yes or no from a judge's reply, strictly.

    The reply has to begin with the word yes or no; case, quotes, markup and punctuation don't matter. What follows the
    word may be nothing, or a statement that agrees with it: set off by punctuation, or beginning like "they are". A
    statement with the other word, with a hedge ("but", "probably", "can't tell"), or that says the contrary ("Yes,
    they are different", "No, they are the same") makes the reply unreadable.

    Args:
        reply: The text of the judge's message.

    Returns:
        ``True`` for yes, ``False`` for no, ``None`` for a reply that is neither.
    """
    match = _VERDICT.match(reply[:2_000])
    if match is None:
        return None
    same = match.group(1).lower() == "yes"
    rest = match.group(2)
    if not _WORD.search(rest):
        return same
    if _SAME_PHRASE.match(rest) and not _SUBJECT.match(rest):
        return None  # "No idea", "yes man": another phrase that happens to begin with the word
    if _HEDGE.search(rest) or re.search(r"\bno\b" if same else r"\byes\b", rest, re.I):
        return None
    negated, different = _NEGATION.search(rest), _DIFFERENCE.search(rest)
    if same and (negated or different):
        return None
    if not same and _SAMENESS.search(rest) and not negated and not different:
        return None
    return same
