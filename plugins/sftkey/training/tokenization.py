"""Example -> input_ids, labels, segments; exact at every boundary.

Every piece of a response is tokenised by itself, so no token spans two segments even where the tokenizer would merge
across them (with plain-text tags Qwen3 makes one token of the ``.</`` in ``18.</Thinking>``). The prompt is tokenised as
lm-eval tokenises it, so that training and evaluation see the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise, zip_longest
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftkey.format.example import Example, Message
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.methods import Method
from sftkey.format.response_format import ResponseFormat
from sftkey.format.segments import Piece, Segment
from sftkey.format.templates import END_OF_TURN, START_OF_TURN
from sftkey.training.rendering import render
from sftkey.training.tokenizers import TokenizerError, check_is_fast, check_joins, encode, tags_are_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftkey.format.untagged import UntaggedForm

IGNORE_INDEX = -100
"""The label of a token that isn't trained, everywhere in this package; PyTorch's and transformers' default."""


class TokenizedExample(NamedTuple):
    """One training sequence of ``n`` tokens.

    Attributes:
        input_ids: ``n`` token ids: prompt, response, end of turn.
        labels: ``n`` ints: the token id where the method trains it, else `IGNORE_INDEX`.
        segments: ``n`` ints: the `Segment` of each token.
    """

    input_ids: list[int]
    labels: list[int]
    segments: list[int]


class TokenizedBatch(NamedTuple):
    """``n`` training sequences end to end in flat arrays of ``t`` tokens in all, as Arrow lays out columns of lists.

    Attributes:
        lengths: int64 of shape (n,): the number of tokens of each sequence.
        input_ids: int32 of shape (t,): see `TokenizedExample`.
        labels: int64 of shape (t,).
        segments: int8 of shape (t,).
    """

    lengths: NDArray[np.int64]
    input_ids: NDArray[np.int32]
    labels: NDArray[np.int64]
    segments: NDArray[np.int8]

    @classmethod
    def join(cls, parts: Sequence[TokenizedBatch]) -> TokenizedBatch:
        """The sequences of one or more batches, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def select(self, kept: NDArray[np.bool_]) -> TokenizedBatch:
        """The sequences for which ``kept``, of shape (n,), is true."""
        tokens = np.repeat(kept, self.lengths)
        return TokenizedBatch(self.lengths[kept], self.input_ids[tokens], self.labels[tokens], self.segments[tokens])

    def examples(self) -> list[TokenizedExample]:
        """Each sequence by itself, as lists of Python ints."""
        bounds = list(pairwise(accumulate(self.lengths.tolist(), initial=0)))
        columns = (self.input_ids.tolist(), self.labels.tolist(), self.segments.tolist())
        return [TokenizedExample(*(column[start:end] for column in columns)) for start, end in bounds]


class ExampleTokenizer:
    """Turns examples into token ids, labels and segments for one method, in the ChatML turns of this package.

    Args:
        tokenizer: A fast byte-level BPE tokenizer whose ``chat_template`` is one of `sftkey.format.templates`.
        method: What is trained.
        untagged: The data set's own untagged form; used by methods that are not tagged.
        response_format: How the tagged methods write a response.

    Raises:
        TokenizerError: The tokenizer lacks the turn markers, holds only some of the tags as added tokens or holds
            them as *special* tokens, or changes text at the start of a segment.
    """

    end_of_turn = END_OF_TURN
    """The token that ends a response."""

    opened = ""
    """What the prompt holds of the response already."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        method: Method,
        untagged: UntaggedForm,
        response_format: ResponseFormat = THINKING_ANSWER,
    ) -> None:
        self.tokenizer = tokenizer
        self.method = method
        self.untagged = untagged
        self.response_format = response_format
        self._is_trained = np.array([segment in method.trained for segment in Segment])
        check_is_fast(tokenizer)
        tags_are_tokens(tokenizer, response_format)
        self._read_template()

    def _read_template(self) -> None:
        check_joins(self.tokenizer)
        self._constant_ids: dict[str, list[int]] = {}
        self._split_prompt()

    def pieces(self, example: Example) -> tuple[Piece, ...]:
        """The response of an example, end of turn included, as the method writes it."""
        form = self.response_format if self.method.tagged else self.untagged
        return (*form.render(example.thinking, example.answer), Piece(Segment.END_OF_TURN, self.end_of_turn))

    def prompt(self, question: str) -> str:
        """The prompt of a question as text: what ``apply_chat_template`` gives for one user message."""
        return self._before + question + self._after

    def prompt_of(self, example: Example) -> str:
        """The prompt of an example as text: what ``apply_chat_template`` gives for its messages.

        Raises:
            TemplateError: The chat template refuses them.
        """
        if example.history or example.tools:
            return self.render(example.messages, example.tools)
        return self.prompt(example.question)

    def render(self, messages: Sequence[Message], tools: Sequence[Message] = (), *, prompt: bool = True) -> str:
        """Messages as the chat template writes them, up to where the model goes on.

        Args:
            messages: At least one.
            tools: The tools that they may use.
            prompt: Whether the model goes on there; else they are a whole conversation.

        Raises:
            TemplateError: The chat template refuses them.
        """
        return render(self.tokenizer, messages, tools, add_generation_prompt=prompt)

    def __call__(self, examples: Sequence[Example]) -> list[TokenizedExample]:
        """Tokenise a batch.

        Args:
            examples: Any number of examples; a few hundred at a time keep the tokenizer's threads busy.

        Returns:
            One tokenized example for each, in order. Nothing is truncated.
        """
        return self.batch(examples).examples()

    def batch(self, examples: Sequence[Example], prompts: Sequence[str | None] = ()) -> TokenizedBatch:
        """Tokenise a batch into flat arrays: what `__call__` gives, without a Python object for each token.

        Args:
            examples: Any number of examples.
            prompts: `prompt_of` those that have a history, where it is known already.
        """
        responses = [self.pieces(example) for example in examples]
        varying = (Segment.THINKING, Segment.ANSWER)
        whole = [self._rendered(example, prompt) for example, prompt in zip_longest(examples, prompts)]
        texts = [
            self._turn_head + example.question + self._turn_tail if prompt is None else prompt
            for example, prompt in zip(examples, whole, strict=True)
        ]
        for response in responses:
            texts.extend(piece.text for piece in response if piece.segment in varying)
        encoded = self._encode(texts)
        asked, rest = encoded[: len(examples)], iter(encoded[len(examples) :])
        parts: list[list[int]] = []
        part_segments: list[int] = []
        lengths: list[int] = []
        for prompt_ids, prompt, response in zip(asked, whole, responses, strict=True):
            first = len(parts)
            around = (self._prefix_ids, self._suffix_ids) if prompt is None else ([], [])
            parts += (around[0], prompt_ids, around[1])
            part_segments += (Segment.PROMPT, Segment.PROMPT, Segment.PROMPT)
            for segment, text in response:
                parts.append(next(rest) if segment in varying else self._encode_constant(text))
                part_segments.append(segment)
            lengths.append(sum(map(len, parts[first:])))
        input_ids = np.fromiter(chain.from_iterable(parts), dtype=np.int32, count=sum(lengths))
        segments = np.repeat(np.array(part_segments, dtype=np.int8), list(map(len, parts)))
        labels = np.where(self._is_trained[segments], input_ids, IGNORE_INDEX).astype(np.int64)
        return TokenizedBatch(np.array(lengths, dtype=np.int64), input_ids, labels, segments)

    def _rendered(self, example: Example, prompt: str | None) -> str | None:
        """The prompt of an example with a history; None for that of a single question."""
        return prompt or (self.prompt_of(example) if example.history or example.tools else None)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return encode(self.tokenizer, texts)

    def _encode_constant(self, text: str) -> list[int]:
        if text not in self._constant_ids:
            self._constant_ids[text] = self._encode([text])[0]
        return self._constant_ids[text]

    def _split_prompt(self) -> None:
        """Cut the prompt at the turn markers around the question, so that the rest is tokenised once.

        A marker is an added token: text on both of its sides never meets in one token, which makes the cut exact.
        """
        sentinel = "\u241f question \u241f"
        message = [{"role": "user", "content": sentinel}]
        rendered = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        self._before, found, self._after = str(rendered).partition(sentinel)
        if not found:
            raise TokenizerError(
                "the chat template changes the text of the question; use one of sftkey.format.templates"
            )
        head = self._before.rfind(START_OF_TURN) + len(START_OF_TURN)
        tail = self._after.find(END_OF_TURN)
        self._turn_head, self._turn_tail = self._before[head:], self._after[:tail]
        self._prefix_ids, self._suffix_ids = self._encode([self._before[:head], self._after[tail:]])
        probes = ["a", " a\n"]
        whole = self._encode([self.prompt(probe) for probe in probes])
        turns = self._encode([self._turn_head + probe + self._turn_tail for probe in probes])
        if whole != [self._prefix_ids + turn + self._suffix_ids for turn in turns]:
            # Markers that take whitespace away from their neighbours (phi-4): nothing is cut then.
            self._turn_head, self._turn_tail = self._before, self._after
            self._prefix_ids, self._suffix_ids = [], []
