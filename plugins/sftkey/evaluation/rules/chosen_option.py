"""Which option a text in prose chooses: "the answer is B because it fits", "B, not A", "A... wait, actually B"."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping

from sftkey.evaluation.rules.answers import ANSWER_IS, BOXED, boxed
from sftkey.evaluation.rules.limits import MAX_ANSWER
from sftkey.evaluation.rules.options import letters_in, listed, named, plain, said_to_be_right
from sftkey.evaluation.rules.statements import asserted, corrections, denies, sentences, without_reason
from sftkey.evaluation.rules.text import normalise

_BE = r"(?:is|are|was|(?:would|should|must|will|could|may|might|has\sto|have\sto|seems\sto|appears\sto)\sbe)"
_CLAIM = re.compile(
    rf"""(?:
        \b(?:answer|choice|option|solution)s?(?:\s(?:to|for|of|here|among)\b[^.:=\n]{{0,60}}?)?
          (?:[ \t*_]{{0,4}}[:=：]|[ \t]{_BE}\b)
      | 答案(?:是|为|為)?\s?[:：]?
      | \b(?:Antwort|Respuesta|R[ée]ponse|Risposta|Resposta|Ответ)(?:\s(?:ist|es|est|è|é))?\s?[:：]?
      | \b(?:i|we)(?:\swould|\swill|['’]d|['’]ll)?\s(?:choose|pick|select|go\swith|say|take|vote\sfor|opt\sfor)\b
      | \bgo(?:ing)?\swith\b
      | \b(?:it|that|this|which)(?:['’]s|\s{_BE})(?=\s\(?[A-Z]\b)
      | \b(?:leaves|leaving)(?:\s(?:us|me)\swith)?(?:\sonly)?\b
    )(?!(?:\snot\b|n['’]t\b))[ \t]*(?:[:=：][ \t]*)?""",
    re.IGNORECASE | re.VERBOSE,
)
_ANSWER = re.compile(r"answer|choice|option|solution|答案|[AR]\w{2,8}a\b|Antwort|R[ée]ponse|Ответ", re.I)
_ADVERBS = re.compile(
    r"^(?:(?:probably|likely|most|clearly|therefore|thus|hence|simply|indeed|then|obviously|definitely|still|just|actually|certainly"
    r"|perhaps|maybe)[ \t,]+)+",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[;,:]\s|\s[—–-]\s|\b(?:but|so|while)\b", re.I)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|[*_)\"'])|[。！？]")
_PUNCTUATION = re.compile(r"[.,;:!?]+(?!\d)")
_MAX_CLAIMS = 20

Choice = tuple[str, str]
"""The statement that names an option, and the name of the rule that found it."""

_NONE: Choice = ("", "nothing found")


def chosen(text: str, options: Mapping[str, str]) -> Choice:
    """Find what names the option that a text chooses; an empty statement where it chooses none, or not clearly one."""
    for place in reversed(corrections(text)[-3:]):
        statement, rule = _chosen(text[place:].lstrip(" ,.:;!—–-…"), options)
        if statement:
            letters = named(statement, options) or frozenset()
            return (next(iter(letters)), "option letter") if len(letters) == 1 else (statement, rule)
    return _chosen(text, options)


def _chosen(text: str, options: Mapping[str, str]) -> Choice:
    for find in _RULES:
        choice = find(text, options)
        if choice is not None:
            return choice
    return _NONE


def _claimed(text: str, options: Mapping[str, str]) -> Choice | None:
    """What the last of the claims that names an option names; none at all where that claim names several."""
    for claim in reversed(deque(_CLAIM.finditer(text), maxlen=_MAX_CLAIMS)):
        line = text[claim.end() : claim.end() + MAX_ANSWER].lstrip().partition("\n")[0]
        end = _SENTENCE_END.search(line)
        sentence = line[: end.start()] if end else line
        if end and end.group() in "?？" and len(line) > end.end():
            continue
        says_answer = _ANSWER.match(claim.group()) is not None
        for part in (line, sentence) if says_answer else ():
            told = _ADVERBS.sub("", part)
            if named(told, options) is not None:
                return told, ANSWER_IS
        told = _ADVERBS.sub("", without_reason(asserted(sentence)))
        letters = letters_in(plain(told), options)
        if len(letters) == 1 and not _texts_in(told, options):
            return letters.pop(), ANSWER_IS if says_answer else "option letter"
        if len(letters) > 1:
            return _NONE
    return None


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
        clauses = [clause for clause in _CLAUSE.split(asserted(sentence)) if not denies(clause)]
        letters = set().union(*(letters_in(without_reason(clause), options) for clause in clauses))
        if len(letters) == 1:
            return letters.pop(), "option letter"
        if letters or letters_in(sentence, options):
            return _NONE
    return None


def _text(text: str, options: Mapping[str, str]) -> Choice | None:
    """The only option whose text stands in what the last line asserts."""
    found = _texts_in(asserted(text.strip().rpartition("\n")[2][-MAX_ANSWER:]), options)
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
    _claimed,
    _boxed,
    _right,
    _last_line,
    _first_line,
    _letter,
    _text,
)
