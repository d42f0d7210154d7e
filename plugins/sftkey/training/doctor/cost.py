"""Time, memory and waits of a step: the model's own loss, ours and other people's, each in a process of its own."""

from __future__ import annotations

import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sftkey.training.doctor.compare import BFLOAT16, FLOAT32, Batch, has_bfloat16, ours, own, random_batch
from sftkey.training.doctor.sizes import SHARES, SIZES, build
from sftkey.training.doctor.task import Findings, Skipped, Task

ROUNDS = 5

_WAITS = "called a synchronizing"
"""What torch warns of at each such call; turning these warnings on brings another one, about itself."""

Loss = Callable[[Any, Batch], torch.Tensor]


def standard(task: Task) -> Findings:
    """The model's own loss."""
    return _measure(task, own)


def sftkey(task: Task) -> Findings:
    """The loss of this package, with labels on the CPU, as a collator makes them."""
    return _measure(task, ours, prepare=_from_the_collator)


def _from_the_collator(batch: Batch) -> Batch:
    return replace(batch, labels=batch.labels.cpu(), segments=batch.segments.cpu(), all_items=batch.items)


def chunked(task: Task) -> Findings:
    """The chunked ``linear_cross_entropy`` of torch on the hidden states of every position."""
    if not hasattr(F, "linear_cross_entropy"):
        raise Skipped(f"torch {torch.__version__} has no torch.nn.functional.linear_cross_entropy")
    options = torch.nn.LinearCrossEntropyOptions()
    return _measure(task, _on_hidden_states(F.linear_cross_entropy, options=options))


def liger(task: Task) -> Findings:
    """Liger's fused linear cross-entropy alone, patched into the model."""

    def patch(model: Any) -> Any:
        kernels = importlib.import_module("liger_kernel.transformers")
        kind = model.config.model_type
        apply = getattr(kernels, f"apply_liger_kernel_to_{kind}", None)
        if apply is None:
            raise Skipped(f"Liger has no patch for {kind}")
        others = dict.fromkeys(("rope", "rms_norm", "swiglu", "cross_entropy"), False)
        apply(**others, fused_linear_cross_entropy=True, model=model)
        return model

    return _measure(task, own, patch)


def cut(task: Task) -> Findings:
    """Cut Cross Entropy on the hidden states of every position, as its patch of a model calls it."""
    loss = importlib.import_module("cut_cross_entropy").linear_cross_entropy
    return _measure(task, _on_hidden_states(loss))


def _on_hidden_states(function: Callable[..., torch.Tensor], **options: Any) -> Loss:
    """A fused output layer and loss, called with hidden states, the layer's weight and the targets."""

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        hidden = model.model(**batch.inputs).last_hidden_state[:, :-1].flatten(0, 1)
        targets = batch.labels[:, 1:].flatten()
        total = function(hidden, model.get_output_embeddings().weight, targets, reduction="sum", **options)
        return total / batch.items

    return loss


def _measure(
    task: Task,
    loss: Loss,
    patch: Callable[[Any], Any] = lambda model: model,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
) -> Findings:
    size = SIZES[task.size]
    dtype, limits = (torch.bfloat16, BFLOAT16) if has_bfloat16(task.device) else (torch.float32, FLOAT32)
    model = build(size.config, task.device, dtype=dtype)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    rows, length = size.tokens
    batches = {
        share: random_batch(size.config["vocab_size"], rows, length, task.device, share=share, padded=False)
        for share in SHARES
    }
    with torch.no_grad():
        expected = {share: float(own(model, batch)) for share, batch in batches.items()}
    model = patch(model)
    findings = Findings({"rows": rows, "length": length, "dtype": str(dtype).removeprefix("torch.")})
    for share, on_device in batches.items():
        batch = prepare(on_device)
        found = _step(model, batch, loss)  # what is compiled and allocated once
        error = abs(found - expected[share]) / abs(expected[share])
        if not error <= limits.loss:
            findings.problems.append(
                f"{share}% labelled: the loss is {found:.6g}, the model's own {expected[share]:.6g}"
            )
        reset_peak(task.device)
        _step(model, batch, loss)
        peak = peak_bytes(task.device)
        seconds = statistics.median(_timed(model, batch, loss, task.device) for _ in range(ROUNDS))
        with counted_waits(task.device) as waits:
            _step(model, batch, loss, read=False)
        findings.figures[f"labels_{share}_percent"] = {
            "loss": found,
            "loss_error": error,
            "seconds": seconds,
            "tokens_per_second": rows * length / seconds,
            "peak_bytes": peak,
            "waits": waits[0],
        }
    return findings


def _step(model: Any, batch: Batch, loss: Loss, read: bool = True) -> float:
    model.zero_grad(set_to_none=True)
    value = loss(model, batch)
    value.backward()
    return float(value.detach()) if read else 0.0


def _timed(model: Any, batch: Batch, loss: Loss, device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    _step(model, batch, loss, read=False)
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Start to look for a new peak."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # else it is the peak since the process started
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str) -> int | None:
    """The most that was allocated on the GPU; on a CPU the most that was resident, None where the kernel doesn't say."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return None


@contextmanager
def counted_waits(device: str) -> Iterator[list[int | None]]:
    """Count the calls that wait for the GPU; the list holds None where there is none."""
    count: list[int | None] = [None]
    if device != "cuda":
        yield count
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield count
        finally:
            torch.cuda.set_sync_debug_mode("default")
    count[0] = sum(_WAITS in str(warning.message) for warning in caught)
