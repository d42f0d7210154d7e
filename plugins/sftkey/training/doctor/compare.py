"""The loss of this package and its gradients against the model's own, on one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from sftkey.format.segments import Segment
from sftkey.training.doctor.task import Findings, Skipped
from sftkey.training.loss import causal_loss
from sftkey.training.tokenization import IGNORE_INDEX


@dataclass
class Batch:
    """Inputs of a model, with labels and segments; `all_items` where other processes have a part of the step."""

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    segments: torch.Tensor
    all_items: torch.Tensor | None = None

    @property
    def items(self) -> torch.Tensor:
        """How many tokens the step trains."""
        return (self.labels[:, 1:] != IGNORE_INDEX).sum() if self.all_items is None else self.all_items

    def rows(self, rows: slice) -> Batch:
        """Some of its rows."""
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        return Batch(inputs, self.labels[rows], self.segments[rows])


def random_batch(
    vocabulary: int, rows: int, length: int, device: str, *, share: int = 10, padded: bool = True
) -> Batch:
    """Rows of random tokens, the last `share` per cent of each labelled; `padded` ones get shorter and shorter."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary, (rows, length), generator=generator)
    labels = torch.full_like(ids, IGNORE_INDEX)
    mask = torch.zeros_like(ids)
    for row in range(rows):
        end = length - (row * length // (2 * rows) if padded else 0)
        first = min(max(1, end - max(1, end * share // 100)), end - 1)
        labels[row, first:end] = ids[row, first:end]
        mask[row, :end] = 1
    inputs = {"input_ids": ids} | ({"attention_mask": mask} if padded else {})
    segments = torch.where(labels == IGNORE_INDEX, int(Segment.PROMPT), int(Segment.ANSWER))
    return Batch({name: value.to(device) for name, value in inputs.items()}, labels.to(device), segments.to(device))


def packed(batch: Batch) -> Batch:
    """The rows of a padded batch one after the other, without padding: positions start again with each."""
    kept = batch.inputs["attention_mask"].bool()
    positions = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    return Batch(
        {"input_ids": batch.inputs["input_ids"][kept][None], "position_ids": positions[kept][None]},
        batch.labels[kept][None],
        batch.segments[kept][None],
    )


@dataclass
class Sample:
    """A loss and its gradients."""

    loss: float
    gradients: dict[str, torch.Tensor]


def differentiate(model: Any, loss: torch.Tensor) -> Sample:
    """Run the backward pass; the gradients are taken away from the parameters."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return Sample(float(loss.detach()), gradients)


def own(model: Any, batch: Batch) -> torch.Tensor:
    """The loss that transformers gives the model."""
    loss: torch.Tensor = model(**batch.inputs, labels=batch.labels, num_items_in_batch=batch.items).loss
    return loss


def ours(model: Any, batch: Batch) -> torch.Tensor:
    """The loss of this package."""
    return causal_loss(model, batch.inputs, batch.labels, batch.segments, num_items=batch.items).loss


def has_bfloat16(device: str) -> bool:
    """Whether it is a GPU that computes in bfloat16 without emulating it."""
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def require_bfloat16(device: str) -> None:
    """Skip what needs bfloat16 on a GPU that has none."""
    if device == "cuda" and not has_bfloat16(device):
        raise Skipped(f"{torch.cuda.get_device_name()} has no bfloat16")


@dataclass(frozen=True)
class Limits:
    """How far a loss and all gradients together may be from the model's own, relative to it."""

    loss: float
    gradient: float


FLOAT32 = Limits(1e-4, 1e-3)
BFLOAT16 = Limits(2e-3, 3e-2)


@dataclass
class Distance:
    """How far a sample is from another, relative to that one.

    Attributes:
        loss: Of the loss.
        gradient: Of all gradients together, by their norm.
        worst: The largest distance of a parameter's gradient, of those with a norm of a thousandth of the largest or more.
        parameter: Its name.
    """

    loss: float
    gradient: float
    worst: float
    parameter: str


def distance(found: Sample, expected: Sample) -> Distance:
    """Compare two samples; a gradient that only one of them has is infinitely far."""
    loss = abs(found.loss - expected.loss) / max(abs(expected.loss), 1e-12)
    others = sorted(found.gradients.keys() ^ expected.gradients.keys())
    if others or not expected.gradients:
        return Distance(loss, float("inf"), float("inf"), others[0] if others else "none")
    names = list(expected.gradients)
    norms = torch.stack([expected.gradients[name].float().norm() for name in names]).double()
    apart = torch.stack([_apart(found.gradients[name], expected.gradients[name]) for name in names]).double()
    counted = torch.where(norms >= norms.max() / 1000, apart / norms.clamp_min(1e-30), torch.zeros_like(apart))
    counted = torch.where(apart.isfinite(), counted, torch.full_like(apart, float("inf")))
    worst = int(counted.argmax())
    return Distance(loss, float(apart.norm() / norms.norm().clamp_min(1e-30)), float(counted[worst]), names[worst])


def _apart(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (found.to(expected.device).float() - expected.float()).norm()


def judge(found: Sample, expected: Sample, limits: Limits, exact: Sample | None = None) -> Findings:
    """Hold a loss and its gradients to the model's own.

    Args:
        found: What is judged.
        expected: The model's own.
        limits: How far it may be.
        exact: The model's own in float32, where both were computed in a coarser type: then it may be twice as far from
            the model's own as that is from this one.
    """
    apart = distance(found, expected)
    figures: dict[str, Any] = {"loss": found.loss, "own_loss": expected.loss}
    if exact is not None:
        own_error = distance(expected, exact)
        figures |= {"own_loss_error": own_error.loss, "own_gradient_error": own_error.gradient}
        limits = Limits(max(limits.loss, 2 * own_error.loss), max(limits.gradient, 2 * own_error.gradient))
    figures |= {
        "loss_error": apart.loss,
        "loss_limit": limits.loss,
        "gradient_error": apart.gradient,
        "gradient_limit": limits.gradient,
        "worst_gradient_error": apart.worst,
        "worst_parameter": apart.parameter,
    }
    problems = []
    # Whatever isn't a number isn't within a limit.
    if not apart.loss <= limits.loss:
        problems.append(f"the loss is {found.loss:.6g}, the model's own {expected.loss:.6g}")
    if not (apart.gradient <= limits.gradient and apart.worst <= 10 * limits.gradient):
        problems.append(
            f"the gradients are {apart.gradient:.1e} from the model's own (rounding: at most {limits.gradient:.1e}), "
            f"that of {apart.parameter} {apart.worst:.1e}"
        )
    return Findings(figures, problems)


@contextmanager
def watched_output_layer(model: Any) -> Iterator[list[int]]:
    """Collect for how many positions the model's output layer gives something."""
    positions: list[int] = []

    def hook(_: Any, __: Any, output: torch.Tensor) -> None:
        positions.append(output.numel() // output.shape[-1])

    handle = model.get_output_embeddings().register_forward_hook(hook)
    try:
        yield positions
    finally:
        handle.remove()


def check(
    model: Any,
    batch: Batch,
    limits: Limits,
    *,
    exact: Sample | None = None,
    expected: Sample | None = None,
    run: Callable[[Any, Batch], torch.Tensor] = ours,
) -> Findings:
    """Compare on one model, and see that the output layer leaves out what has no label.

    Args:
        model: Not wrapped.
        batch: What the loss is taken of.
        limits: As in `judge`.
        exact: As in `judge`.
        expected: The model's own, if not of this batch.
        run: What gives the loss.
    """
    expected = expected or differentiate(model, own(model, batch))
    with watched_output_layer(model) as positions:
        found = differentiate(model, run(model, batch))
    findings = judge(found, expected, limits, exact)
    findings.figures |= {"positions": batch.labels.numel(), "output_positions": sum(positions)}
    if sum(positions) >= batch.labels.numel():
        findings.problems.append("the output layer computed every position, labelled or not")
    return findings
