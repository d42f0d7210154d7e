"""Read an output once, before any convention of a data set: where its answer can stand, and what it says there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules.answers import extract
from sftkey.format.untagged import UntaggedForm

MAX_SHOWN = 4_000
"""Most characters of an output that a judge is shown where no answer was found: its end."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an output says.

    Attributes:
        candidates: Every text that may be the answer, without white space around it; more than one where the output
            can be read in several ways, so that a verdict is definite only where all of them agree. Each is one
            statement: the words that announce it, an explanation after it and claims that the output itself takes
            back are gone; what it means (units, equations, conditions) is for the comparison. Empty: no answer found.
        rule: The rule that found them, as logged.
        shown: What a judge has to see: all that was read. Empty where there is nothing to show.
    """

    candidates: tuple[str, ...]
    rule: str
    shown: str


def read(output: str, kind: AnswerKind, untagged: UntaggedForm, options: Mapping[str, str] | None = None) -> Reading:
    """Read an output. Linear in its length.

    Args:
        output: The model's output, of any length and content.
        kind: The kind of the data set's answers.
        untagged: The data set's own form without tags.
        options: For multiple choice, the options of this question, letter -> text.
    """
    found = extract(output, kind, untagged, options)
    if found.text is None:
        return Reading((), found.rule, output.strip()[-MAX_SHOWN:])
    return Reading((found.text,), found.rule, found.text)
