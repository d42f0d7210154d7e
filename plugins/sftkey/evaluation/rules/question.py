"""What a question asks for, as far as it bears on the verdict: a unit or scale, a list, an order, a loss."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import dropwhile

from sftkey.evaluation.rules import units

SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}

_MAX_QUESTION = 4_000
_SENTENCE = re.compile(r"(?<=[.?!])\s")
_ASKS = re.compile(r"\?|\b(?:how|what|which|find|determine|calculate|compute|give|express|write)\b", re.I)
_HOW_MANY = re.compile(r"\b(?:how\smany|number\sof|amount\sof|how\smuch)\s((?:[^\W\d_]+[\s-]?){1,4})", re.I)
_IN_UNITS = re.compile(r"\bin\s([a-z]{2,12}s|feet)\b", re.I)
_ADJECTIVES = frozenset("more total additional full whole extra fewer less other of the".split())
_HOW = re.compile(r"\bhow\s(many|much)\b|\bby\swhat\b|\bwhat\s(?:is|was)\b", re.I)
_LOSS = re.compile(
    r"\b(?:los(?:e|es|t|ing|s|ses)|ow(?:e|es|ed|ing)|debts?|deficit|decreas\w*|drop(?:s|ped)?|declin\w*|reduc\w*"
    r"|depreciat\w*|f[ae]ll(?:s|en)?|shrink\w*|shrank|fewer|less|below)\b",
    re.I,
)
_SIGNED = re.compile(r"\bnegative\b|\bsigned\b|\bminus\b|\bchanges?d?\b", re.I)
_LIST = re.compile(
    r"\b(?:all|every|each)\b[^.?!]{0,60}\b(?:values?|solutions?|roots?|integers?|numbers?|pairs?|triples?|primes?|x|n|"
    r"possib\w+|such)\b|\bfind\sall\b|\bdetermine\sall\b|\blist\b|\bwhat\sare\b|\bwhich\s(?:numbers|values|integers)\b"
    r"|\bsolutions\b|\broots\b",
    re.I,
)
_ORDER = re.compile(
    r"\border(?:ed)?\b|\brespectively\b|\bascending\b|\bdescending\b|\barrange\b|\bsort\b|\bsequence\b", re.I
)
_PERCENT = re.compile(r"\bpercent(?:age)?s?\b|%|\bper\scent\b", re.I)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks for.

    Attributes:
        given: Whether there is a question at all.
        nouns: What is counted: the word after each "how many", singular.
        unit: The unit it asks for; may be empty.
        scale: 1,000 where it asks how many thousands; 1 otherwise.
        loss: Whether it asks for a loss, a debt or a decrease.
        signed: Whether the sign of the answer says whether it is one.
        listed: Whether it asks for all of several values.
        ordered: Whether their order matters.
        percent: Whether it speaks of percent.
    """

    given: bool = False
    nouns: tuple[str, ...] = ()
    unit: str = ""
    scale: int = 1
    loss: bool = False
    signed: bool = False
    listed: bool = False
    ordered: bool = False
    percent: bool = False


@lru_cache(maxsize=256)
def asked(question: str) -> Asked:
    """Read a question. Bounded: only its last part counts."""
    text = " ".join(question[-_MAX_QUESTION:].split())
    if not re.search(r"\w", text):
        return Asked()
    sentences = [sentence for sentence in _SENTENCE.split(text) if _ASKS.search(sentence)] or [text]
    asking = " ".join(sentences[-2:])
    nouns: list[str] = []
    for found in _HOW_MANY.findall(asking):
        words = [units.singular(word.casefold()) for word in re.split(r"[\s-]", found) if word]
        nouns += list(dropwhile(_ADJECTIVES.__contains__, words))[:1]
    named = [*nouns, *(units.singular(word.casefold()) for word in _IN_UNITS.findall(asking))]
    scale = next((SCALES[word] for word in named if word in SCALES), 1)
    unit = next((word for word in named if units.known(word) and word not in ("in", "unit", "item", "piece")), "")
    return Asked(
        given=True,
        nouns=tuple(nouns),
        unit=unit,
        scale=scale,
        loss=bool(_HOW.search(asking) and _LOSS.search(asking)),
        signed=bool(_SIGNED.search(asking)),
        listed=bool(_LIST.search(asking)),
        ordered=bool(_ORDER.search(asking)),
        percent=bool(_PERCENT.search(asking)),
    )
