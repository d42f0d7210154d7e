"""What Stage 2 can gain, told from a Stage 1 checkpoint and held-out rows. Torch and transformers only.

Stage 2 trains the tokens after ``</Thinking>`` given the reference thinking (Eq. 4). So it can mend an outcome that is
wrong although the thinking is right, and nothing else: not one that is wrong because of the thinking, and none at all
where the answers of the training rows are learned already. Which of the two a wrong outcome is, is found out by putting
the reference thinking in the place of the model's own: if the answer is right then, the thinking was to blame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sftkey.evaluation.diagnosis_terms import LEARNED_LOSS, NEGLIGIBLE_POINTS, Outcome, Verdict
from sftkey.evaluation.generation import Completion, complete
from sftkey.evaluation.rules.text import normalise
from sftkey.evaluation.statistics import Interval, mean_interval
from sftkey.format import tags
from sftkey.format.example import Example
from sftkey.format.segments import SEGMENT_GROUPS, Segment
from sftkey.training.loss import causal_loss
from sftkey.training.tokenization import IGNORE_INDEX, ExampleTokenizer, TokenizedExample, control_token_pattern

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """How well the reference answers are predicted, teacher-forced.

    Attributes:
        loss: Mean cross-entropy of the answer tokens in nats.
        accuracy: Share of answer tokens that are the model's first choice.
        tokens: How many answer tokens.
        rows: Of how many rows.
    """

    loss: float
    accuracy: float
    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found on ``rows`` held-out rows.

    `sftkey.evaluation.diagnosis_terms.MEANINGS` defines every field; shares and the headroom are from 0 to 1, losses in nats.
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
    """Look at a Stage 1 checkpoint.

    Args:
        model: The checkpoint, on its device. Its gradients are cleared.
        tokenize: The tokenization of Stage 1's method, ``sft-tag``.
        examples: Held-out examples.
        is_right: Given an index into `examples` and an output, whether the output's answer is right.
        training_examples: Some examples that Stage 1 was trained on; Stage 2 will be, too.
        batch_size: Rows per forward pass and per batch of generation.
        max_new_tokens: Limit of a generated response.
        gradient_rows: Rows over which the gradient is taken; 0 for no gradient, which needs as much memory again as the
            weights.

    Returns:
        The diagnosis.

    Raises:
        ValueError: There are no examples, or the method isn't a tagged one that trains the whole response.
    """
    if not examples:
        raise ValueError("a diagnosis needs held-out examples")
    if not tokenize.method.tagged or Segment.THINKING not in tokenize.method.trained:
        raise ValueError(f"a diagnosis needs a checkpoint of sft-tag, not of {tokenize.method.name}")
    was_training = model.training
    model.eval()
    try:
        return _diagnose(
            model, tokenize, examples, is_right, training_examples, batch_size, max_new_tokens, gradient_rows
        )
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)


def _diagnose(
    model: Any,
    tokenize: ExampleTokenizer,
    examples: Sequence[Example],
    is_right: Callable[[int, str], bool],
    training_examples: Sequence[Example],
    batch_size: int,
    max_new_tokens: int,
    gradient_rows: int,
) -> Diagnosis:
    tokenized = tokenize(examples)

    def generate(prompts: Sequence[Sequence[int]]) -> list[Completion]:
        return complete(model, tokenize.tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)

    own = generate([before(example, Segment.THINKING_OPEN) for example in tokenized])
    after_reference = generate([before(example, Segment.ANSWER_OPEN) for example in tokenized])
    parsed = [tags.parse(completion.text) for completion in own]
    right = [is_right(index, completion.text) for index, completion in enumerate(own)]
    right_given_reference = [
        is_right(index, f"{tags.THINKING_OPEN}{example.thinking}{tags.THINKING_CLOSE}{completion.text}")
        for index, (example, completion) in enumerate(zip(examples, after_reference, strict=True))
    ]
    thoughts = [own_thinking(completion.text, tokenize) for completion in own]
    outcomes = [
        outcome(right[index], right_given_reference[index], thoughts[index], example.thinking)
        for index, example in enumerate(examples)
    ]
    with_own = [
        Example(example.question, thought, example.answer)
        for example, thought in zip(examples, thoughts, strict=True)
        if thought is not None
    ]
    well_formed = [found for found in parsed if found.well_formed]
    given_reference = answer_loss(model, tokenized, batch_size)
    on_training_rows = answer_loss(model, tokenize(training_examples), batch_size) if training_examples else None
    over_limit = _share(
        [len(found.input_ids) - len(before(found, Segment.THINKING_OPEN)) > max_new_tokens for found in tokenized]
    )
    verdict = judge_headroom(outcomes, _share(right_given_reference), on_training_rows, over_limit)
    return Diagnosis(
        rows=len(examples),
        accuracy=_share(right),
        accuracy_given_reference=_share(right_given_reference),
        format_rate=_share([found.well_formed for found in parsed]),
        unfinished=_share([not completion.finished for completion in own]),
        over_limit=over_limit,
        given_reference=given_reference,
        given_own=answer_loss(model, tokenize(with_own), batch_size) if with_own else None,
        on_training_rows=on_training_rows,
        copied=_share([ends_with_answer(example.thinking, example.answer) for example in examples]),
        in_last_sentence=_share([answer_in_last_sentence(example.thinking, example.answer) for example in examples]),
        own_copied=_share([ends_with_answer(found.thinking or "", found.answer or "") for found in well_formed]),
        outcomes={kind.value: outcomes.count(kind) for kind in Outcome},
        gradient_shares=gradient_shares(model, tokenized[:gradient_rows], batch_size) if gradient_rows else {},
        **verdict,
    )


def before(example: TokenizedExample, segment: Segment) -> list[int]:
    """The token ids of an example up to a segment, exclusive."""
    return example.input_ids[: example.segments.index(int(segment))]


def own_thinking(output: str, tokenize: ExampleTokenizer) -> str | None:
    """The thinking of an output that is otherwise malformed or not; ``None`` where it has none that can be used."""
    opened, found, rest = output.partition(tags.THINKING_OPEN)
    thinking, closed, _ = rest.partition(tags.THINKING_CLOSE)
    usable = found and closed and not opened.strip() and thinking.strip() and not tags.contains_tag(thinking)
    return thinking if usable and not control_token_pattern(tokenize.tokenizer).search(thinking) else None


def outcome(right: bool, right_given_reference: bool, own: str | None, reference: str) -> Outcome:
    """What became of a row.

    A thinking counts as correct if it says the same as the reference; or if the answer is as wrong with the reference
    thinking in its place and both have the same numbers in the same order, with the same conclusion or a number in it.

    Args:
        right: Whether the model's answer is right.
        right_given_reference: Whether it is with the reference thinking in the place of the model's own.
        own: The model's thinking; ``None`` where it has none.
        reference: The reference thinking.
    """
    if right:
        return Outcome.RIGHT
    if own is None:
        return Outcome.NO_THINKING
    if normalise(own) == normalise(reference):
        return Outcome.AFTER_CORRECT_THINKING
    if right_given_reference:
        return Outcome.BECAUSE_OF_THINKING
    return Outcome.AFTER_CORRECT_THINKING if _same_calculation(own, reference) else Outcome.UNCLEAR


def _same_calculation(own: str, reference: str) -> bool:
    """Whether two thinkings have the same numbers in the same order, and a conclusion that is one of them."""
    numbers = _NUMBER.findall(reference)
    if not numbers or _NUMBER.findall(own) != numbers:
        return False
    conclusions = [_sentences(thinking)[-1] for thinking in (own, reference)]
    return all(map(_NUMBER.search, conclusions)) or len(set(map(normalise, conclusions))) == 1


def ends_with_answer(thinking: str, answer: str) -> bool:
    """Whether an answer is the end of a thinking, but for case, white space and punctuation."""
    wanted = normalise(answer).split()
    return bool(wanted) and normalise(thinking).split()[-len(wanted) :] == wanted


def answer_in_last_sentence(thinking: str, answer: str) -> bool:
    """Whether an answer stands, as whole words, in the last sentence or line of a thinking."""
    sentences, wanted = _sentences(thinking), normalise(answer)
    if not sentences or not wanted:
        return False
    return re.search(rf"(?<![\w.]){re.escape(wanted)}(?!\w|\.\d)", normalise(sentences[-1])) is not None


def _sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text.strip()) if part.strip()]


def judge_headroom(
    outcomes: Sequence[Outcome],
    accuracy_given_reference: float,
    on_training_rows: AnswerLoss | None,
    over_limit: float = 0.0,
) -> dict[str, Any]:
    """The verdict and the numbers behind it: the fields ``headroom`` to ``reason`` of `Diagnosis`.

    Of an unclear outcome it isn't known whether the thinking was right, only that the answer would have been wrong
    anyway. It counts with the probability that a thinking is right, estimated as Acc over Acc given the reference
    thinking: an answer is right if its thinking is and if then the answer is.

    Args:
        outcomes: What became of each row; at least one.
        accuracy_given_reference: Acc with the reference thinking.
        on_training_rows: Loss of the answers that Stage 2 would be trained on, where known.
        over_limit: Share of rows whose reference response is longer than the token limit of the outputs.
    """
    import numpy as np

    accuracy = _share([found is Outcome.RIGHT for found in outcomes])
    thinking_is_right = min(1.0, accuracy / accuracy_given_reference) if accuracy_given_reference else 1.0
    worth = {Outcome.AFTER_CORRECT_THINKING: 1.0, Outcome.UNCLEAR: thinking_is_right}
    values = np.array([worth.get(found, 0.0) for found in outcomes])
    headroom, interval = float(values.mean()), mean_interval(values)
    wrong = sum(found is not Outcome.RIGHT for found in outcomes)
    count = {kind: outcomes.count(kind) for kind in Outcome}
    share = f"of {wrong} wrong outcomes {count[Outcome.AFTER_CORRECT_THINKING]} are wrong after correct thinking"
    if count[Outcome.UNCLEAR]:
        share += f" and {count[Outcome.UNCLEAR]} would be wrong with the reference thinking, too"
    if on_training_rows is not None and on_training_rows.loss < LEARNED_LOSS:
        verdict = Verdict.NONE
        reason = (
            f"the answers of the training rows are learned already (loss {on_training_rows.loss:.4f} nats per token, "
            f"{on_training_rows.accuracy:.1%} of tokens right): Stage 2 would find no gradient in them"
        )
    elif interval.low > 0 and 100 * headroom >= NEGLIGIBLE_POINTS:
        verdict, reason = Verdict.HEADROOM, share
    # What was never written can't be judged: it must not pass for a finding.
    elif 2 * count[Outcome.NO_THINKING] >= len(outcomes):
        verdict = Verdict.CANT_TELL
        reason = (
            f"{count[Outcome.NO_THINKING]} of {len(outcomes)} outputs have no complete thinking to judge an answer by: train "
            "Stage 1 until it writes the format, or allow longer outputs"
        )
    elif 100 * over_limit >= NEGLIGIBLE_POINTS:
        verdict = Verdict.CANT_TELL
        reason = f"{over_limit:.1%} of the reference responses are longer than the token limit: allow longer outputs"
    elif 100 * interval.high < NEGLIGIBLE_POINTS:
        verdict, reason = Verdict.NONE, f"{share}; {_rest(count)}" if wrong else "no outcome is wrong"
    else:
        verdict, reason = Verdict.CANT_TELL, f"{share}; too few to tell, diagnose more rows"
    return {
        "headroom": headroom,
        "headroom_interval": interval,
        "verdict": verdict,
        "reason": reason,
    }


def _rest(count: dict[Outcome, int]) -> str:
    if not count[Outcome.NO_THINKING]:
        return "the rest is wrong because of the thinking, which Stage 2 doesn't train"
    return (
        f"{count[Outcome.BECAUSE_OF_THINKING]} are wrong because of the thinking and {count[Outcome.NO_THINKING]} without "
        "one, and Stage 2 doesn't train the thinking"
    )


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
    """How much of Stage 1's gradient comes from which group of segments.

    The gradient of the mean loss over all response tokens (Eq. 1) is the sum of three, one from each group's tokens.

    Args:
        model: A causal language model; its gradients are cleared.
        examples: The sequences over whose tokens the gradient is taken.
        batch_size: Rows per backward pass.

    Returns:
        For each of `SEGMENT_GROUPS` the norm of its gradient over the sum of the three norms.
    """
    total = sum(segment != Segment.PROMPT for example in examples for segment in example.segments)
    norms = {}
    for name, group in SEGMENT_GROUPS.items():
        model.zero_grad(set_to_none=True)
        for inputs, labels, segments in _batches(examples, batch_size, model.device, group):
            causal_loss(model, inputs, labels, segments, num_items=float(total)).loss.backward()
        squares = [p.grad.detach().float().square().sum() for p in model.parameters() if p.grad is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    model.zero_grad(set_to_none=True)
    whole = sum(norms.values())
    return {name: norm / whole if whole else 0.0 for name, norm in norms.items()}


def _batches(
    examples: Sequence[TokenizedExample], size: int, device: Any, trained: set[Segment] | frozenset[Segment]
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]]:
    """Right-padded batches, longest first, with labels on the given segments only."""
    ordered = sorted(examples, key=lambda example: -len(example.input_ids))
    for start in range(0, len(ordered), size):
        chunk = ordered[start : start + size]
        shape = len(chunk), len(chunk[0].input_ids)
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORE_INDEX)
        segments = torch.full(shape, int(Segment.PROMPT))
        for row, example in enumerate(chunk):
            length = len(example.input_ids)
            ids[row, :length] = torch.tensor(example.input_ids)
            mask[row, :length] = 1
            segments[row, :length] = torch.tensor(example.segments)
        labelled = torch.isin(segments, torch.tensor(sorted(trained)))
        labels[labelled] = ids[labelled]
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        yield inputs, labels.to(device), segments.to(device)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def report(diagnosis: Diagnosis) -> str:
    """The diagnosis as text: the numbers, then a plain verdict."""
    d = diagnosis

    def losses(found: AnswerLoss | None) -> str:
        if found is None:
            return "not measured"
        return f"loss {found.loss:.4f} nats, {found.accuracy:.1%} of {found.tokens:,} tokens ({found.rows:,} rows)"

    wrong = d.rows - d.outcomes[Outcome.RIGHT]
    lines = [
        ("held-out rows", f"{d.rows:,}"),
        (
            "Acc",
            f"{d.accuracy:.1%}; with the reference thinking in the place of its own {d.accuracy_given_reference:.1%}",
        ),
        (
            "Fmt",
            f"{d.format_rate:.1%}"
            + (f"; {d.unfinished:.1%} cut off by the token limit" if d.unfinished else "")
            + (f"; {d.over_limit:.1%} of the references are longer than it" if d.over_limit else ""),
        ),
        ("answers given the reference thinking", losses(d.given_reference)),
        ("answers given the model's own thinking", losses(d.given_own)),
        ("answers of training rows", losses(d.on_training_rows)),
        (
            "answer copied from the thinking",
            f"{d.copied:.1%} are its end, {d.in_last_sentence:.1%} stand in its last sentence; "
            f"in the model's outputs {d.own_copied:.1%} are its end",
        ),
        ("wrong outcomes", f"{wrong:,}" + (", of which:" if wrong else "")),
    ]
    lines += [(f"  {kind}", f"{d.outcomes[kind]:,} ({share:.0%})") for kind, share in d.shares_of_wrong.items()]
    if d.gradient_shares:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in d.gradient_shares.items())
        lines.append(("norm of Stage 1's gradient by segment", shares))
    width = max(len(name) for name, _ in lines)
    return "\n".join([*(f"{name.ljust(width)}  {value}" for name, value in lines), "", verdict_text(d)])


def verdict_text(diagnosis: Diagnosis) -> str:
    """The verdict in one or two sentences."""
    d = diagnosis
    if d.verdict is Verdict.NONE:
        return f"Headroom for Stage 2: none. In short: {d.reason}. Stop after Stage 1."
    low, high = 100 * d.headroom_interval.low, 100 * d.headroom_interval.high
    points = f"{100 * d.headroom:.1f} points of Acc (95% {low:.1f} to {high:.1f})"
    if d.verdict is Verdict.CANT_TELL:
        return f"Headroom for Stage 2: can't tell, {points}. In short: {d.reason}."
    return (
        f"Headroom for Stage 2: at most {points}. In short: {d.reason}. How much of it Stage 2 gains, and whether Stage 1 "
        "carried on gains the same, only training both tells."
    )
