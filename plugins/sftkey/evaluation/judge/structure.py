"""Texts of others in the judge's prompt: what would pass for a part of it is defused.

A model's answer can close the prompt and open another question (``**Question**:``), or hold the tokens with which a chat
template separates turns (``<|im_end|>``), which servers read as such wherever they stand. Both are broken by inserting
characters, so nothing that is taken away can leave another one behind. A text with neither stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

# Tokens of the chat templates in use. Each is broken behind its first character and before its last.
_NAME = r"[^<>＜＞|｜\[\]\n]{1,60}"
_CONTROL = re.compile(
    "|".join(
        (
            rf"[<＜][|｜]{_NAME}[|｜][>＞]",  # ChatML, Llama 3, harmony, Phi, GLM, Command, DeepSeek
            rf"[<＜][|｜](?=\w){_NAME}[>＞]",  # Gemma 4: <|turn>
            r"[<＜][\w/]{1,40}[|｜][>＞]",  # and <turn|>
            rf"\[\|{_NAME}\|\]",  # EXAONE
            r"<</?\w{1,20}>>",  # Llama 2: <<SYS>>
            r"\[/?(?:INST|SYSTEM_PROMPT|SYSTEM|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID"
            r"|PREFIX|SUFFIX|MIDDLE|IMG|BOS|EOS|PAD|CLS|SEP|MASK|gMASK|sMASK|UNUSED_TOKEN_\d{1,4})\]",
            r"</?(?:s|bos|eos|eod|eop|sop|sep|pad|unk|cls|mask|eoh|eoa|eot|im_start|im_end|system|user|assistant|human"
            r"|bot|developer|tool|role|start_of_turn|end_of_turn|start_of_image|end_of_image|start_of_text|end_of_text"
            r"|start_header_id|end_header_id|eot_id|end_of_utterance|endoftext|message|channel"
            r"|reserved_\d{1,4}|unused\d{1,5}|extra_id_\d{1,3}|seed:\w{1,20}|\w{1,20}_(?:bos|eos|pad|sep))>",
            r"\]~[!a-z]?\]|\[e~\[",  # MiniMax
        )
    ),
    re.I,
)

_LINE_END = re.compile("(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")

# What a header of another question, answer or turn is called.
_SECTIONS = r"question|response|problem|instructions?|judge?ment|verdict|(?:next|new) question"
_TURNS = r"user|assistant|human|system|developer"
_NUMBER = r"(?:\s{0,9}\d+)?"


@dataclass(frozen=True)
class Structure:
    """How the parts of a prompt are told apart.

    Attributes:
        marked: Finds a header in bold or with ``#``, in a normalised line.
        plain: Matches a line that begins with one without.
        closing: The sentences after the last slot, by their words.
    """

    marked: re.Pattern[str]
    plain: re.Pattern[str]
    closing: tuple[str, ...]

    @classmethod
    def of(cls, before_slots: Iterable[str], after: str) -> Structure:
        """Find them in the texts before each slot of a template and after the last."""
        labels = [
            next((words for line in reversed(text.splitlines()) if (words := _words(line))), "")
            for text in before_slots
        ]
        own = [r"\s{1,9}".join(map(re.escape, label.split())) for label in labels if 0 < len(label) <= 60]
        names = "|".join([*own, _SECTIONS, _TURNS])
        return cls(
            re.compile(rf"(?:#|\*\*|__|<)[\W_]{{0,12}}(?:{names}){_NUMBER}\s*(?:[*_:>]|$)"),
            re.compile(rf"[\W_]*(?:{names}){_NUMBER}\s*(?::|$)"),
            tuple(words for line in after.splitlines() if (words := _words(line)).count(" ") >= 2),
        )

    def defused(self, text: str, *, answer: bool) -> str:
        """Break what would pass for a part of the prompt. Linear in the text's length.

        Args:
            text: What goes into a slot.
            answer: Whether it is an answer. A question may well have lines such as ``Question:`` or ``User:``.

        Returns:
            The text, the same where there is nothing to break.
        """
        parts = _LINE_END.split(_CONTROL.sub(_broken, text))
        for index in range(0, len(parts), 2):
            # An answer that is nothing but "human" is an answer.
            if self._forged(parts[index], plain=answer and index > 0):
                parts[index] = "| " + _DOUBLE_MARK.sub(r"\1 ", parts[index])
        return "".join(parts)

    def _forged(self, line: str, *, plain: bool) -> bool:
        shown = _normal(line)
        if self.marked.search(shown) or (plain and self.plain.match(shown)):
            return True
        words = _words(shown) if self.closing and len(shown) > 8 else ""
        return any(closing in words for closing in self.closing)


_DOUBLE_MARK = re.compile(r"([*_＊＿#])(?=[*_＊＿#])")


def _normal(line: str) -> str:
    """Without invisible characters, compatibility forms and case."""
    if not line.isascii():
        line = unicodedata.normalize("NFKC", line)
        line = "".join(character for character in line if unicodedata.category(character) != "Cf")
    return line.casefold()


def _words(line: str) -> str:
    """The words of a line, with one space between."""
    return " ".join(re.findall(r"[^\W_]+", _normal(line)))


def _broken(match: re.Match[str]) -> str:
    token = match.group()
    return f"{token[0]} {token[1:-1]} {token[-1]}"
