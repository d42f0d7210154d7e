"""Which parts of an output can hold its answer: what is thinking, what is an Answer block, where another turn begins.

Reasoning in any notation (``<Thinking>``, ``<think>``, ``<reasoning>``, harmony's channels) is thinking, ``<answer>`` in
any case is an Answer block. The output ends where a turn ends and where the model asks itself a new question. Linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from sftkey.format.formats import THINKING_ANSWER

MAX_OUTPUT = 300_000
"""Most characters of an output that are searched: of a longer one, its beginning and its end."""


class Where(Enum):
    """What a region is."""

    BLOCK = auto()
    UNCLOSED_BLOCK = auto()
    TEXT = auto()
    BEFORE_THINKING = auto()


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an output that can hold its answer; it has more than white space in it."""

    text: str
    where: Where


@dataclass(frozen=True, slots=True)
class Regions:
    """Where an output's answer can stand.

    Attributes:
        found: The regions, of which the last is the likeliest; none where the output holds no answer: it is empty, its
            thinking was never closed, or nothing follows it.
        unfinished: The thinking of an output that holds no answer.
    """

    found: tuple[Region, ...]
    unfinished: str = ""


# The format of the training, which needs no closer look.
_USUAL = re.compile(r"\s*<Thinking>[^<\[◁]*</Thinking>\s*<Answer>([^<\[◁]*)</Answer>\s*")
_THINKING = (
    r"(?:\w{1,20}:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?(?:_\w{1,20})?|reflection|scratch_?pad|analysis"
    r"|(?:inner|internal)_?monologue|chain_?of_?thoughts?|cot)"
)
_MARK = re.compile(
    rf"""[<\[◁](?:
        (?P<answer>\s?/?\s?(?:final[_ -]?)?answer(?:\s[^<>]{{0,100}})?>)
      | (?P<thinking>/?{_THINKING}(?:\s[^<>]{{0,100}})?>|/?THINK\]|/?think▷|\|(?:begin|end)_of_thought\|>)
      | (?P<turn>\|(?:im_end|eot_id|eom_id|eot|end_of_text|endoftext|end_of_turn|return|end|user|human)\|>
          |\|im_start\|>\s{{0,9}}(?:user|human|system)|\|start_header_id\|>\s{{0,9}}(?:user|human|system)
          |\|start\|>\s{{0,9}}(?:user|human|system)|start_of_turn>\s{{0,9}}user|end_of_turn>|eos>|/s>|/?INST\]
          |｜end▁of▁sentence｜>|｜User｜>)
      | (?P<other>\|(?:im_start|start)\|>\s{{0,9}}(?:assistant|model)?|\|assistant\|>|start_of_turn>\s{{0,9}}model
          |\|start_header_id\|>\s{{0,9}}assistant\s{{0,9}}<\|end_header_id\|>|\|(?:begin|end)_of_solution\|>
          |/?(?:solution|response|output|final)>)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s{0,9}(\w{1,40})[^<]{0,200}(?:<\|constrain\|>\w{0,40})?<\|message\|>")
_MESSAGE_END = re.compile(r"<\|(?:end|return|start|call|channel)\|>")
_BARE_FINAL = re.compile(r"assistant\s?final")
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z\"'])")
_USER_TURN = re.compile(r"(?<=[^\s])\s{0,9}\n[ \t>#*_]{0,9}(?:user|human)[ \t*_]{0,4}[:：]", re.IGNORECASE)
_NEW_QUESTION = re.compile(
    r"^[ \t>#*_]{0,20}(?:(?:next|new|another|follow-?up)\s)?"
    r"(?:question|q|problem|task|exercise|puzzle|instruction|prompt|frage|aufgabe|pregunta|问题|問題|题目)"
    r"[ \t]{0,3}\#?\d{0,4}[ \t*_]{0,4}[:：]",
    re.IGNORECASE | re.MULTILINE,
)


def find_regions(output: str) -> Regions:
    """Find where the answer of an output can stand."""
    usual = _USUAL.fullmatch(output)
    if usual and usual.group(1).strip():
        return Regions((Region(usual.group(1).strip(), Where.BLOCK),))
    if len(output) > MAX_OUTPUT:
        output = output[: MAX_OUTPUT // 2] + output[-MAX_OUTPUT // 2 :]
    another = _USER_TURN.search(output)
    if another:
        output = output[: another.start()]
    if "<|channel|>" in output:
        return _harmony(output)
    if _BARE_ANALYSIS.match(output):
        # The same channels where the server dropped the special tokens.
        final = _BARE_FINAL.search(output)
        return _after(output[: final.start()], output[final.end() :]) if final else Regions((), output)
    return _chosen(_parts(output))


class _Kind(Enum):
    TEXT = auto()
    THINKING = auto()
    ANSWER = auto()
    IN_THINKING = auto()


@dataclass(slots=True)
class _Part:
    kind: _Kind
    text: str
    closed: bool


def _harmony(output: str) -> Regions:
    for channel in _CHANNEL.finditer(output):
        if channel.group(1).lower() == "final":
            end = _MESSAGE_END.search(output, channel.end())
            return _after(output[: channel.start()], output[channel.end() : end.start() if end else len(output)])
    return Regions((), output)


def _after(thinking: str, text: str) -> Regions:
    found = _chosen(_parts(text))
    return found if found.found else Regions((), thinking)


def _parts(output: str) -> list[_Part]:
    """Cut an output at its marks."""
    marks = list(_MARK.finditer(output))
    closes = _thinking_closes(marks)
    parts: list[_Part] = []
    kind, start = _Kind.TEXT, 0

    def cut(end: int, *, closed: bool) -> None:
        if output[start:end].strip() or kind is not _Kind.TEXT:
            parts.append(_Part(kind, output[start:end], closed))

    for mark, closing_follows in zip(marks, closes, strict=True):
        if mark.start() < start:
            continue
        name = mark.lastgroup
        opens = "/" not in mark.group()[:3] and not mark.group().startswith("<|end")
        if name == "turn":
            blank = kind is _Kind.TEXT and not output[start : mark.start()].strip()
            if blank and not parts:
                start = mark.end()  # a template's beginning
                continue
            cut(mark.start(), closed=kind is _Kind.TEXT)
            return parts
        closed = True
        if name == "thinking" and opens:
            after = _Kind.THINKING
            closed = kind is not _Kind.ANSWER
        elif name == "thinking":
            after = _Kind.TEXT
            if kind in (_Kind.TEXT, _Kind.ANSWER, _Kind.IN_THINKING):
                # The prompt opened it: what came before is thinking, but for finished answers.
                cut(mark.start(), closed=True)
                for part in parts:
                    part.kind = {_Kind.TEXT: _Kind.THINKING, _Kind.ANSWER: _Kind.IN_THINKING}.get(part.kind, part.kind)
                kind, start = _Kind.TEXT, mark.end()
                continue
        elif name == "answer" and opens:
            within = kind is _Kind.THINKING and closing_follows
            after = _Kind.IN_THINKING if within else _Kind.ANSWER
            closed = kind not in (_Kind.ANSWER, _Kind.IN_THINKING)
        elif name == "answer":
            after = _Kind.THINKING if kind is _Kind.IN_THINKING else _Kind.TEXT
            if kind is _Kind.THINKING:
                continue  # it closes nothing
        else:
            after = kind
            if kind is not _Kind.TEXT:
                continue
        cut(mark.start(), closed=closed)
        kind, start = after, mark.end()
    cut(len(output), closed=kind is _Kind.TEXT)
    return parts


def _thinking_closes(marks: Sequence[re.Match[str]]) -> list[bool]:
    """For each mark, whether the next mark of thinking after it is a closing one."""
    found: list[bool] = []
    closes = False
    for mark in reversed(marks):
        found.append(closes)
        if mark.lastgroup == "thinking":
            closes = "/" in mark.group()[:3] or mark.group().startswith("<|end")
    return found[::-1]


def _chosen(parts: list[_Part]) -> Regions:
    parts = _until_a_new_question(parts)
    answers = [place for place, part in enumerate(parts) if part.kind is _Kind.ANSWER and _text(part)]
    if answers:
        return Regions(tuple(_blocks(parts, answers)))
    first = next((place for place, part in enumerate(parts) if part.kind in (_Kind.THINKING, _Kind.IN_THINKING)), None)
    texts = [part.text for part in (parts if first is None else parts[first:]) if part.kind is _Kind.TEXT]
    if texts:
        # Text between two thinkings may be the whole answer, the text after them may be another one's.
        joined = ["\n".join(texts)] if first is None else list(dict.fromkeys((texts[0], texts[-1])))
        return Regions(tuple(Region(text, Where.TEXT) for text in joined))
    within = [part for part in parts if part.kind is _Kind.IN_THINKING and _text(part)]
    if within and parts[-1].closed:
        return Regions((_block(within[-1]),))
    thinking = "\n".join(part.text for part in parts)
    before = "\n".join(part.text for part in parts[:first] if part.kind is _Kind.TEXT)
    return Regions((Region(before, Where.BEFORE_THINKING),) if before.strip() else (), thinking)


def _text(part: _Part) -> str:
    return (part.text if part.closed else THINKING_ANSWER.cut_off_close(part.text)).strip()


def _block(part: _Part) -> Region:
    return Region(_text(part), Where.BLOCK if part.closed else Where.UNCLOSED_BLOCK)


def _blocks(parts: list[_Part], answers: list[int]) -> list[Region]:
    """The last Answer block; before it that of an earlier response, where one may have ended; text that takes it back."""
    last = answers[-1]
    for earlier, later in pairwise(answers):
        between = parts[earlier + 1 : later]
        if any(part.kind is _Kind.THINKING for part in between):
            # A second thinking: after other text it belongs to another question, else it may be second thoughts.
            asked = between[0].kind is _Kind.TEXT
            return [_block(parts[earlier])] if asked else [_block(parts[earlier]), _block(parts[last])]
    found = [_block(parts[last])]
    trailing = "\n".join(part.text for part in parts[last + 1 :] if part.kind is _Kind.TEXT)
    if trailing:
        found.append(Region(trailing, Where.TEXT))
    return found


def _until_a_new_question(parts: list[_Part]) -> list[_Part]:
    """The parts before the model asks itself a new question after an Answer block."""
    answered = False
    for place, part in enumerate(parts):
        answered = answered or (part.kind is _Kind.ANSWER and bool(_text(part)))
        if answered and part.kind is _Kind.TEXT and (asked := _NEW_QUESTION.search(part.text)):
            before = part.text[: asked.start()]
            return [*parts[:place], *([_Part(_Kind.TEXT, before, True)] if before.strip() else [])]
    return parts


def before_a_new_question(text: str) -> tuple[str, str] | None:
    """A text without tags, cut where the model asks itself a new question; ``None`` where it doesn't."""
    for asked in _NEW_QUESTION.finditer(text):
        if text[: asked.start()].strip():
            return text[: asked.start()], text[asked.start() :]
    return None
