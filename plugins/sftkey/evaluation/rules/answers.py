r"""The data sets' conventions for an answer in prose: ``#### x``, ``\boxed{x}``, "the answer is x"; else what stands last.

Every search is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules.limits import MAX_ANSWER
from sftkey.evaluation.rules.number_words import to_numerals
from sftkey.evaluation.rules.statements import (
    LEFT_OF_A_DENIAL,
    asserted,
    corrections,
    denies,
    leaves_a_denial,
    sentences,
    supposed,
)


@dataclass(frozen=True, slots=True)
class Found:
    """A text that is said to be the answer, where it stands, and the name of the convention."""

    text: str
    start: int
    end: int
    rule: str


HASHES, BOXED, ANSWER_IS = "####", "\\boxed", "the answer is"
# "#### Step 3: add them up" and "#### 3. Compute the total" are headings of an untagged output, not its answer.
_HEADING = re.compile(r"(?:\d+[.)]\s+)?[*_]*[^\W\d_]{2,}")
_ANSWER_IS = re.compile(
    r"""(?:
        \banswers?(?:\s(?:to|for|of)\s[^.:=\n]{1,60}?)?
        (?: [ \t*_]{0,4}[:=：]
          | [ \t](?:is|are|was|(?:would|should|must|will|could|has\sto|have\sto|seems\sto|appears\sto)[ \t]be
              |comes[ \t]out[ \t](?:as|to))\b(?![ \t]not\b|n['’]t\b) )
      | 答案(?:是|为|為)?
      | \b(?:Antwort|Respuesta|R[ée]ponse|Risposta|Resposta|Ответ)(?:[ \t](?:ist|es|est|è|é))?[ \t]?(?=[:：\s])
    )[ \t]*(?:[:=：][ \t]*)?""",
    re.IGNORECASE | re.VERBOSE,
)
_ADVERBS = re.compile(
    r"^(?:(?:probably|likely|most|clearly|therefore|thus|hence|simply|indeed|then|obviously|definitely|still|just|actually|again)"
    r"[ \t,]+)+",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.](?=\s|$|\*)|[。]|(?<=[\w)}\]$])[!?](?=\s|$)")
_EDGE = re.compile(r"^[\s}*_:：]+|(?<=[^\s*])\*+$")
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_DIGIT = re.compile(r"\d")
_SCALE = re.compile(
    r"\$?\s{0,2}(?:\\?%|¢|°|(?:percent|dozens?|hundreds?|thousands?|millions?|billions?|trillions?|cents?|pairs?|scores?)\b)"
    r"|\s?\^\s?\{?\\?circ\}?",
    re.IGNORECASE,
)
NUMBER = re.compile(
    r"""(?<![\w.])[-\u2212]?[$€£]?
    (?: \\[dt]?frac\{\d+\}\{\d+\}
      | (?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?
        (?: [eE][-+]?\d+(?!\w) | \^\{?-?\d+\}? | [⁰¹²³⁴-⁹]+ | \s?[¼-¾⅐-⅞] | \s?/\s?\d+(?![\d.]) )?
      | [¼-¾⅐-⅞]
    )
    (?: \s?\\?% | [ ](?:percent|hundred|thousand|million|billion|trillion|dozen)\b )?""",
    re.VERBOSE | re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"(?:\b(?:so|therefore|thus|hence|altogether|(?:in|for\sa)\stotal(?:\sof)?|which\s(?:is|means|makes|gives|leaves)|leaving|making"
    r"|giving|meaning|totals?|in\sall|comes\sto|adds?\sup\sto|left|remain(?:s|ing)?)\b|[=≈])",
    re.IGNORECASE,
)
_CONNECTIVE = re.compile(
    r"(?:\b(?:so|therefore|thus|hence|which\s(?:is|means|makes|gives|leaves)|leaving|making|giving)\b|[=≈])", re.I
)
_HEDGED = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|least|most|(?:more|less|fewer|other|rather)\sthan|or|between|over|under|above|below"
    r"|up\sto|within|if)\b|n['’]t\b|[<>≤≥±?]",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$\$[^$]+\$\$|\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
_MAX_PARAGRAPH = 2_000
_SHORT = 100
_MAX_CLAIMS = 20  # the last ones; a text with more says nothing clear


def claims(text: str, kind: AnswerKind) -> list[Found]:
    """What a text says to be its answer, in order: what a later claim, or a correction, takes back is left out."""
    boxes = boxed(text)
    said = answer_is(text, kind)
    # "The answer is \\boxed{7}" is one claim.
    said = [one for one in said if not any(one.start <= box.start and box.end <= one.end for box in boxes)]
    hashes = _after_hashes(text)
    strong = [*([hashes] if hashes else []), *boxes]
    if hashes:
        strong = [one for one in strong if one is hashes or not hashes.start <= one.start < hashes.end]
    found = sorted((*strong, *said[-1:]), key=lambda one: one.end)
    if not found:
        return []
    taken_back = max((place for place in corrections(text) if place <= found[-1].start), default=0)
    found = [one for one in found if one.start >= taken_back]
    last = found[-1]
    if last.rule == BOXED:
        return _together([one for one in found if one.rule == BOXED], text)
    stronger = [one for one in found if one.rule != ANSWER_IS and one is not last]
    kept = _together([one for one in stronger if one.rule == BOXED], text) if last.rule != HASHES else []
    return [*kept, *(one for one in stronger if one.rule == HASHES), last]


def _together(boxes: list[Found], text: str) -> list[Found]:
    """Several boxes are one answer in parts; where they stand in different paragraphs the last one may be all of it."""
    distinct = list({"".join(box.text.split()): box for box in boxes}.values())
    if len(distinct) < 2:
        return distinct
    parts = Found(", ".join(box.text.strip() for box in distinct), distinct[0].start, distinct[-1].end, BOXED)
    apart = any(
        "\n\n" in text[one.end : other.start] or other.start - one.end > 80 for one, other in pairwise(distinct)
    )
    return [parts, distinct[-1]] if apart else [parts]


def boxed(text: str) -> list[Found]:
    r"""The complete ``\boxed{...}`` and ``\fbox{...}`` that are in no other one, with a scale after them, in one pass."""
    opened: list[tuple[int, int, bool]] = []
    found: list[Found] = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "}":
            if opened:
                outer, start, box = opened.pop()
                if box:
                    while found and found[-1].start > outer:
                        found.pop()
                    scale = _SCALE.match(text, match.end())
                    scaled = text[start : match.start()] + (scale.group().lstrip("$") if scale else "")
                    found.append(Found(scaled, outer, match.end(), BOXED))
        elif token.endswith("{") and token != "\\{":
            opened.append((match.start(), match.end(), token != "{"))
    return [one for one in found if one.text.strip()]


def after_marker(text: str, marker: str) -> list[Found]:
    """The text after a data set's own mark, to the end."""
    start = text.rfind(marker) if marker else -1
    return [Found(text[start + len(marker) :], start, len(text), "untagged form")] if start >= 0 else []


def _after_hashes(text: str) -> Found | None:
    """The text after the last ``####``; a heading counts only in the last line, as in GSM8K's own form."""
    if HASHES not in text:
        return None
    lines = text.rstrip().split("\n")
    end = len(text.rstrip())
    for number in range(len(lines) - 1, -1, -1):
        start = end - len(lines[number])
        if HASHES in lines[number]:
            parts = (part.lstrip("# \t").strip() for part in reversed(lines[number].split(HASHES)[1:]))
            found = next(filter(None, parts), None)
            if found is not None and (number == len(lines) - 1 or not _HEADING.match(found)):
                return Found(found, start + lines[number].index(HASHES), end, HASHES)
        end = start - 1
    return None


def answer_is(text: str, kind: AnswerKind) -> list[Found]:
    """What comes after "the answer is", sentence by sentence; one that is a question is left out where others aren't."""
    found: list[tuple[bool, Found]] = []
    for match in deque(_ANSWER_IS.finditer(text), maxlen=_MAX_CLAIMS):
        if supposed(text, match.start()):
            continue
        start = match.end()
        while start < len(text) and text[start].isspace():
            start += 1
        line = text[start : start + MAX_ANSWER + 1].partition("\n")[0]
        stop = _SENTENCE_END.search(line)
        asked = stop is not None and stop.group() == "?"
        sentence = line[: stop.start()] if stop else line
        end = start + len(sentence)
        if kind is AnswerKind.NUMBER and not _says_a_number(sentence):
            continue
        sentence = _ADVERBS.sub("", _EDGE.sub("", asserted(sentence)), count=1)
        if sentence.strip() and not _ANSWER_IS.match(sentence):
            found.append((asked, Found(sentence, match.start(), end, ANSWER_IS)))
    stated = [one for asked, one in found if not asked]
    return stated or [one for _, one in found]


def closing_number(text: str) -> list[Found]:
    """The number that the last sentence with any comes to; where it has several, the sentence, to be read as a whole."""
    told = [(place, sentence) for place, sentence in sentences(text) if NUMBER.search(sentence)]
    if not told:
        short = len(text) <= _SHORT and not _DIGIT.search(text) and _says_a_number(text)
        return [Found(text.strip(), 0, len(text), "number in words")] if short else []
    place, last = told[-1]
    if _refuted(text, place, last) or supposed(last, len(last.rstrip(".!"))):
        return []
    closing = _concluded(*told[-1])
    if len(told) > 1 and not _CONCLUSION.search(told[-1][1]):
        # "The total is 12. She shared it with 3 friends." or "12 cups. She gave away 8."
        total = next((one for one in reversed(told[:-1]) if _CONCLUSION.search(one[1])), None)
        return [*(_concluded(*one) for one in ([total] if total else [told[0], told[-2]])), closing]
    return [closing]


def _refuted(text: str, place: int, sentence: str) -> bool:
    """Whether a sentence is a question that what comes after it denies."""
    return sentence.endswith("?") and denies(text[place + len(sentence) :])


def concludes(text: str) -> bool:
    """Whether the last sentence with a number says that it comes to that."""
    told = [sentence for _, sentence in sentences(text) if NUMBER.search(sentence)]
    return bool(told) and (_CONCLUSION.search(told[-1]) is not None or asserted(told[-1]) != told[-1])


def _says_a_number(text: str) -> bool:
    return _DIGIT.search(text) is not None or _DIGIT.search(to_numerals(text)) is not None


def _concluded(place: int, sentence: str) -> Found:
    text = asserted(sentence)
    if LEFT_OF_A_DENIAL.search(text):
        return Found(sentence, place, place + len(sentence), "last number")
    parts = _CONNECTIVE.split(text)
    clause = next(part for part in (*reversed(parts), text, sentence) if NUMBER.search(part))
    numbers = [match.group() for match in NUMBER.finditer(clause)]
    sure = len(set(numbers)) == 1 and not _HEDGED.search(clause) and not denies(clause)
    one = numbers[0] if sure else clause.strip(" ,;:")
    return Found(one, place, place + len(sentence), "last number" if len(numbers) == 1 else "last numbers")


def closing_formula(text: str) -> list[Found]:
    r"""The last formula of the last paragraph, where no number follows it: of ``$x = \sqrt{2}$`` 2 is no answer."""
    paragraph = text.rstrip().rpartition("\n\n")[2]
    if len(paragraph) > _MAX_PARAGRAPH:
        return []
    affirmed = asserted(paragraph)
    if _FORMULA.search(paragraph) and not _FORMULA.search(affirmed):
        return []
    denied = any(
        leaves_a_denial(sentence) or _refuted(paragraph, place, sentence)
        for place, sentence in sentences(paragraph)
        if _FORMULA.search(sentence)
    )
    paragraph = affirmed
    formulas = list(_FORMULA.finditer(paragraph))
    if denied or not formulas or _DIGIT.search(paragraph, formulas[-1].end()):
        return []
    return [Found(formulas[-1].group(), len(text) - len(paragraph), len(text), "last formula")]


def last_line(text: str) -> list[Found]:
    """The last line."""
    line = text.strip().rpartition("\n")[2]
    return [Found(line, len(text) - len(line), len(text), "last line")] if line else []
