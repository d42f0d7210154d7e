"""Read an output once: where its answer can stand (before any convention), and what it says there.

In an Answer block the block's text is the answer. In prose it is, in this order, what the data set's own form and the usual
conventions mark as the answer, and else the number, formula, option or line that stands last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules import answers
from sftkey.evaluation.rules.answers import Found
from sftkey.evaluation.rules.chosen_option import chosen
from sftkey.evaluation.rules.limits import MAX_ANSWER
from sftkey.evaluation.rules.options import HALF_WIDTH, labelled, named
from sftkey.evaluation.rules.regions import Region, Where, before_a_new_question, find_regions
from sftkey.evaluation.rules.statements import asserted, corrections, leaves_a_denial, without_farewell
from sftkey.format.untagged import UntaggedForm

MAX_SHOWN = 3_900
"""Most characters of an output that a judge is shown: the end of a longer one."""

MAX_READ = 50_000
"""Most characters of a part of an output that are read: the end of a longer one."""

_PLAIN_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d.,]{0,40}")
_SHORT = 20  # a text that is the answer and nothing else

NOTHING_FOUND = "nothing found"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an output says.

    Attributes:
        candidates: Every text that may be the answer, the likeliest last, without white space around it; more than one
            where the output can be read in several ways, so that a verdict is definite only where they agree. Each is one
            statement: the words that announce it and claims that the output itself takes back are gone; what it means
            (units, equations, conditions, the explanation after it) is for the comparison. One that is too long to be
            compared is cut to `MAX_ANSWER` + 1 characters. Empty: no answer found.
        rule: The rule that found them, as logged.
        shown: What a judge has to see: all that was read. Empty where the output holds no answer.
        unfinished: The thinking of an output that holds no answer.
    """

    candidates: tuple[str, ...]
    rule: str
    shown: str
    unfinished: str = ""


def read(output: str, kind: AnswerKind, untagged: UntaggedForm, options: Mapping[str, str] | None = None) -> Reading:
    """Read an output. Linear in its length.

    Args:
        output: The model's output, of any length and content.
        kind: The kind of the data set's answers.
        untagged: The data set's own form without tags.
        options: For multiple choice, the options of this question, letter -> text.
    """
    regions = find_regions(output)
    found: list[Found] = []
    shown: list[str] = []
    for place, region in enumerate(regions.found):
        after_a_block = place > 0 and region.where is Where.TEXT and regions.found[0].where is not Where.TEXT
        # Text after an Answer block matters where it takes back what the block says.
        silent = after_a_block and not corrections("\n" + region.text[-MAX_READ:])
        said = [] if silent else _said(region, kind, untagged.between.strip(), options or {})
        if region.where is Where.BEFORE_THINKING and not said:
            continue
        shown.append(region.text)
        found += said
    if not shown:
        return Reading((), NOTHING_FOUND, "", regions.unfinished)
    texts = tuple(dict.fromkeys(_cut_at_a_tag(one, output)[: MAX_ANSWER + 1] for one in found))
    if not found:
        return Reading((), NOTHING_FOUND, _shown(output, ()))
    return Reading(texts, found[-1].rule, _shown("\n".join(shown), texts))


def _cut_at_a_tag(found: Found, output: str) -> str:
    """A text; where a tag, which is a line break by now, stood inside the braces of a box, what comes before it."""
    text = found.text.strip()
    in_a_box = found.rule.endswith(answers.BOXED) and "\n" in text
    return text.partition("\n")[0] if in_a_box and text not in output.translate(HALF_WIDTH) else text


def read_thinking(
    thinking: str, kind: AnswerKind, untagged: UntaggedForm, options: Mapping[str, str] | None = None
) -> Sequence[str]:
    """The candidates in thinking that no answer follows, as `Reading.candidates`, for who wants to count them."""
    said = _in_prose(thinking[-MAX_READ:], kind, untagged.between.strip(), options or {})
    return tuple(dict.fromkeys(one.text.strip()[: MAX_ANSWER + 1] for one in said))


def _shown(text: str, candidates: Sequence[str]) -> str:
    text = text.strip()
    if len(text) <= MAX_SHOWN:
        return text
    missing = [one for one in candidates if len(one) < MAX_SHOWN // 4 and one not in text[-MAX_SHOWN:]]
    tail = text[len(text) - MAX_SHOWN + sum(len(one) + 7 for one in missing) :]
    return "\n[...]\n".join((*missing, tail))


def _said(region: Region, kind: AnswerKind, marker: str, options: Mapping[str, str]) -> list[Found]:
    if region.where is Where.TEXT:
        return _in_prose(region.text[-MAX_READ:], kind, marker, options)
    if region.where is Where.BEFORE_THINKING:
        return _explicit(region.text[-MAX_READ:], kind, marker) if kind is not AnswerKind.OPTION else []
    name = "answer block" if region.where is Where.BLOCK else "unclosed answer block"
    return [replace(one, rule=name + one.rule) for one in _in_a_block(region.text, kind, options)]


def _in_a_block(text: str, kind: AnswerKind, options: Mapping[str, str]) -> list[Found]:
    whole = [Found(text, 0, len(text), "")]
    if kind is AnswerKind.TEXT:
        return whole  # it may itself say what "the answer is"
    if kind is AnswerKind.OPTION:
        if len(text) > MAX_ANSWER or named(text, options) is not None or labelled(text, options):
            return whole
        statement, _ = chosen(text, options)
        return [Found(statement, 0, len(text), "")] if statement else whole
    said = [] if _PLAIN_NUMBER.fullmatch(text) else answers.claims(text[-MAX_READ:], kind)
    if said:
        return [replace(one, rule=f", {one.rule}") for one in said]
    if kind is AnswerKind.MATHS or len(text) > MAX_ANSWER:
        return whole
    taken_back = corrections(text)
    later = answers.closing_number(text[taken_back[-1] :]) if taken_back else []
    if later:
        return [replace(one, rule="") for one in (*answers.closing_number(text[: taken_back[-1]]), *later)]
    return [replace(whole[0], text=text if leaves_a_denial(text) else asserted(text) or text)]


def _in_prose(text: str, kind: AnswerKind, marker: str, options: Mapping[str, str]) -> list[Found]:
    """What a text says; where the model asks itself another question, before that, if that part says an answer."""
    cut = before_a_new_question(text)
    if cut is None:
        return _of_one_answer(text, kind, marker, options)
    before, after = (_of_one_answer(part, kind, marker, options) for part in cut)
    short = len(cut[0].strip()) <= _SHORT
    sure = kind is AnswerKind.OPTION or short or bool(_explicit(cut[0], kind, marker)) or answers.concludes(cut[0])
    return before if before and sure else [*before, *after]


def _of_one_answer(text: str, kind: AnswerKind, marker: str, options: Mapping[str, str]) -> list[Found]:
    if kind is AnswerKind.OPTION:
        statement, rule = chosen(without_farewell(text).translate(HALF_WIDTH), options)
        return [Found(statement, 0, len(text), rule)] if statement else []
    said = _explicit(text, kind, marker)
    text = without_farewell(text)
    if said:
        later = [place for place in corrections(text) if place > said[-1].end]
        return [*said, *(_last(text[later[-1] :], kind) if later else [])]
    return _last(text, kind)


def _explicit(text: str, kind: AnswerKind, marker: str) -> list[Found]:
    if kind is AnswerKind.TEXT and (marked := answers.after_marker(text, marker)):
        return marked
    return answers.claims(text, kind)


def _last(text: str, kind: AnswerKind) -> list[Found]:
    if kind is AnswerKind.TEXT:
        return answers.last_line(text)
    formula = answers.closing_formula(text) if kind is AnswerKind.MATHS else []
    return formula or answers.closing_number(text)
