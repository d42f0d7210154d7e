"""Row -> tokenized example, or the reason why the row is skipped: one rule for training, inspection and experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from sftkey.datasets.base import ReasoningDataset
from sftkey.datasets.conversation import texts_in
from sftkey.format.example import Example, SkippedRow
from sftkey.training.rendering import TemplateError, TemplateOverLimit
from sftkey.training.tokenization import ExampleTokenizer, TokenizedBatch, TokenizedExample
from sftkey.training.tokenizers import control_token_pattern, longest_token
from sftkey.util.errors import UserError
from sftkey.util.text import one_line, shorten

HELD_OUT = "held out for evaluation"
NOT_HELD_OUT = "not held out for evaluation"
TAG_IN_TEXT = "tag in the text"
CONTROL_TOKEN_IN_TEXT = "special token in the text"
TOO_LONG = "longer than sequence_len"
INEXACT = "a token spans two segments"
REFUSED = "the chat template refuses it"
NO_TOOLS = "the chat template leaves its tools out"

MAX_CHARACTERS = 2_000_000
"""A longer row isn't tokenised at all: a tokenizer takes some 300 bytes of memory for each character."""

_PENDING = ""

_MOST_REFUSALS = 10
"""So many different messages of a template are told apart, each up to so many characters."""

_SHOWN = 80

TOO_MANY_CHARACTERS = f"longer than {MAX_CHARACTERS:,} characters"


class RowTokenizer:
    """Row -> tokenized example, or the reason why the row is skipped.

    Args:
        dataset: How a row becomes an `Example`.
        tokenizer: The `ExampleTokenizer` of the stage's method.
        sequence_len: Longest sequence in tokens; a longer row is skipped, so that no answer is ever cut.
        evaluation: The rows are for evaluation: where the data set has no test split, exactly those held out are kept.
    """

    def __init__(
        self, dataset: ReasoningDataset, tokenizer: ExampleTokenizer, sequence_len: int, evaluation: bool = False
    ) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.sequence_len = sequence_len
        self.evaluation = evaluation
        self._control_token = control_token_pattern(tokenizer.tokenizer)
        self._longest_token = longest_token(tokenizer.tokenizer)
        self._refusals: set[str] = set()

    def expand(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The rows that rows as published stand for: of a conversation one for each turn that may be trained."""
        return iter(rows) if self.dataset.expand is None else chain.from_iterable(map(self.dataset.expand, rows))

    def example(self, row: Mapping[str, Any]) -> Example:
        """Turn a row into an example that is safe to tokenise.

        A tag inside the thinking or the answer would make the format ambiguous, a special token inside any text would
        end a turn early: such rows are skipped. Tags in the question are harmless, because the segments start after
        the prompt.

        Raises:
            SkippedRow: The row must not be trained on.
        """
        if self.dataset.held_out is not None and self.dataset.held_out(row) != self.evaluation:
            raise SkippedRow(NOT_HELD_OUT if self.evaluation else HELD_OUT)
        example = self.dataset.to_example(row)
        response_format = self.tokenizer.response_format
        if response_format.contains_tag(example.thinking) or response_format.contains_tag(example.answer):
            raise SkippedRow(TAG_IN_TEXT)
        for text in (example.question, example.thinking, example.answer, *_texts(example)):
            if self._control_token.search(text):
                raise SkippedRow(CONTROL_TOKEN_IN_TEXT)
        return example

    def prompt(self, example: Example) -> str | None:
        """The prompt of an example with a history, as the chat template writes it; ``None`` for any other.

        Raises:
            SkippedRow: The template refuses the messages, or knows no tools and there are some.
            UserError: It passes a bound.
        """
        if not example.history and not example.tools:
            return None
        try:
            prompt = self.tokenizer.prompt_of(example)
        except TemplateOverLimit as error:
            raise UserError(
                f"chat_template: {error} on the row whose question is {shorten(one_line(example.question), _SHOWN)!r}; "
                "leave that row out, or use another template"
            ) from error
        except TemplateError as error:
            said = one_line(str(error))[:_SHOWN]
            if len(self._refusals) < _MOST_REFUSALS:
                self._refusals.add(said)
            raise SkippedRow(f"{REFUSED}: {said}" if said in self._refusals else REFUSED) from error
        if not all(name in prompt for name in _tool_names(example)):
            raise SkippedRow(NO_TOOLS)
        return prompt

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[TokenizedExample | str]:
        """Tokenise a batch: for each of its rows, after `expand`, its tokens, or the reason for skipping it."""
        return self.each(self.expand(rows))

    def each(self, rows: Iterable[Mapping[str, Any]]) -> list[TokenizedExample | str]:
        """The same of rows that are expanded already."""
        tokenized, reasons = self._tokenize(rows)
        examples = iter(tokenized.examples())
        return [next(examples) if reason is None else reason for reason in reasons]

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> tuple[TokenizedBatch, Counter[str]]:
        """Tokenise a batch into flat arrays: what is kept of its rows, in order, and the rest counted by reason."""
        tokenized, reasons = self._tokenize(self.expand(rows))
        return tokenized, Counter(reason for reason in reasons if reason is not None)

    def _tokenize(self, rows: Iterable[Mapping[str, Any]]) -> tuple[TokenizedBatch, list[str | None]]:
        """The rows that are kept, in order, and for each row the reason for skipping it, None where it is kept."""
        reasons: list[str | None] = []
        parts: list[TokenizedBatch] = []
        examples: list[Example] = []
        prompts: list[str | None] = []
        characters = 0
        for row in rows:
            try:
                example = self.example(row)
                self._characters(example)
                prompt = self.prompt(example)
                size = self._characters(example, prompt)
            except SkippedRow as skipped:
                reasons.append(skipped.reason)
                continue
            if characters + size > MAX_CHARACTERS:
                parts.append(self._fitting(examples, prompts, reasons))
                examples, prompts, characters = [], [], 0
            examples.append(example)
            prompts.append(prompt)
            characters += size
            reasons.append(_PENDING)
        parts.append(self._fitting(examples, prompts, reasons))
        return TokenizedBatch.join(parts), reasons

    def _characters(self, example: Example, prompt: str | None = None) -> int:
        """The characters of an example; raises `SkippedRow` where they can't fit, however long its tokens are."""
        size = len(prompt or example.question) + len(example.thinking) + len(example.answer)
        if size > self.sequence_len * self._longest_token:
            raise SkippedRow(TOO_LONG)
        if max(size, sum(map(len, _texts(example)))) > MAX_CHARACTERS:
            raise SkippedRow(TOO_MANY_CHARACTERS)
        return size

    def _fitting(
        self, examples: Sequence[Example], prompts: Sequence[str | None], reasons: list[str | None]
    ) -> TokenizedBatch:
        """Tokenise, keep what fits, and settle the last ``len(examples)`` pending reasons."""
        tokenized = self.tokenizer.batch(examples, *([prompts] if any(prompts) else []))
        fits = (tokenized.lengths <= self.sequence_len) & (tokenized.lengths > 0)
        lengths = iter(tokenized.lengths.tolist())
        for index, reason in enumerate(reasons):
            if reason == _PENDING:
                length = next(lengths)
                reasons[index] = TOO_LONG if length > self.sequence_len else None if length else INEXACT
        return tokenized if fits.all() else tokenized.select(fits)


def _texts(example: Example) -> list[str]:
    """Every text of the history and the tools."""
    return texts_in([*example.history, *example.tools])


def _tool_names(example: Example) -> Iterator[str]:
    calls = [call for message in example.history for call in message.get("tool_calls", ())]
    for tool in (*example.tools, *calls):
        yield str(tool.get("function", tool).get("name", ""))
