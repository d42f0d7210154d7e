"""Options of a multiple-choice question, named by letter, by text, or by both."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sftkey.evaluation.rules import text as free_text
from sftkey.evaluation.rules.number_words import to_numerals
from sftkey.evaluation.rules.statements import asserted, without_reason

HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
"""Full-width letters, digits and punctuation, as in （Ｂ）, to the usual ones; for `str.translate`."""

_MARKUP = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed)\s*\{|[{}$*`_\"“”]|\\[()\[\]]|</?(?:b|i|strong|em)>"
    r"|[\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f300-\U0001faff]"
)
_QUOTED = re.compile(r"(?<!\w)['‘<]\s?([A-Za-z])\s?['’>](?!\w)")
_LEAD = re.compile(
    r"^[\s>#•·–—-]*(?:the\s+)?(?:correct\s+|right\s+|best\s+|final\s+|most\s+likely\s+)*"
    r"(?:(?:answer|option|choice|letter)s?(?:\s*(?:is\b|must\s+be\b|should\s+be\b|:|=)){0,2}"
    r"\s*(?:the\s+(?=letter|option|choice))?){0,3}",
    re.I,
)
_LABELLED = re.compile(
    r"^\s*(?:(?:option|choice|letter)\s+)?(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])\s*[.):,\-–—]|([A-Z])\s+)(.*)$", re.S
)
_LOWER_CASE = re.compile(r"^\s*([a-z])\s*[.):]\s*(.*)$", re.S)
_LONE = re.compile(r"^\s*+(?:(?:option|choice|letter)\s++)?[(\[]?\s*+([A-Za-z])\s*+[)\]]?\s*+[.:,;!)]?\s*+$", re.I)
_AT_THE_END = re.compile(r"^(.*\S)\s*[(\[]\s*([A-Za-z])\s*[)\]][\s.]*$", re.S)
_IS_RIGHT = re.compile(
    r"(?<![\w'’])(?:([A-Z])\b\W{0,2}\s?(?:is\s(?:(?:the|clearly|definitely|obviously|most\slikely)\s)?(?:correct|right|best|answer|true)\b|it\sis\b)"
    r"|(?:[Oo]ption\s)?\(?([A-Z])\)?[.:]?\s?(?:[:)–—-]\s?(?:[Yy]es|[Cc]orrect|[Rr]ight|[Tt]rue)\b))",
)
_LONGEST_LOOSE = 80
_DOUBTED = re.compile(
    r"(?:\b(?:neither|nor|none|not|never|if|whether|either|both|unless)\b|n['’]t\b)[^.!?;\n]*$|\b[A-Z][)\]]?\s?(?:,|\band\b|\bor\b)\s?$"
)
_DENIED = re.compile(
    r"^\W*(?:(?:no|nope|wrong|incorrect|false)\W*$|(?:(?:is|was|are|can|could|would|will|does|do|has|have|seems|looks)(?:n['’]?t)?\b|cannot\b)"
    r"[^.;,\n]{0,60}?(?:(?<=n't)|(?<=n’t)|\b(?:wrong|incorrect|false|not|no|out|untrue|cannot)\b))",
    re.I,
)
_NAMED = re.compile(
    r"\b(?:vitamin|hepatitis|type|group|class|grade|plan|point|figure|team|step|part|phase|drug)s?\s$", re.I
)
_NOUN = re.compile(
    r" (?![a-z]*[^\Wsiu]s\b)"  # a verb, as in "A beats C"
    r"(?!(?:and|over|or|nor|is|it|was|but|because|since|as|rather|not|if|would|can|seems|looks|for)\b)[a-z]"
)
_LETTERS = re.compile(r"(?<![\w'’])[A-Z](?![\w'’])")


def named(answer: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """Find the option that an answer names: ``B``, ``(B)``, ``B. quit eating lunch out``, or the option's text.

    Args:
        answer: An extracted answer.
        options: The choices, letter -> text.

    Returns:
        One letter, or several where options have the same text; empty for a letter that is none of the options;
        ``None`` for no option, several letters, or a letter with the text of another option.
    """
    whole, options = plain(answer), {letter: plain(text) for letter, text in options.items()}
    found = _named(whole, options)
    if found is not None:
        return found
    right = said_to_be_right(whole, options)
    if right:
        return frozenset(right) if len(right) == 1 else None
    first, _, rest = whole.strip().partition("\n")
    if rest:
        found = _named(first, options)
        if found is not None:
            return found if not listed(rest, options) and _named(rest, options) in (None, found) else None
    reasoned = without_reason(whole)
    for shorter in dict.fromkeys((whole, reasoned, asserted(whole), asserted(reasoned))):
        if (found := _named(shorter, options)) is not None:
            return found
    return None


def plain(text: str) -> str:
    """A text without mark-up, ornaments, quotes and full-width forms."""
    text = text.translate(HALF_WIDTH)
    text = _QUOTED.sub(r"(\1)", text)
    return _MARKUP.sub("", text)


def said_to_be_right(text: str, options: Mapping[str, str]) -> set[str]:
    """The letters that a text calls right: "B is correct", "Option B: yes", "B it is"."""
    found = {
        next(filter(None, match.groups())).upper()
        for match in _IS_RIGHT.finditer(text)
        if not _DOUBTED.search(text, max(0, match.start() - 60), match.start())
        and not text[match.end() : match.end() + 9].lstrip(" )*").startswith("?")
    }
    return found & options.keys()


def labelled(text: str, options: Mapping[str, str]) -> bool:
    """Whether a text begins with an option's label, as in ``B. wind``."""
    label = _LABELLED.match(plain(text))
    return label is not None and any(group in options for group in label.groups()[:2])


def listed(text: str, options: Mapping[str, str]) -> bool:
    """Whether a line of a text begins with an option's label."""
    return any(
        (label := _LABELLED.match(line)) is not None and any(group in options for group in label.groups()[:2])
        for line in text.split("\n")
    )


def letters_in(text: str, options: Mapping[str, str]) -> set[str]:
    """The options' letters that stand alone in a text; an article is none."""
    found = set()
    for match in _LETTERS.finditer(text):
        article = match.group() in "AI" and _NOUN.match(text, match.end())
        compound = _NAMED.search(text, max(0, match.start() - 12), match.start())
        if match.group() in options and not article and not compound:
            found.add(match.group())
    return found


def _named(answer: str, options: Mapping[str, str]) -> frozenset[str] | None:
    whole = answer
    answer = _LEAD.sub("", answer, count=1)
    if lone := _LONE.match(answer):
        letter = lone.group(1).upper()
        return frozenset({letter}) if letter in options else _with_text(answer, options)
    by_text = _with_text(answer, options) or _with_text(whole, options)
    lower_case = _LOWER_CASE.match(answer)
    if lower_case and (letter := lower_case.group(1).upper()) in _with_text(lower_case.group(2), options):
        return frozenset({letter})
    labelled = _LABELLED.match(answer)
    if labelled is None:
        at_the_end = _AT_THE_END.match(answer)
        if (
            not by_text
            and at_the_end
            and (letter := at_the_end.group(2).upper()) in _with_text(at_the_end.group(1), options)
        ):
            return frozenset({letter})
        return by_text or None
    letter = next(filter(None, labelled.groups()[:3])).upper()
    rest = labelled.group(4)
    rest_means = _with_text(rest, options)
    if letter in options and (letter in rest_means or not free_text.normalise(rest)):
        return frozenset({letter})
    if letter in options and labelled.group(3) is None and not rest_means and not _DENIED.match(rest):
        others = set(re.findall(r"\b[A-Z]\b", rest)) & set(options) - {letter}
        if not others and not _means_another(rest, letter, options):
            return frozenset({letter})
    if labelled.group(3) is None and letter not in options and not by_text and not _DENIED.match(rest):
        named_too = {other for other in options if re.search(rf"\b{other}\b", rest)}
        if not named_too and not rest_means and "\n" not in rest.strip():
            return frozenset()
    # "A plant" is an option's text, not option A with the text "plant"; "B. wind" where wind is option C is neither.
    return by_text or None


def _means_another(rest: str, letter: str, options: Mapping[str, str]) -> bool:
    """Whether what follows a letter begins with the text of another option and not with that of its own."""
    said = f"{free_text.normalise(rest)} "
    own = free_text.normalise(options[letter])
    others = [free_text.normalise(text) for other, text in options.items() if other != letter]
    return not said.startswith(f"{own} ") and any(text and said.startswith(f"{text} ") for text in others)


def _with_text(answer: str, options: Mapping[str, str]) -> frozenset[str]:
    """The options with a text, or else the only one with it but for a plural or a number in words."""
    wanted = free_text.normalise(answer)
    if not wanted:
        return frozenset()
    texts = {letter: free_text.normalise(text) for letter, text in options.items()}
    same = frozenset(letter for letter, text in texts.items() if text == wanted)
    if same or len(wanted) > _LONGEST_LOOSE:
        return same
    loosely = frozenset(letter for letter, text in texts.items() if _loose(text) == _loose(wanted))
    return loosely if len(loosely) == 1 else frozenset()


def _loose(text: str) -> str:
    return to_numerals(text).removesuffix("s")
