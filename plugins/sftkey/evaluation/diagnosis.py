"""Measure on held-out rows what Stage 2 can gain after a Stage 1 checkpoint. Torch and transformers only.

Stage 2 trains the tokens after ``</Thinking>`` given the reference thinking (Eq. 4). It can correct an answer that is
wrong after a correct thinking, but not one that is wrong because of the thinking, and none where the answers of the
training rows are learned already. To tell the two apart, the reference thinking replaces the model's own: if the answer is
right then, the thinking was to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sftkey.evaluation.generation import Completion, complete, evaluating, padded
from sftkey.evaluation.headroom import (
    AnswerLoss,
    Outcome,
    Verdict,
    answer_in_last_sentence,
    ends_with_answer,
    judge_headroom,
    outcome,
)
from sftkey.evaluation.statistics import Interval
from sftkey.format.example import Example
from sftkey.format.segments import AFTER_THINKING, RESPONSE, SEGMENT_GROUPS, Segment
from sftkey.training.loss import causal_loss
from sftkey.training.tokenization import IGNORE_INDEX, ExampleTokenizer, TokenizedExample
from sftkey.training.tokenizers import control_token_pattern


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The measurements on ``rows`` held-out rows, and the verdict.

    `sftkey.evaluation.headroom.MEANINGS` defines every field; shares and the headroom are from 0 to 1, losses in nats.
    """

    rows: int
    accuracy: float
    accuracy_given_reference: float
    format_rate: float
    unfinished: float
    over_limit: float
    given_reference: AnswerLoss
    given_own: AnswerLoss | None
    on_training_rows: AnswerLoss | None
    copied: float
    in_last_sentence: float
    own_copied: float
    outcomes: dict[str, int]
    gradient_shares: dict[str, float]
    headroom: float
    headroom_interval: Interval
    verdict: Verdict
    reason: str

    @property
    def shares_of_wrong(self) -> dict[str, float]:
        """The wrong outcomes as shares of all wrong ones; empty where none is wrong."""
        wrong = self.rows - self.outcomes[Outcome.RIGHT]
        kinds = [kind for kind in Outcome if kind is not Outcome.RIGHT] if wrong else []
        return {kind.value: self.outcomes[kind] / wrong for kind in kinds}

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; the keys are those of `MEANINGS`."""
        return {**asdict(self), "shares_of_wrong": self.shares_of_wrong}


def diagnose(
    model: Any,
    tokenize: ExampleTokenizer,
    examples: Sequence[Example],
    is_right: Callable[[int, str], bool],
    *,
    training_examples: Sequence[Example] = (),
    batch_size: int = 16,
    max_new_tokens: int = 512,
    gradient_rows: int = 64,
) -> Diagnosis:
    """Diagnose a Stage 1 checkpoint.

    Args:
        model: The checkpoint, on its device. Its gradients are cleared.
        tokenize: The tokenization of Stage 1's method, ``sft-tag``.
        examples: Held-out examples.
        is_right: Given an index into `examples` and an output, whether the output's answer is right.
        training_examples: Some examples that both stages are trained on.
        batch_size: Rows per forward pass and per batch of generation.
        max_new_tokens: Limit of a generated response.
        gradient_rows: Rows for the gradient, which needs as much memory again as the weights; 0 for none.

    Raises:
        ValueError: There are no examples, or the method isn't a tagged one that trains the whole response.
    """
    if not examples:
        raise ValueError("a diagnosis needs held-out examples")
    if not tokenize.method.tagged or Segment.THINKING not in tokenize.method.trained:
        raise ValueError(f"a diagnosis needs a checkpoint of sft-tag, not of {tokenize.method.name}")
    tokenized = tokenize(examples)

    own = _completions(model, tokenize, tokenized, RESPONSE, max_new_tokens, batch_size)
    opened, written = tokenize.opened, tokenize.response_format
    parsed = [written.parse(opened + completion.text) for completion in own]
    right = [is_right(index, completion.text) for index, completion in enumerate(own)]
    given_reference_outputs = outputs_given_reference(
        model, tokenize, examples, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    right_given_reference = [is_right(index, output) for index, output in enumerate(given_reference_outputs)]
    thoughts = [own_thinking(completion.text, tokenize) for completion in own]
    outcomes = [
        outcome(right[index], right_given_reference[index], thoughts[index], example.thinking)
        for index, example in enumerate(examples)
    ]
    with_own = [
        replace(example, thinking=thought)
        for example, thought in zip(examples, thoughts, strict=True)
        if thought is not None
    ]
    well_formed = [found for found in parsed if found.well_formed]
    with evaluating(model):
        given_reference = answer_loss(model, tokenized, batch_size)
        given_own = answer_loss(model, tokenize(with_own), batch_size) if with_own else None
        on_training_rows = answer_loss(model, tokenize(training_examples), batch_size) if training_examples else None
        shares = gradient_shares(model, tokenized[:gradient_rows], batch_size) if gradient_rows else {}
    over_limit = _share([len(found.input_ids) - len(before(found, RESPONSE)) > max_new_tokens for found in tokenized])
    return Diagnosis(
        rows=len(examples),
        accuracy=_share(right),
        accuracy_given_reference=_share(right_given_reference),
        format_rate=_share([found.well_formed for found in parsed]),
        unfinished=_share([not completion.finished for completion in own]),
        over_limit=over_limit,
        given_reference=given_reference,
        given_own=given_own,
        on_training_rows=on_training_rows,
        copied=_share([ends_with_answer(example.thinking, example.answer) for example in examples]),
        in_last_sentence=_share([answer_in_last_sentence(example.thinking, example.answer) for example in examples]),
        own_copied=_share([ends_with_answer(found.thinking or "", found.answer or "") for found in well_formed]),
        outcomes={kind.value: outcomes.count(kind) for kind in Outcome},
        gradient_shares=shares,
        **judge_headroom(outcomes, _share(right_given_reference), on_training_rows, over_limit),
    )


def outputs_given_reference(
    model: Any, tokenize: ExampleTokenizer, examples: Sequence[Example], *, max_new_tokens: int, batch_size: int
) -> list[str]:
    """What a model writes with the reference thinking in the place of its own: whole outputs, the thinking included.

    Args:
        model: A checkpoint, on its device.
        tokenize: The tokenization of a tagged method.
        examples: Examples with their thinking.
        max_new_tokens: Limit of what follows the thinking.
        batch_size: Rows per batch.
    """
    opened, written = tokenize.opened, tokenize.response_format
    completions = _completions(model, tokenize, tokenize(examples), AFTER_THINKING, max_new_tokens, batch_size)
    return [
        f"{written.thinking_open[len(opened) :]}{example.thinking}{written.thinking_close}{completion.text}"
        for example, completion in zip(examples, completions, strict=True)
    ]


def _completions(
    model: Any,
    tokenize: ExampleTokenizer,
    tokenized: Sequence[TokenizedExample],
    group: Set[Segment],
    max_new_tokens: int,
    batch_size: int,
) -> list[Completion]:
    """Continue what is before a group of segments."""
    prompts = [before(example, group) for example in tokenized]
    end = tokenize.end_of_turn
    return complete(model, tokenize.tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, end=end)


def before(example: TokenizedExample, group: Set[Segment]) -> list[int]:
    """The token ids of an example up to the first of a group of segments, exclusive."""
    return example.input_ids[: next(place for place, segment in enumerate(example.segments) if segment in group)]


def own_thinking(output: str, tokenize: ExampleTokenizer) -> str | None:
    """The thinking of an output, also of a malformed one; ``None`` where it has none that can be tokenised."""
    written = tokenize.response_format
    opening, closing = written.tags[:2]
    before_it, found, rest = (tokenize.opened + output).partition(opening)
    thinking, closed, _ = rest.partition(closing)
    thinking = thinking.strip() if written.thinking_open != opening else thinking
    usable = found and closed and not before_it.strip() and thinking.strip() and not written.contains_tag(thinking)
    return thinking if usable and not control_token_pattern(tokenize.tokenizer).search(thinking) else None


def answer_loss(model: Any, examples: Sequence[TokenizedExample], batch_size: int) -> AnswerLoss:
    """Mean loss and accuracy of the answer tokens, given all before them.

    Args:
        model: A causal language model.
        examples: Sequences with their segments; at least one.
        batch_size: Rows per forward pass.
    """
    loss, correct, tokens = 0.0, 0, 0
    with torch.no_grad():
        for inputs, labels, segments in _batches(examples, batch_size, model.device, {Segment.ANSWER}):
            found = causal_loss(model, inputs, labels, segments).statistics
            loss += float(found.loss[Segment.ANSWER])
            correct += int(found.correct[Segment.ANSWER])
            tokens += int(found.tokens[Segment.ANSWER])
    return AnswerLoss(loss / tokens, correct / tokens, tokens, len(examples))


def gradient_shares(model: Any, examples: Sequence[TokenizedExample], batch_size: int) -> dict[str, float]:
    """The shares of the groups of segments in Stage 1's gradient (Eq. 1), which is the sum of theirs.

    Args:
        model: A causal language model; its gradients are cleared.
        examples: Sequences with their segments.
        batch_size: Rows per backward pass.

    Returns:
        For each of `SEGMENT_GROUPS` the norm of its gradient over the sum of the three norms.
    """
    total = sum(segment != Segment.PROMPT for example in examples for segment in example.segments)
    norms = {}
    try:
        for name, group in SEGMENT_GROUPS.items():
            model.zero_grad(set_to_none=True)
            for inputs, labels, segments in _batches(examples, batch_size, model.device, group):
                causal_loss(model, inputs, labels, segments, num_items=float(total)).loss.backward()
            squares = [p.grad.detach().float().square().sum() for p in model.parameters() if p.grad is not None]
            norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    finally:
        model.zero_grad(set_to_none=True)
    whole = sum(norms.values())
    return {name: norm / whole if whole else 0.0 for name, norm in norms.items()}


def _batches(
    examples: Sequence[TokenizedExample], size: int, device: Any, trained: Set[Segment]
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]]:
    """Right-padded batches, longest first, with labels on the given segments only."""
    ordered = sorted(examples, key=lambda example: -len(example.input_ids))
    for start in range(0, len(ordered), size):
        chunk = ordered[start : start + size]
        ids = padded([example.input_ids for example in chunk], 0)
        mask = padded([[1] * len(example.input_ids) for example in chunk], 0)
        segments = padded([example.segments for example in chunk], Segment.PROMPT)
        labels = ids.where(torch.isin(segments, torch.tensor(sorted(trained))), IGNORE_INDEX)
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        yield inputs, labels.to(device), segments.to(device)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
