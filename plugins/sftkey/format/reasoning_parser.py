"""An output, as far as it has grown, split into thinking and answer; and a reasoning parser of vLLM's that does it.

Imports nothing of this package: a finished stage has a copy beside its weights, which ``vllm serve
--reasoning-parser-plugin`` loads where this package isn't installed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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

    def split(self, text: str, *, finished: bool = True) -> Parts:
        """Split an output.

        What an unfinished one has in each part is the beginning of what it has there later: what may belong to a tag is
        left out until it is known.

        Args:
            text: The output so far, with what the prompt held of it.
            finished: Whether nothing more comes.
        """
        start = text.lstrip()
        if not start.startswith(self.opening):
            waits = not finished and (self.opening.startswith(start) or self.answer.startswith(start))
            return Parts("", "" if waits else self._answer(text, finished), False)
        rest = start[len(self.opening) :]
        # A thinking that isn't closed ends where an answer opens.
        places = [(rest.find(tag), size) for tag, size in ((self._closing[0], len(self._closing[0])), (self.answer, 0))]
        end, size = min((one for one in places if one[0] >= 0 and (one[1] or self.answer)), default=(-1, 0))
        if end < 0:
            return Parts(self._thinking(rest, finished), "", False)
        thinking = _without(rest[:end], self._after_opening)
        if size:
            thinking = thinking.removesuffix(self._closing[1])
        return Parts(thinking, self._answer(rest[end + size :], finished), True)

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
            self._opened = self._prompt_holds(self._options)
            self._shown = Parts("", "", False)

        def _prompt_holds(self, options: Mapping[str, Any]) -> str:
            """What the chat template writes of a response before the model does."""
            known = {name: value for name, value in options.items() if name == "enable_thinking"}
            prompt = self.model_tokenizer.apply_chat_template(
                [{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True, **known
            )
            _, found, after = str(prompt).rpartition("?")[2].partition(self._splitter.opening)
            return found + after

        def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
            """The thinking and the answer of a whole output."""
            options = getattr(request, "chat_template_kwargs", None) or self._options
            parts = self._splitter.split(self._prompt_holds(options) + model_output)
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
            return self._new(parts)

        def _new(self, parts: Parts) -> DeltaMessage | None:
            thinking, answer = parts.thinking[len(self._shown.thinking) :], parts.answer[len(self._shown.answer) :]
            self._shown = parts
            return DeltaMessage(reasoning=thinking or None, content=answer or None) if thinking or answer else None

        def get_streaming_fallback_content(self, text: str, request: Any) -> str | None:
            """The end of an output that the token limit cuts off, which was held back as the beginning of a tag."""
            parts = self._splitter.split(self._opened + text)
            return parts.answer[len(self._shown.answer) :] or None

        def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
            """Never: what follows has the tags of the answer, or white space, which the parser has to see, too."""
            return False

        def extract_content_ids(self, input_ids: list[int]) -> list[int]:
            """None, as the thinking never ends for vLLM."""
            return []
