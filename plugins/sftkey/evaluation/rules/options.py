"""Options of a multiple-choice question, named by letter, by text, or by both."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sftkey.evaluation.rules import text as free_text

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed)\s*\{|[{}$*`]|\\[()\[\]]")
_LEAD = re.compile(
    r"^\s*(?:the\s+)?(?:correct\s+|right\s+|best\s+|final\s+)*(?:answer|option|choice)s?(?:\s*(?:is\b|:|=)){0,2}\s*",
    re.I,
)
_LABELLED = re.compile(
    r"^\s*(?:(?:option|choice)\s+)?(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])\s*[.):,\-–]|([A-Z])\s+)(.*)$", re.S
)
_LOWER_CASE = re.compile(r"^\s*([a-z])\s*[.):]\s*(.*)$", re.S)
_LONE = re.compile(r"^\s*(?:(?:option|choice)\s+)?[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:,]?\s*$", re.I)


def named(answer: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """Find the option that an answer names: ``B``, ``(B)``, ``B. quit eating lunch out``, or the option's text.

    Args:
        answer: An extracted answer.
        options: The choices, letter -> text.

    Returns:
        One letter, or several where options have the same text; empty for a letter that is none of the options;
        ``None`` for no option, several letters, or a letter with the text of another option.
    """
    answer = _MARKUP.sub("", answer)
    answer = _LEAD.sub("", answer, count=1)
    if lone := _LONE.match(answer):
        letter = lone.group(1).upper()
        return frozenset({letter}) if letter in options else _with_text(answer, options)
    by_text = _with_text(answer, options)
    lower_case = _LOWER_CASE.match(answer)
    if lower_case and (letter := lower_case.group(1).upper()) in _with_text(lower_case.group(2), options):
        return frozenset({letter})
    labelled = _LABELLED.match(answer)
    if labelled is None:
        return by_text or None
    letter = next(filter(None, labelled.groups()[:3])).upper()
    rest_means = _with_text(labelled.group(4), options)
    if letter in options and (letter in rest_means or not free_text.normalise(labelled.group(4))):
        return frozenset({letter})
    if letter in options and labelled.group(3) is None and not rest_means:
        others = set(re.findall(r"\b[A-Z]\b", labelled.group(4))) & set(options) - {letter}
        if not others:
            return frozenset({letter})
    # "A plant" is an option's text, not option A with the text "plant"; "B. wind" where wind is option C is neither.
    return by_text or None


def _with_text(answer: str, options: Mapping[str, str]) -> frozenset[str]:
    wanted = free_text.normalise(answer)
    return frozenset(letter for letter, text in options.items() if wanted and free_text.normalise(text) == wanted)
