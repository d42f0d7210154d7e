r"""The verdict in a judge's reply: yes, no, or neither, read strictly.

A wrong verdict is worse than none, so a reply counts only where all of it agrees: one of the forms below, no second
verdict, nothing around it that says the contrary or hedges. What a judge thinks before it replies is not read.

- ``yes``, ``**Yes.**``, ``Yes, they are the same``: the word first.
- ``Answer: yes``, ``## Verdict`` above ``no``, ``<answer>yes</answer>``, ``\boxed{yes}``: marked, and last.
- ``{"verdict": "yes"}``: one JSON object.
"""

from __future__ import annotations

import json
import re
from typing import Any

_MAX_REPLY = 4_000_000
_MAX_VERDICT = 2_000

# The ends of thinking in the formats in use; a judge whose template opens it sends only the end.
_THINKING = r"think|thinking|thought|thoughts|reasoning|analysis|reflection|seed:think|scratchpad"
_OPENED = re.compile(rf"<(?:{_THINKING})>|\[THINK\]|<\|(?:begin_of_thought|START_THINKING)\|>|◁think▷", re.I)
_CLOSED = re.compile(rf"</(?:{_THINKING})>|\[/THINK\]|<\|(?:end_of_thought|END_THINKING)\|>|◁/think▷", re.I)
_FINAL_CHANNEL = re.compile(r"<\|channel\|>final<\|message\|>|\bassistantfinal")
_CHANNEL = re.compile(r"<\|channel\|>|^analysis(?=[A-Z\s])")
_TURN_TOKENS = re.compile(r"(?:<\|[\w ]{1,40}\|>|</s>|<end_of_turn>){1,4}\s{0,9}\Z")

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

_KEYS = (
    "verdict|answer|reply|response|result|judge?ment|decision|conclusion|output|same|equal|equivalent|match"
    "|(?:are|is)[ _]?(?:the[ _]?)?(?:same|equal|equivalent)|final[ _]?(?:answer|verdict|decision|judge?ment|reply)"
)
_KEY = re.compile(_KEYS, re.I)
_THOUGHT_KEY = re.compile(rf"(?:{_THINKING}|steps?)", re.I)
_LABEL = re.compile(
    rf"(?:^|(?<=[.!]\s)|(?<=\n))[\s>#*_`\-]{{0,12}}(?:(?:my|the|so)\s+){{0,2}}(?:{_KEYS})(?:\s+is)?[*_\s]{{0,6}}:[\s*_`]{{0,12}}",
    re.I,
)
_HEADING = re.compile(rf"(?:^|(?<=\n))[ \t]{{0,8}}(?:#{{1,6}}|\*\*)[ \t]*(?:{_KEYS})[ *_:]{{0,8}}\n[\s*_]{{0,8}}", re.I)
_TAG = re.compile(r"<(answer|verdict|reply|judge?ment|output|response|result|final_answer)>([^<]{0,200})</\1>", re.I)
_BOX = re.compile(r"\\boxed\s*\{\s*(?:\\(?:text|textbf|mathrm|mathbf|bf|rm)\s*\{([^{}]{0,100})\}|([^{}]{0,100}))\s*\}")


def read_verdict(reply: str) -> bool | None:
    """Read yes or no from a judge's reply.

    Args:
        reply: The text of the judge's message.

    Returns:
        ``True`` for yes, ``False`` for no, ``None`` for a reply that is neither, both, or cut off while thinking.
    """
    if len(reply) > _MAX_REPLY:
        return None
    text = _after_thinking(reply)
    if text is None:
        return None
    text = _TURN_TOKENS.sub("", text).strip()
    if text.startswith(("{", "```")) and (found := _json_object(text)) is not None:
        return _in_object(found)
    marked = _marked(text)
    return _first_word(text) if marked is None else _at_the_end(text, *marked)


def _after_thinking(reply: str) -> str | None:
    """What follows the thinking; ``None`` where that was never closed."""
    *thought, final = _FINAL_CHANNEL.split(reply)
    if thought:
        return final
    if _CHANNEL.search(reply):
        return None
    *_, text = _CLOSED.split(reply)
    return None if _OPENED.search(text) else text


def _first_word(text: str) -> bool | None:
    """The verdict of a text that begins with it."""
    match = _VERDICT.match(text[:_MAX_VERDICT])
    if match is None:
        return None
    same = match.group(1).lower() == "yes"
    rest = match.group(2)
    if not _WORD.search(rest):
        return same
    if _SAME_PHRASE.match(rest) and not _SUBJECT.match(rest):
        return None  # "No idea", "yes man": another phrase that happens to begin with the word
    return None if _contradicts(same, rest) else same


def _contradicts(same: bool, text: str) -> bool:
    """Whether a text beside a verdict has the other word, hedges, or says the contrary."""
    return _HEDGE.search(text) is not None or _has_word(not same, text) or _denies(same, text)


def _denies(same: bool, text: str) -> bool:
    negated, different = _NEGATION.search(text), _DIFFERENCE.search(text)
    return bool(negated or different) if same else bool(_SAMENESS.search(text)) and not negated and not different


def _has_word(same: bool, text: str) -> bool:
    return re.search(r"\byes\b" if same else r"\bno\b", text, re.I) is not None


def _marked(text: str) -> tuple[int, str] | None:
    """Where the last marked verdict begins, and the text from it on, without the mark."""
    skipped = max(0, len(text) - _MAX_VERDICT)
    text = text[skipped:]
    marks = [(match, match.group(1) or match.group(2) or "") for match in _BOX.finditer(text)]
    marks += [(match, match.group(2)) for match in _TAG.finditer(text)]
    marks += [(match, "") for pattern in (_LABEL, _HEADING) for match in pattern.finditer(text)]
    found = [(match.start() + skipped, inside + text[match.end() :]) for match, inside in marks]
    # "Answer: \boxed{yes}" is one verdict with two marks; "Result: 18" is none.
    return max((one for one in found if _VERDICT.match(_bare(one[1]))), default=None)


def _bare(marked: str) -> str:
    return re.sub(r"^[\s$]*\\(?:text|boxed)\s*\{", "", marked[:_MAX_VERDICT])


def _at_the_end(text: str, start: int, marked: str) -> bool | None:
    """The verdict of a mark that ends a reply. The reasoning before it may say anything but the other verdict."""
    same = _first_word(_bare(marked))
    before = text[:start]
    if same is None or _has_word(not same, before):
        return None
    lines = [line for line in re.split(r"\n|(?<=[.!])\s", before) if _WORD.search(line)]
    if not lines:
        return same
    last = lines[-1]
    on_one_line = "\n" not in before[before.rindex(last) + len(last) :]
    # A question could have been the contrary one; "it is not \boxed{yes}" is.
    if "?" in last or (_contradicts(same, last) if on_one_line else _denies(same, last)):
        return None
    if on_one_line and _NEGATION.search(last) and not (_SAMENESS.search(last) or _DIFFERENCE.search(last)):
        return None
    return same


def _json_object(text: str) -> dict[str, Any] | None:
    inner = re.sub(r"^```(?:json)?\s*|\s*```$", "", text, flags=re.I)
    try:
        found = json.loads(inner, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _in_object(found: dict[str, Any]) -> bool | None:
    verdicts: set[bool | None] = set()
    others: list[str] = []
    for key, value in found.items():
        if _KEY.fullmatch(key):
            verdicts.add(value if isinstance(value, bool) else _first_word(value) if isinstance(value, str) else None)
        elif isinstance(value, str) and not _THOUGHT_KEY.fullmatch(key):
            others.append(value)
    if len(verdicts) != 1:
        return None
    (same,) = verdicts
    return None if same is None or any(_contradicts(same, text) for text in others) else same
