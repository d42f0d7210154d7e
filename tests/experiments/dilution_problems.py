"""Generated problems with a dial for each cause of dilution, as token ids for a stack of models.

A question names two of 64 items. The thinking is ``length`` words that say nothing, each drawn uniformly from ``words``
words, then the values of both items, which are fixed and recalled. The answer is what a fixed random table has for the two
values: it is no copy, and hard where ``values`` is large, as the table has as many entries as its square. Pairs of items
that are asked in evaluation are never trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sftkey.format.segments import Segment

END, THINK, THOUGHT, ANSWER, ANSWERED, USER, ASSISTANT = range(7)
ITEMS, VALUES, ANSWERS, WORDS = 64, 32, 16, 64
FIRST_ITEM = ASSISTANT + 1
FIRST_VALUE = FIRST_ITEM + ITEMS
FIRST_ANSWER = FIRST_VALUE + VALUES
FIRST_WORD = FIRST_ANSWER + ANSWERS
VOCABULARY = FIRST_WORD + WORDS
PROMPT = 4
"""Tokens of a prompt."""
HELD_OUT = 512
"""Pairs of items that are never trained on."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What makes a problem: see the module."""

    length: int
    words: int
    values: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Problems for ``M`` models, ``B`` each; all sequences are equally long.

    Attributes:
        ids: Prompt and response, shape ``(M, B, T)``.
        answers: The answer's token, shape ``(M, B)``.
        values: Both values' tokens, shape ``(M, B, 2)``.
    """

    ids: torch.Tensor
    answers: torch.Tensor
    values: torch.Tensor


class Problems:
    """The problems of several models that share a thinking length.

    Args:
        conditions: One for each model.
        seeds: Of its tables and of the pairs that are held out; one for each model.
        device: Where batches are made.
    """

    def __init__(self, conditions: list[Condition], seeds: list[int], device: torch.device) -> None:
        (self.length,) = {condition.length for condition in conditions}
        self.words = torch.tensor([condition.words for condition in conditions], device=device)
        values, tables, trained, held_out = [], [], [], []
        for condition, seed in zip(conditions, seeds, strict=True):
            generator = np.random.default_rng(seed)
            values.append(generator.integers(condition.values, size=ITEMS))
            tables.append(generator.integers(ANSWERS, size=(VALUES, VALUES)))
            order = generator.permutation(ITEMS * ITEMS)
            held_out.append(order[:HELD_OUT])
            trained.append(order[HELD_OUT:])
        self.values, self.tables, self.trained, self.held_out = (
            torch.from_numpy(np.stack(arrays)).to(device) for arrays in (values, tables, trained, held_out)
        )

    def chosen(self, models: torch.Tensor) -> Problems:
        """The problems of some of the models, possibly repeated."""
        made = object.__new__(Problems)
        made.length = self.length
        for name in ("words", "values", "tables", "trained", "held_out"):
            value = getattr(self, name)
            setattr(made, name, value[models.to(value.device)])
        return made

    def training_batch(self, size: int, generator: torch.Generator) -> Batch:
        """Random problems to train on; every model draws its own."""
        models, count = self.trained.shape
        place = torch.randint(count, (models, size), generator=generator, device=self.words.device)
        return self._batch(self.trained.gather(1, place), generator)

    def test_batch(self, size: int, generator: torch.Generator) -> Batch:
        """The first held-out problems."""
        return self._batch(self.held_out[:, :size], generator)

    def _batch(self, pairs: torch.Tensor, generator: torch.Generator) -> Batch:
        models, size = pairs.shape
        device = pairs.device
        first, second = pairs // ITEMS, pairs % ITEMS
        value = torch.stack([self.values.gather(1, first), self.values.gather(1, second)], dim=-1)
        answer = self.tables.flatten(1).gather(1, value[..., 0] * VALUES + value[..., 1]) + FIRST_ANSWER
        chance = torch.rand((models, size, self.length), generator=generator, device=device)
        words = (chance * self.words[:, None, None]).long() + FIRST_WORD

        def constant(token: int) -> torch.Tensor:
            return torch.full((models, size, 1), token, device=device)

        parts = [constant(USER), first[..., None] + FIRST_ITEM, second[..., None] + FIRST_ITEM, constant(ASSISTANT)]
        parts += [constant(THINK), words, value + FIRST_VALUE, constant(THOUGHT)]
        parts += [constant(ANSWER), answer[..., None], constant(ANSWERED), constant(END)]
        return Batch(torch.cat(parts, dim=-1), answer, value + FIRST_VALUE)

    @property
    def segments(self) -> list[Segment]:
        """The segment of each token of a response."""
        thinking = [Segment.THINKING] * (self.length + 2)
        end = [Segment.ANSWER_OPEN, Segment.ANSWER, Segment.ANSWER_CLOSE, Segment.END_OF_TURN]
        return [Segment.THINKING_OPEN, *thinking, Segment.THINKING_CLOSE, *end]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What outputs are worth; every array has shape ``(M, B)``."""

    right: np.ndarray
    well_formed: np.ndarray
    thinking_right: np.ndarray
    finished: np.ndarray
    tokens: np.ndarray


def read(outputs: torch.Tensor, batch: Batch) -> Outputs:
    """Judge whole responses, shape ``(M, B, L)``, with `END` after the end.

    The answer is what follows the first answer tag, in whatever format. A thinking is right if its last two tokens are the
    values.
    """
    outputs, answers, values = (given.cpu().numpy() for given in (outputs, batch.answers, batch.values))
    length = outputs.shape[-1]
    outputs = np.concatenate([outputs, np.full((*outputs.shape[:2], 3), END)], axis=-1)
    is_answer, is_thought = outputs == ANSWER, outputs == THOUGHT
    found, thought = is_answer.argmax(-1), is_thought.argmax(-1)

    def at(place: np.ndarray) -> np.ndarray:
        return np.take_along_axis(outputs, np.maximum(place, 0)[..., None], axis=-1)[..., 0]

    answer, right = at(found + 1), is_answer.any(-1)
    right = right & (answer == answers)
    is_text = (outputs >= FIRST_ITEM).sum(-1)
    finished = (outputs[..., :length] == END).any(-1)
    tokens = np.where(finished, (outputs == END).argmax(-1) + 1, length)
    well_formed = (
        (outputs[..., 0] == THINK)
        & ((outputs == THINK).sum(-1) == 1)
        & (is_thought.sum(-1) == 1)
        & (is_answer.sum(-1) == 1)
        & (found == thought + 1)
        & (thought > 1)
        & (answer >= FIRST_ITEM)
        & (at(found + 2) == ANSWERED)
        & (at(found + 3) == END)
        & (is_text == thought)  # all before the closing tag but for the opening one, and the answer
    )
    thinking_right = is_thought.any(-1) & (at(thought - 2) == values[..., 0]) & (at(thought - 1) == values[..., 1])
    return Outputs(right, well_formed, thinking_right & (thought > 2), finished, tokens)


def thinking_text(response: np.ndarray) -> str | None:
    """The thinking of a response as text: values as numbers, words as letters; ``None`` where it isn't closed."""
    ids = response.tolist()
    if ids[0] != THINK or THOUGHT not in ids:
        return None
    written = [_word(token) for token in ids[1 : ids.index(THOUGHT)]]
    return " ".join(written) or None


def _word(token: int) -> str:
    if FIRST_VALUE <= token < FIRST_ANSWER:
        return str(token - FIRST_VALUE)
    return "".join(chr(ord("a") + int(digit)) for digit in str(token))
