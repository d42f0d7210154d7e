"""Example -> tokens in a chat template of the model's own, whatever its turns look like.

A row is one text, the prompt as the template renders it and the response as the format writes it, and is tokenised whole, as
a server tokenises it. Each token's place in the text says its segment. A token may span the thinking and its tags, or the
answer and its tags: it counts to the thinking or the answer. Where one spans thinking and answer, the row is cut in two;
where one spans prompt and response, it has no exact segments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftkey.format.example import Example, Message, messages_of
from sftkey.format.segments import Piece, Segment
from sftkey.training.rendering import TemplateError, render
from sftkey.training.tokenization import IGNORE_INDEX, ExampleTokenizer, TokenizedBatch, TokenizedExample
from sftkey.training.tokenizers import TokenizerError, control_tokens, encode, encode_with_offsets

_QUESTION = "\u241f question \u241f"
_ANSWER = "\u241f answer \u241f"

# Indexed by segment: the part of a row that a token must not leave.
_PART = np.array([0, 1, 1, 1, 2, 2, 2, 3], dtype=np.int8)
_CORE = np.array([Segment.PROMPT, Segment.THINKING, Segment.ANSWER, Segment.END_OF_TURN], dtype=np.int8)


_Row = tuple[NDArray[np.int32], NDArray[np.int8]]
_NOTHING: _Row = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int8))


class OwnTemplateTokenizer(ExampleTokenizer):
    """Turns examples into token ids, labels and segments in the chat template that the tokenizer brings.

    Takes the arguments of `ExampleTokenizer`. `batch` gives a row without exact segments the length 0.

    Attributes:
        opened: What the prompt holds of the response already, such as ``<think>`` and a line break.

    Raises:
        TokenizerError: The tokenizer has no chat template, its turns don't end with a special token, it puts a whole thinking
            before the response, or it changes text.
    """

    def _read_template(self) -> None:
        self.end_of_turn = end_of_turn(self.tokenizer)
        before, found, after = self._render(_QUESTION).partition(_QUESTION)
        if not found:
            raise TokenizerError("the chat template changes the text of the question, so no row can be matched to it")
        self._before, self._after = before, after
        probe = " a\n"
        self._keeps_white_space = self._render(probe) == before + probe + after
        self.opened = self._opened()
        self._joins = _is_exact(self.tokenizer, ["a", " a", "\na", "<", "A", "1"])
        sample = "".join(piece.text for piece in self._row(Example("Is 1 < 2?", "It is.\nSo yes.", "yes, 1 < 2")))
        if not _is_exact(self.tokenizer, [sample]):
            raise TokenizerError(f"{self.tokenizer.name_or_path} doesn't give back the text that it was given")

    def _render(self, question: str) -> str:
        return _rendered(self.tokenizer, messages_of(question), add_generation_prompt=True)

    def _opened(self) -> str:
        opening, closing = self.response_format.thinking_open, self.response_format.thinking_close.strip()
        tail = self._after.rpartition(self.end_of_turn)[2]
        if self.method.tagged:
            for length in range(len(opening), 0, -1):
                if opening[:length].strip() == opening.strip() and tail.endswith(opening[:length]):
                    return opening[:length]
        if opening.strip() in tail and (self.method.tagged or closing not in tail):
            raise TokenizerError(
                f"the chat template begins the response with {tail!r}, after which a response of the method "
                f"{self.method.name} can't follow"
            )
        return ""

    def prompt(self, question: str) -> str:
        """The prompt of a question as the template renders it, up to where the model goes on."""
        if self._keeps_white_space or question == question.strip():
            return self._before + question + self._after
        return self._render(question)

    def is_as_rendered(self, example: Example, row: TokenizedExample) -> bool:
        """Whether the template, given the response as a message, writes the tokens of a row: as they are served and trained.

        The message is the response as the format writes it, or its answer with its thinking as ``reasoning_content``.
        False where a template changes the response, as one does that cuts all thinking, and where the row is cut in two.
        """
        pieces = self._row(example)
        text = "".join(piece.text for piece in pieces)
        response = "".join(piece.text for piece in self.pieces(example)[:-1])
        for content in ({"content": response}, {"content": example.answer, "reasoning_content": example.thinking}):
            try:
                rendered = self.render(
                    [*example.messages, {"role": "assistant"} | content], example.tools, prompt=False
                )
            except TemplateError:
                continue
            if rendered.startswith(text):
                return encode(self.tokenizer, [text])[0] == row.input_ids
        return False

    def batch(self, examples: Sequence[Example], prompts: Sequence[str | None] = ()) -> TokenizedBatch:
        """Tokenise a batch into flat arrays; a row without exact segments has no tokens."""
        rows = [self._row(example, prompt) for example, prompt in zip_longest(examples, prompts)]
        found = self._encode_rows(rows)
        cut = [index for index, row in enumerate(found) if row is None] if self._joins else []
        halves = [half for index in cut for half in _halves(rows[index])]
        both = iter(self._encode_rows(halves))
        for index, first, second in zip(cut, both, both, strict=False):
            if first is not None and second is not None:
                found[index] = (np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]]))
        kept = [row or _NOTHING for row in found]
        input_ids = np.concatenate([_NOTHING[0], *(ids for ids, _ in kept)])
        segments = np.concatenate([_NOTHING[1], *(segments for _, segments in kept)])
        labels = np.where(self._is_trained[segments], input_ids, IGNORE_INDEX).astype(np.int64)
        return TokenizedBatch(np.array([len(ids) for ids, _ in kept], dtype=np.int64), input_ids, labels, segments)

    def _encode_rows(self, rows: Sequence[Sequence[Piece]]) -> list[_Row | None]:
        """The tokens of each row, and their segments; None where one spans two parts of it."""
        encoded = encode_with_offsets(self.tokenizer, ["".join(piece.text for piece in row) for row in rows])
        found: list[_Row | None] = []
        for row, (ids, starts, ends) in zip(rows, encoded, strict=True):
            segments = _segments(row, starts, ends)
            found.append(None if segments is None else (ids, segments))
        return found

    def _row(self, example: Example, prompt: str | None = None) -> list[Piece]:
        """The whole text of a row; what the prompt holds of the response is prompt."""
        pieces = list(self.pieces(example))
        if self.opened:
            pieces[0] = Piece(Segment.THINKING_OPEN, pieces[0].text[len(self.opened) :])
        prompt = self._rendered(example, prompt) or self.prompt(example.question)
        return [Piece(Segment.PROMPT, prompt), *(piece for piece in pieces if piece.text)]


def _halves(row: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """A row up to the end of the thinking, and after it."""
    place = next(index for index, piece in enumerate(row) if _PART[piece.segment] > 1)
    return list(row[:place]), list(row[place:])


def _is_exact(tokenizer: Any, texts: list[str]) -> bool:
    """Whether a tokenizer gives back each text."""
    ids = encode(tokenizer, texts)
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return [tokenizer.decode(one, **options) for one in ids] == texts


def _segments(row: Sequence[Piece], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int8] | None:
    """The segment of each token; ``None`` where one spans two parts of the row."""
    of_character = np.repeat(
        np.array([piece.segment for piece in row], dtype=np.int8), [len(piece.text) for piece in row]
    )
    first, last = of_character[starts], of_character[np.maximum(ends - 1, starts)]
    if (_PART[first] != _PART[last]).any():
        return None
    return np.where(first == last, first, _CORE[_PART[first]]).astype(np.int8)


def _rendered(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
    try:
        return render(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise TokenizerError(f"the chat template fails on a question ({error})") from error


def end_of_turn(tokenizer: Any) -> str:
    """The special token with which the tokenizer's chat template ends a turn of the assistant.

    Raises:
        TokenizerError: There is no chat template, or none ends it.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise TokenizerError(
            f"{name} has no chat template; name one of sftkey's under chat_template, or give one as jinja"
        )
    messages = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    rest = _rendered(tokenizer, messages).partition(_ANSWER)[2]
    ending = re.match("|".join(map(re.escape, control_tokens(tokenizer))) or r"(?!)", rest.lstrip())
    if ending is None:
        raise TokenizerError(f"the chat template of {name} ends a response with {rest!r}, which is no special token")
    return ending.group()
