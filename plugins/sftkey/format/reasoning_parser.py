"""An output, as far as it has grown, split into thinking and answer; and a reasoning parser of vLLM's that does it.

Imports nothing of this package: a finished stage has a copy beside its weights, which ``vllm serve
--reasoning-parser-plugin`` loads where this package isn't installed.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

PARSER = "sftkey"
"""The name for ``--reasoning-parser``."""

KEY = "sftkey_format"
"""Where a tokenizer's ``tokenizer_config.json`` has the texts around thinking and answer."""

PAPER = {
    "thinking_open": "<Thinking>",
    "thinking_close": "</Thinking>",
    "answer_open": "<Answer>",
    "answer_close": "</Answer>",
}
"""For a tokenizer that doesn't have them."""


class Parts(NamedTuple):
    """An output, split.

    Attributes:
        thinking: The text between the tags of the thinking, verbatim.
        answer: The text between the tags of the answer, verbatim; of an output that isn't in the format, all that is not
            thinking, tags included.
        ended: Whether the thinking has ended.
    """

    thinking: str
    answer: str
    ended: bool


class Splitter:
    """Splits outputs in a format; takes the texts around the parts, with their line breaks, as a format has them."""

    def __init__(self, thinking_open: str, thinking_close: str, answer_open: str = "", answer_close: str = "") -> None:
        self.opening, self._after_opening = _tag_first(thinking_open)
        self._closing = _tag_last(thinking_close.rstrip())
        self.answer, after_answer = _tag_first(answer_open)
        self._before_answer = after_answer if self.answer else thinking_close[len(thinking_close.rstrip()) :]
        self._end = _tag_last(answer_close.rstrip())
        self.between = thinking_close[len(thinking_close.rstrip()) :] + answer_open

    @property
    def closing(self) -> str:
        """The tag that closes the thinking."""
        return self._closing[0]

    def split(self, text: str, *, finished: bool = True) -> Parts:
        """Split an output.

        What an unfinished one has in each part is the beginning of what it has there later: what may belong to a tag is
        left out until it is known.

        Args:
            text: The output so far, with what the prompt held of it.
            finished: Whether nothing more comes.
        """
        place = self.thinking(text)
        if place is None:
            begun = text.lstrip()
            waits = not finished and (self.opening.startswith(begun) or self.answer.startswith(begun))
            return Parts("", "" if waits else self._answer(text, finished), False)
        start, end, after = place
        if end < 0:
            return Parts(self._thinking(text[start:], finished), "", False)
        thinking = _without(text[start:end], self._after_opening)
        if after > end:
            thinking = thinking.removesuffix(self._closing[1])
        return Parts(thinking, self._answer(text[after:], finished), True)

    def thinking(self, text: str) -> tuple[int, int, int] | None:
        """Where the thinking of an output begins and ends, both without its tags, and where what follows it begins.

        The last two are -1 of a thinking that goes on; ``None`` where the output doesn't begin with one.
        """
        start = len(text) - len(text.lstrip())
        if not text.startswith(self.opening, start):
            return None
        start += len(self.opening)
        # A thinking that isn't closed ends where an answer opens.
        tags = ((self.closing, len(self.closing)), (self.answer, 0))
        places = [(text.find(tag, start), size) for tag, size in tags if tag]
        end, size = min((one for one in places if one[0] >= 0), default=(-1, 0))
        return start, end, end + size

    def answers(self, text: str) -> bool:
        """Whether an unfinished output has come to its answer: what is written before one is there, or can't be any more."""
        place = self.thinking(text)
        if place is None:
            return bool(self.answer) and text.lstrip().startswith(self.answer)
        rest = text[place[2] :]
        return place[1] >= 0 and (rest == self.between or not self.between.startswith(rest))

    def _thinking(self, rest: str, finished: bool) -> str:
        written = _without(rest, self._after_opening)
        tags = (self._closing[1] + self._closing[0], self._closing[0], self.answer)
        return written if finished else written[: len(written) - _held(written, tags)]

    def _answer(self, text: str, finished: bool) -> str:
        start = text.lstrip()
        if not self.answer:
            return _without(text, self._before_answer)
        if not start.startswith(self.answer):
            return "" if not finished and self.answer.startswith(start) else text
        body = _without(start[len(self.answer) :], self._before_answer)
        end, before_end = self._end
        if not end:
            return body
        place = body.find(end)
        if place < 0:
            return body if finished else body[: len(body) - _held(body, (before_end + end, end))]
        after = body[place + len(end) :]
        return body if after.strip() else body[:place].removesuffix(before_end)


def _tag_first(written: str) -> tuple[str, str]:
    """A tag, and the white space that is written after it."""
    tag = written.strip()
    return tag, written[len(written.rstrip()) :] if tag else ""


def _tag_last(written: str) -> tuple[str, str]:
    """A tag, and the white space that is written before it."""
    return written.strip(), written[: len(written) - len(written.lstrip())]


def _without(text: str, white_space: str) -> str:
    """A text without the white space that the format writes before it, as far as it is there."""
    length = 0
    while length < len(white_space) and text[length : length + 1] == white_space[length]:
        length += 1
    return text[length:]


def _held(text: str, tags: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a tag."""
    most = min(max(map(len, tags)) - 1, len(text))
    tails = (length for length in range(most, 0, -1) if any(tag.startswith(text[-length:]) for tag in tags))
    return next(tails, 0)


if "vllm" in sys.modules:
    from vllm.reasoning import ReasoningParser, ReasoningParserManager

    try:
        from vllm.entrypoints.generate.base.protocol import DeltaMessage
    except ImportError:  # before 0.30
        from vllm.entrypoints.openai.protocol import DeltaMessage

    @ReasoningParserManager.register_module(PARSER)
    class SFTKeyReasoningParser(ReasoningParser):
        """Thinking as ``reasoning``, the text of the answer as ``content``."""

        def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(tokenizer, *args, **kwargs)
            parts = getattr(tokenizer, "init_kwargs", {}).get(KEY)
            self._splitter = Splitter(**(parts if isinstance(parts, Mapping) else PAPER))
            self._options = kwargs.get("chat_template_kwargs") or {}
            self._before, self._opened = self._prompt_end(self._options)
            self._shown: Parts | None = None

        @property
        def reasoning_start_str(self) -> str | None:
            """The tag that opens the thinking, if it is one token: vLLM looks for it to hold a budget."""
            return self._splitter.opening if self._splitter.opening in self.vocab else None

        @property
        def reasoning_end_str(self) -> str | None:
            """The tag that closes it, likewise."""
            return self._splitter.closing if self._splitter.closing in self.vocab else None

        def _prompt_end(self, options: Mapping[str, Any]) -> tuple[str, str]:
            """The end of a prompt: what stands before a response, and what the chat template writes of the response."""
            known = {name: value for name, value in options.items() if name == "enable_thinking"}
            prompt = self.model_tokenizer.apply_chat_template(
                [{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True, **known
            )
            before, found, after = str(prompt).rpartition("?")[2].partition(self._splitter.opening)
            return before, found + after

        def _text(self, ids: Sequence[int]) -> str:
            return str(self.model_tokenizer.decode(list(ids), skip_special_tokens=False))

        def _count(self, ids: Sequence[int], length: int) -> int:
            """How many tokens at the beginning have at most so many characters."""
            return bisect_right(range(1, len(ids) + 1), length, key=lambda count: len(self._text(ids[:count])))

        def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
            """The thinking and the answer of a whole output."""
            options = getattr(request, "chat_template_kwargs", None) or self._options
            parts = self._splitter.split(self._prompt_end(options)[1] + model_output)
            return parts.thinking or None, parts.answer or None

        def extract_reasoning_streaming(
            self,
            previous_text: str,
            current_text: str,
            delta_text: str,
            previous_token_ids: Sequence[int],
            current_token_ids: Sequence[int],
            delta_token_ids: Sequence[int],
        ) -> DeltaMessage | None:
            """What is new of both."""
            ended = self.model_tokenizer.eos_token_id in delta_token_ids
            parts = self._splitter.split(self._opened + current_text, finished=ended)
            shown, self._shown = self._shown or Parts("", "", False), parts
            thinking, answer = parts.thinking[len(shown.thinking) :], parts.answer[len(shown.answer) :]
            return DeltaMessage(reasoning=thinking or None, content=answer or None) if thinking or answer else None

        def get_streaming_fallback_content(self, text: str, request: Any) -> str | None:
            """The end of an output that the token limit cuts off, which was held back as the beginning of a tag."""
            shown = self._shown.answer if self._shown else ""
            return self._splitter.split(self._opened + text).answer[len(shown) :] or None

        def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
            """Whether a prompt, an output or both have come to an answer, by the last response in them."""
            text = self._text(input_ids)
            _, found, response = text.rpartition(self._before) if self._before else ("", "", "")
            return self._splitter.answers(response if found else self._opened + text)

        def is_reasoning_end_streaming(self, input_ids: Sequence[int], delta_ids: Iterable[int]) -> bool:
            """Whether the engine may hold what follows to a grammar, and the server pass it on without this parser.

            The parser of a stream has to see an answer's tags, so that the server passes on what is between them alone.
            """
            splitter = self._splitter
            if splitter.answer and self._shown is not None:
                return False
            # A whole conversation is decoded only if the end of a thinking is near: the engine asks at every token.
            near = len(splitter.closing + splitter.between) * 4 + len(list(delta_ids))
            ending = self._text(input_ids[-near:])
            tags = (splitter.closing, splitter.answer or splitter.closing)
            return any(tag in ending for tag in tags) and self.is_reasoning_end(input_ids)

        def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
            """How many tokens of an output are thinking; one that spans it and a tag is."""
            text = self._opened + self._text(token_ids)
            place = self._splitter.thinking(text)
            if place is None:
                return 0
            # Places in the output, which begins after what the prompt holds.
            start, end = place[0] - len(self._opened), (place[1] if place[1] >= 0 else len(text)) - len(self._opened)
            return max(0, self._count(token_ids, end - 1) + 1 - self._count(token_ids, start)) if end > 0 else 0

        def extract_content_ids(self, input_ids: list[int]) -> list[int]:
            """The tokens of an answer, in an output or in the part of it with which the thinking ends."""
            text = self._text(input_ids)
            _, closed, rest = text.partition(self._splitter.closing)
            if not closed and not (self._shown and self._shown.ended):
                return []
            content = (rest if closed else text).removeprefix(self._splitter.between)
            return input_ids[self._count(input_ids, len(text) - len(content)) :]
