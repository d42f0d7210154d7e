"""Which option a text in prose chooses: "the answer is B because it fits", "B, not A", "A... wait, actually B"."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from sftkey.evaluation.rules.answers import ANSWER_IS, BOXED, boxed
from sftkey.evaluation.rules.limits import MAX_ANSWER
from sftkey.evaluation.rules.options import letters_in, listed, named, plain, said_to_be_right
from sftkey.evaluation.rules.statements import (
    LEFT_OF_A_DENIAL,
    asserted,
    corrections,
    denies,
    sentences,
    supposed,
    without_reason,
)
from sftkey.evaluation.rules.text import normalise

_BE = r"(?:is|are|was|(?:would|should|must|will|could|may|might|has\sto|have\sto|seems\sto|appears\sto)\sbe)"
_NOT = r"(?!\snot\b|n['’]t\b)"
_ANSWER = re.compile(
    rf"""(?:
        \b(?:answer|choice|option|solution)s?(?:\s(?:to|for|of|here|among)\b[^.:=\n]{{0,60}}?)?
          (?:[ \t*_]{{0,4}}[:=：]|[ \t]{_BE}\b{_NOT})
      | 答案(?:是|为|為)?\s?[:：]?
      | \b(?:Antwort|Respuesta|R[ée]ponse|Risposta|Resposta|Ответ)(?:\s(?:ist|es|est|è|é))?\s?[:：]?
    )[ \t]*(?:[:=：][ \t]*)?""",
    re.IGNORECASE | re.VERBOSE,
)
_CHOOSES = re.compile(
    rf"""\b(?:i|we)(?:\swould|\swill|['’]d|['’]ll)?\s(?:choose|pick|select|go\swith|say|take|vote\sfor|opt\sfor)\b
      | \bgo(?:ing)?\swith\b | \b(?:it|that|this|which)(?:['’]s|\s{_BE})(?=\s\(?[A-Z]\b){_NOT}
      | \b(?:leaves|leaving)(?:\s(?:us|me)\swith)?(?:\sonly)?\b""",
    re.IGNORECASE | re.VERBOSE,
)
_ADVERBS = re.compile(
    r"^(?:(?:probably|likely|most|clearly|therefore|thus|hence|simply|indeed|then|obviously|definitely|still|just|actually|certainly"
    r"|perhaps|maybe)[ \t,]+)+",
    re.IGNORECASE,
)
_EXPLANATION = re.compile(
    r"(?<=\S)\n\s{0,3}\W{0,4}(?:explanation|explained|reason(?:ing)?|justification|because|rationale)\b", re.I
)
_NONE_OF = re.compile(r"\b(?:neither|none)\b", re.I)
_CLAUSE = re.compile(
    r"[;,]\s|\s[—–-]\s|(?<!\ball\s)(?<!\bany\s)(?<!thing\s)(?<!\sthem\s)(?<!\soption\s)\bbut\b|\b(?:so|while)\b", re.I
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|[*_)\"'])|[。！？]")
_LISTED_NO = re.compile(r"\b[A-Z]\s?(?:\)\s?[:–—-]?|[:–—-])[ *_]{0,3}(?:no|incorrect|wrong|false)\b\W{0,3}$", re.I)
"""In a list such as ``A: no. B: yes.`` a no takes nothing back."""
_PUNCTUATION = re.compile(r"[.,;:!?()\[\]]+(?!\d)")
_MAX_CLAIMS = 20

Choice = tuple[str, str]
"""The statement that names an option, and the name of the rule that found it."""

_NONE: Choice = ("", "nothing found")


def chosen(text: str, options: Mapping[str, str]) -> Choice:
    """Find what names the option that a text chooses; an empty statement where it chooses none, or not clearly one."""
    takes_back = [place for place in corrections(text) if not _LISTED_NO.search(text, max(0, place - 12), place)]
    for place in reversed(takes_back[-3:]):
        statement, rule = _chosen(text[place:].lstrip(" ,.:;!—–-…"), options)
        if statement:
            letters = named(statement, options) or frozenset()
            return (next(iter(letters)), "option letter") if len(letters) == 1 else (statement, rule)
    explained = _EXPLANATION.search(text)
    before = _chosen(text[: explained.start()], options) if explained else _NONE
    return before if before[0] else _chosen(text, options)


def _chosen(text: str, options: Mapping[str, str]) -> Choice:
    for find in _RULES:
        choice = find(text, options)
        if choice is not None:
            return choice
    return _NONE


def _answers(text: str, options: Mapping[str, str]) -> Choice | None:
    """What the last "the answer is" that names an option names; nothing clear where it names several."""
    for sentence, line in _told(_ANSWER, text):
        for part in (line, sentence):
            told = _ADVERBS.sub("", part)
            if named(told, options) is not None:
                return told, ANSWER_IS
        choice = _only_letter(sentence, options, ANSWER_IS)
        if choice is not None:
            return choice
    return None


def _chooses(text: str, options: Mapping[str, str]) -> Choice | None:
    """The letter after "I choose", "it must be" and the like."""
    found = (_only_letter(sentence, options, "option letter") for sentence, _ in _told(_CHOOSES, text))
    return next(filter(None, found), None)


def _told(claim: re.Pattern[str], text: str) -> Iterator[tuple[str, str]]:
    """The rest of the sentence, and of the line, after each of the last claims, the last one first; no questions."""
    for match in reversed(deque(claim.finditer(text), maxlen=_MAX_CLAIMS)):
        if supposed(text, match.start()):
            continue
        line = text[match.end() : match.end() + MAX_ANSWER].lstrip().partition("\n")[0]
        end = _SENTENCE_END.search(line)
        if end is None or end.group() not in "?？" or len(line) == end.end():
            yield line[: end.start()] if end else line, line


def _only_letter(sentence: str, options: Mapping[str, str], rule: str) -> Choice | None:
    told = _ADVERBS.sub("", without_reason(asserted(sentence)))
    letters = set() if denies(told) else letters_in(plain(told), options)
    if len(letters) == 1 and not _texts_in(told, options):
        return letters.pop(), rule
    return _NONE if len(letters) > 1 else None


def _boxed(text: str, options: Mapping[str, str]) -> Choice | None:
    boxes = list(dict.fromkeys(box.text.strip() for box in boxed(text)))
    return (", ".join(boxes), BOXED) if boxes else None


def _right(text: str, options: Mapping[str, str]) -> Choice | None:
    letters = said_to_be_right(plain(text), options)
    if len(letters) == 1:
        return letters.pop(), "option letter"
    return _NONE if letters else None


def _last_line(text: str, options: Mapping[str, str]) -> Choice | None:
    line = text.strip().rpartition("\n")[2]
    told = len(line) <= MAX_ANSWER and asserted(line) == line and named(line, options) is not None
    return (line, "option line") if told and not listed(text.strip().rpartition("\n")[0], options) else None


def _first_line(text: str, options: Mapping[str, str]) -> Choice | None:
    """A first line that names an option, and after it an explanation."""
    first, _, rest = text.strip().partition("\n")
    if len(first) <= MAX_ANSWER and rest and named(first, options) is not None and not listed(rest, options):
        return first, "option line"
    return None


def _letter(text: str, options: Mapping[str, str]) -> Choice | None:
    """The only letter in the clauses of the last sentence with letters that deny nothing."""
    for _, sentence in reversed(list(sentences(plain(text)))[-3:]):
        said = _affirmations(sentence, options)
        asks = sentence.endswith("?") and (len(sentence.split()) > 2 or not plain(text).rstrip().endswith(sentence))
        if said is None or asks or (listed(sentence, options) and listed(text.replace(sentence, "", 1), options)):
            return _NONE
        letters = set().union(*(letters_in(without_reason(told), options) for told in said))
        texts = _texts_in(" ".join(said), options)
        if len(letters) == 1 and set(texts) <= {options[letter] for letter in letters}:
            return letters.pop(), "option letter"
        if letters or letters_in(sentence, options):
            return _NONE
    return None


def _affirmations(sentence: str, options: Mapping[str, str]) -> list[str] | None:
    """What the clauses of a sentence assert; ``None`` where one denies something that it doesn't name ("it isn't")."""
    said = []
    if _NONE_OF.search(sentence):
        return None
    for clause in _CLAUSE.split(sentence):
        told = _affirmed(clause)
        if told:
            said.append(told)
        elif clause.strip() and not letters_in(clause, options) and not _texts_in(clause, options):
            return None
    return said


def _affirmed(clause: str) -> str:
    """What a clause asserts; nothing where it denies what it names."""
    told = asserted(clause)
    if supposed(clause, len(clause.rstrip(" .!"))):
        return ""
    if told == clause:
        return "" if denies(clause) else clause
    return "" if LEFT_OF_A_DENIAL.search(told) else told


def _text(text: str, options: Mapping[str, str]) -> Choice | None:
    """The only option whose text stands in what the last line asserts."""
    line = text.strip().rpartition("\n")[2][-MAX_ANSWER:]
    said = [_affirmations(sentence, options) for _, sentence in sentences(line)]
    if None in said:
        return None
    found = _texts_in(" ".join(told for clauses in said for told in clauses or ()), options)
    return (found[0], "option text") if len(found) == 1 else None


def _texts_in(line: str, options: Mapping[str, str]) -> list[str]:
    line = _spaced(line)
    found = []
    # "the sun and the moon" names that option alone, although "the sun" is another one.
    for option in sorted(options.values(), key=len, reverse=True):
        wanted = _spaced(option)
        if wanted.strip() and wanted in line:
            found.append(option)
            line = line.replace(wanted, " \0 ")
    return found


def _spaced(text: str) -> str:
    return f" {' '.join(_PUNCTUATION.sub(' ', normalise(text)).split())} "


_RULES: tuple[Callable[[str, Mapping[str, str]], Choice | None], ...] = (
    _answers,
    _boxed,
    _right,
    _chooses,
    _last_line,
    _first_line,
    _letter,
    _text,
)
