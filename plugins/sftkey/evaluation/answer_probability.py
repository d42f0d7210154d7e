"""The probability of the answer in an output, given the prompt and what the model wrote before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sftkey.evaluation.generation import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Answer(NamedTuple):
    """An output whose answer is to be scored.

    Attributes:
        prompt: What the model was sent, with its template.
        output: What it wrote.
        text: The answer, verbatim in the output; the last place where it stands counts.
    """

    prompt: str
    output: str
    text: str


def answer_logprobs(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
) -> Iterator[tuple[float, int] | None]:
    """Score answers one after the other.

    Args:
        model: A causal language model on its device.
        tokenizer: Its tokenizer, a fast one.
        answers: The outputs.

    Yields:
        The sum of the log-probabilities of the answer's tokens and their number; ``None`` where the text is longer than
        the model reads, or holds no token of the answer.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    with evaluating(model), torch.inference_mode():
        for answer in answers:
            yield _logprob(model, tokenizer, answer, longest)


def _logprob(
    model: Any, tokenizer: PreTrainedTokenizerBase, answer: Answer, longest: int | None
) -> tuple[float, int] | None:
    place = answer.output.rfind(answer.text)
    if not answer.text.strip() or place < 0:
        return None
    start = len(answer.prompt) + place
    end = start + len(answer.text)
    encoded: Any = tokenizer(answer.prompt + answer.output, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    # A token that begins with the tag's end and ends in the answer is the answer's, too.
    of_answer = [i for i, (left, right) in enumerate(encoded["offset_mapping"]) if left < end and right > start and i]
    if not of_answer or (longest is not None and len(ids) > longest):
        return None
    first, last = of_answer[0], of_answer[-1]
    inputs = torch.tensor([ids[:last]], device=model.device)
    logits = model(input_ids=inputs, use_cache=False, logits_to_keep=last - first + 1).logits[0].float()
    targets = torch.tensor(ids[first : last + 1], device=logits.device)
    logprobs = torch.log_softmax(logits, -1).gather(-1, targets[:, None])
    return min(0.0, float(logprobs.sum())), len(of_answer)
