r"""Find the answer of an output, with or without tags.

In this order: the Answer block; an Answer block that was never closed; the data set's own conventions (its untagged
form, ``#### x``, ``\boxed{x}``, "the answer is x", an option's letter or text); the last number (in maths the last formula,
where that comes last), or for free text the last line. Every search is linear in the length of the output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules import options as multiple_choice
from sftkey.evaluation.rules.limits import MAX_ANSWER
from sftkey.evaluation.rules.text import normalise
from sftkey.format import tags
from sftkey.format.untagged import UntaggedForm


@dataclass(frozen=True, slots=True)
class Extraction:
    """The answer of an output.

    Attributes:
        text: The answer without white space around it, ``None`` where there is none; cut to `MAX_ANSWER` + 1
            characters, which is too long to be compared.
        rule: The rule that found it, as logged; two, joined by a comma, where one found it inside the other's.
    """

    text: str | None
    rule: str


_Convention = tuple[str, Callable[[str], str | None]]

_HASHES = "####"
# "#### Step 3: add them up" and "#### 3. Compute the total" are headings of an untagged output, not its answer.
_HEADING = re.compile(r"(?:\d+[.)]\s+)?[*_]*[^\W\d_]{2,}")
_ANSWER_IS = re.compile(
    r"\banswer(?:[ \t]+is\b|[ \t]*[:=]\**)(?![ \t]+not\b)[ \t]*(?:[:=]\**)?\s*(\S[^\n]*)", re.IGNORECASE
)
_OPTION_IS = re.compile(
    r"\b(?:answer|choice|option)(?:[ \t]+is\b|[ \t]*[:=])(?![ \t]+not\b)[ \t]*[:=]?\s*(\S[^\n]*)", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"\.(?=\s|$)")
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_NUMBER = re.compile(
    r"""(?<![\w.])[-\u2212]?[$€£]?
    (?: \\[dt]?frac\{\d+\}\{\d+\}
      | (?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?
        (?: [eE][-+]?\d+(?!\w) | \^\{?-?\d+\}? | [⁰¹²³⁴-⁹]+ | \s?[¼-¾⅐-⅞] | \s?/\s?\d+(?![\d.]) )?
      | [¼-¾⅐-⅞]
    )
    (?: \s?\\?% | [ ](?:percent|hundred|thousand|million|billion|trillion|dozen)\b )?""",
    re.VERBOSE | re.IGNORECASE,
)
_LETTER = re.compile(r"\(([A-Za-z])\)")
_LAST_WORD = re.compile(r"(?<![\w'’])([A-Z])[\s.)*_]*$")
_IS_RIGHT = re.compile(r"^\W*([A-Z])\s+is\s+(?:the\s+)?(?:correct|right|best)\b")
_DIGIT = re.compile(r"\d")
_FORMULA = re.compile(r"\$\$[^$]+\$\$|\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
_MAX_PARAGRAPH = 2_000
_PUNCTUATION = re.compile(r"[.,;:!?]+(?!\d)")


def extract(
    output: str, kind: AnswerKind, untagged: UntaggedForm, options: Mapping[str, str] | None = None
) -> Extraction:
    """Find the answer of an output.

    Args:
        output: The model's output, of any length and content.
        kind: The kind of the data set's answers.
        untagged: The data set's own form without tags.
        options: For multiple choice, the options of this question, letter -> text.
    """
    block = tags.find_answer_block(output)
    if block is not None:
        name = "answer block" if block.closed else "unclosed answer block"
        inner = _first(_inside_a_block(kind), block.text)
        return _extraction(block.text, name) if inner is None else _extraction(inner[1], f"{name}, {inner[0]}")
    conventions = _conventions(kind, untagged, options or {})
    # An answer belongs after the thinking; the thinking is searched only where nothing is found there.
    for region in (tags.after_thinking(output), tags.without_tags(output)):
        found = _first(conventions, region)
        if found is not None:
            rule, text = found
            if rule == "\\boxed" and text.strip() not in output:
                # A tag stood inside the braces: keep what comes before it.
                text = text.strip().partition("\n")[0]
            return _extraction(text, rule)
    return Extraction(None, "nothing found")


def _extraction(text: str, rule: str) -> Extraction:
    return Extraction(text.strip()[: MAX_ANSWER + 1], rule)


def _first(conventions: Sequence[_Convention], text: str) -> tuple[str, str] | None:
    if not text.strip():
        return None
    for name, find in conventions:
        found = find(text)
        if found is not None and found.strip():
            return name, found
    return None


def _inside_a_block(kind: AnswerKind) -> Sequence[_Convention]:
    # A free text may itself say what "the answer is"; how options are named is for their comparison.
    if kind is AnswerKind.NUMBER:
        return (("####", _after_hashes), ("\\boxed", last_boxed), ("the answer is", _number_after_answer_is))
    if kind is AnswerKind.MATHS:
        return (("\\boxed", last_boxed), ("####", _after_hashes), ("the answer is", _after_answer_is))
    return ()


def _conventions(kind: AnswerKind, untagged: UntaggedForm, options: Mapping[str, str]) -> Sequence[_Convention]:
    if kind is AnswerKind.NUMBER:
        return (*_inside_a_block(kind), ("last number", _last_number))
    if kind is AnswerKind.MATHS:
        return (*_inside_a_block(kind), ("last formula", _closing_formula), ("last number", _last_number))
    if kind is AnswerKind.OPTION:
        return (
            ("the answer is", partial(_option_after_answer_is, options=options)),
            ("\\boxed", last_boxed),
            ("option line", partial(_option_in_last_line, options=options)),
            ("option letter", partial(_last_letter, options=options)),
            ("option text", partial(_only_option_in_last_line, options=options)),
        )
    return (
        ("untagged form", partial(_after_marker, marker=untagged.between.strip())),
        ("####", _after_hashes),
        ("\\boxed", last_boxed),
        ("the answer is", _after_answer_is),
        ("last line", _last_line),
    )


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{...}`` or ``\fbox{...}``, in one pass."""
    opened: list[tuple[int, bool]] = []
    found: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "}":
            if opened:
                start, boxed = opened.pop()
                if boxed:
                    found = start, match.start()
        elif token.endswith("{") and token != "\\{":
            opened.append((match.end(), token != "{"))
    return None if found is None else text[found[0] : found[1]]


def _last(pattern: re.Pattern[str], text: str, group: int = 0) -> str | None:
    found: str | None = None
    for match in pattern.finditer(text):
        found = match.group(group)
    return found


def _after_marker(text: str, marker: str) -> str | None:
    return text.rpartition(marker)[2] if marker and marker in text else None


def _after_hashes(text: str) -> str | None:
    """The text after the last ``####``; a heading counts only in the last line, as in GSM8K's own form."""
    lines = text.rstrip().split("\n")
    for number in range(len(lines) - 1, -1, -1):
        if _HASHES not in lines[number]:
            continue
        parts = (part.lstrip("# \t").strip() for part in reversed(lines[number].split(_HASHES)[1:]))
        found = next(filter(None, parts), None)
        if found is not None and (number == len(lines) - 1 or not _HEADING.match(found)):
            return found
    return None


def _after_answer_is(text: str) -> str | None:
    line = _last(_ANSWER_IS, text, 1)
    return None if line is None else _SENTENCE_END.split(line, maxsplit=1)[0]


def _number_after_answer_is(text: str) -> str | None:
    found = _after_answer_is(text)
    return found if found is not None and _DIGIT.search(found) else None


def _last_number(text: str) -> str | None:
    return _last(_NUMBER, text)


def _closing_formula(text: str) -> str | None:
    r"""The last formula of the last paragraph, where no number follows it: of ``$x = \sqrt{2}$`` 2 is no answer."""
    paragraph = text.rstrip().rpartition("\n\n")[2]
    if len(paragraph) > _MAX_PARAGRAPH:
        return None
    formulas = list(_FORMULA.finditer(paragraph))
    if not formulas or _DIGIT.search(paragraph, formulas[-1].end()):
        return None
    return formulas[-1].group()


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _option_after_answer_is(text: str, options: Mapping[str, str]) -> str | None:
    line = _last(_OPTION_IS, text, 1)
    if line is None:
        return None
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0]
    return next((part for part in (line, sentence) if _names_an_option(part, options)), None)


def _option_in_last_line(text: str, options: Mapping[str, str]) -> str | None:
    line = _last_line(text)
    return line if line and _names_an_option(line, options) else None


def _names_an_option(text: str, options: Mapping[str, str]) -> bool:
    return len(text) <= MAX_ANSWER and multiple_choice.named(text, options) is not None


def _last_letter(text: str, options: Mapping[str, str]) -> str | None:
    letters = [match.group(1) for match in _LETTER.finditer(text) if match.group(1).upper() in options]
    if letters:
        return letters[-1]
    line = _last_line(text)[-MAX_ANSWER:]
    lone = _IS_RIGHT.search(line) or _LAST_WORD.search(line)
    return lone.group(1) if lone is not None and lone.group(1) in options else None


def _only_option_in_last_line(text: str, options: Mapping[str, str]) -> str | None:
    line = _spaced(_last_line(text)[-MAX_ANSWER:])
    named = []
    # "the sun and the moon" names that option alone, although "the sun" is another one.
    for option in sorted(options.values(), key=len, reverse=True):
        wanted = _spaced(option)
        if wanted.strip() and wanted in line:
            named.append(option)
            line = line.replace(wanted, " \0 ")
    return named[0] if len(named) == 1 else None


def _spaced(text: str) -> str:
    return f" {' '.join(_PUNCTUATION.sub(' ', normalise(text)).split())} "
