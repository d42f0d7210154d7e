"""Row -> tokenized example, or the reason why the row is skipped: one rule for training, inspection and experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sftkey.datasets.base import ReasoningDataset
from sftkey.format.example import Example, SkippedRow
from sftkey.training.tokenization import ExampleTokenizer, TokenizedBatch, TokenizedExample
from sftkey.training.tokenizers import control_token_pattern, longest_token

HELD_OUT = "held out for evaluation"
NOT_HELD_OUT = "not held out for evaluation"
TAG_IN_TEXT = "tag in the text"
CONTROL_TOKEN_IN_TEXT = "special token in the text"
TOO_LONG = "longer than sequence_len"
INEXACT = "a token spans two segments"

MAX_CHARACTERS = 2_000_000
"""A longer row isn't tokenised at all: a tokenizer takes some 300 bytes of memory for each character."""

_PENDING = ""

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
        for text in (example.question, example.thinking, example.answer):
            if self._control_token.search(text):
                raise SkippedRow(CONTROL_TOKEN_IN_TEXT)
        return example

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[TokenizedExample | str]:
        """Tokenise a batch: for each row its tokens, or the reason for skipping it."""
        tokenized, reasons = self._tokenize(rows)
        examples = iter(tokenized.examples())
        return [next(examples) if reason is None else reason for reason in reasons]

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> tuple[TokenizedBatch, Counter[str]]:
        """Tokenise a batch into flat arrays: the rows that are kept, in order, and the others counted by reason."""
        tokenized, reasons = self._tokenize(rows)
        return tokenized, Counter(reason for reason in reasons if reason is not None)

    def _tokenize(self, rows: Sequence[Mapping[str, Any]]) -> tuple[TokenizedBatch, list[str | None]]:
        """The rows that are kept, in order, and for each row the reason for skipping it, None where it is kept."""
        reasons: list[str | None] = []
        parts: list[TokenizedBatch] = []
        examples: list[Example] = []
        characters = 0
        for row in rows:
            try:
                example = self.example(row)
                size = self._characters(example)
            except SkippedRow as skipped:
                reasons.append(skipped.reason)
                continue
            if characters + size > MAX_CHARACTERS:
                parts.append(self._fitting(examples, reasons))
                examples, characters = [], 0
            examples.append(example)
            characters += size
            reasons.append(_PENDING)
        parts.append(self._fitting(examples, reasons))
        return TokenizedBatch.join(parts), reasons

    def _characters(self, example: Example) -> int:
        """The characters of an example; raises `SkippedRow` where they can't fit, however long its tokens are."""
        size = len(example.question) + len(example.thinking) + len(example.answer)
        if size > self.sequence_len * self._longest_token:
            raise SkippedRow(TOO_LONG)
        if size > MAX_CHARACTERS:
            raise SkippedRow(TOO_MANY_CHARACTERS)
        return size

    def _fitting(self, examples: Sequence[Example], reasons: list[str | None]) -> TokenizedBatch:
        """Tokenise, keep what fits, and settle the last ``len(examples)`` pending reasons."""
        tokenized = self.tokenizer.batch(examples)
        fits = (tokenized.lengths <= self.sequence_len) & (tokenized.lengths > 0)
        lengths = iter(tokenized.lengths.tolist())
        for index, reason in enumerate(reasons):
            if reason == _PENDING:
                length = next(lengths)
                reasons[index] = TOO_LONG if length > self.sequence_len else None if length else INEXACT
        return tokenized if fits.all() else tokenized.select(fits)
