"""Step time and peak memory of the loss: the standard path against the loss on labelled positions only.

    python tests/benchmarks/bench_stage2_step.py [--quick] [--device cuda] [--vocabulary V] [--length T]

A step is forward and backward pass of a model of few layers with an output layer of real vocabulary size; the
optimizer, which both paths share, is left out. The standard path is what Axolotl runs otherwise: ``model(labels=...)``
with the loss of transformers. All paths of a shape run in turn, round after round, in one process; times are medians.

What the columns mean:

- *s/step* is wall-clock time. *Of standard* is a ratio of CPU seconds (of all threads), which other processes on the same
  machine disturb less; on CUDA it is one of wall-clock times.
- *body*: the same step with a loss on the hidden states. Standard minus body is what the output layer costs.
- *logits memory*: the largest sum of live tensors whose last dimension is the vocabulary, seen by counting every
  operation's results in a step that is not timed. It leaves out what a kernel allocates inside.
- *process memory*: how far the peak resident memory of a fresh process that runs one step (``VmHWM``, kept by the
  kernel, not sampled) lies above that of a process that runs the body's step.

- *expected*: by operations (6 for each weight and row), and 3 copies of the logits for the standard path (log-softmax and
  two gradients; the logits themselves are gone by then) against one chunk of them for ours, which works in place.

On CUDA everything runs in bfloat16, process memory is ``torch.cuda.max_memory_allocated``, and Liger's fused linear
cross-entropy and Cut Cross Entropy run beside both where they are installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from sftkey.training.linear_cross_entropy import chunk_rows
from sftkey.training.loss import causal_loss
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config, Qwen3ForCausalLM

MIB = 2**20
SHARES = (1, 5, 20, 100)


@dataclass(frozen=True)
class Shape:
    """A model and a batch of one sequence."""

    vocabulary: int
    length: int
    width: int
    layers: int

    def model(self, device: str) -> Qwen3ForCausalLM:
        """A random Qwen3 with an untied output layer."""
        config = Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            num_key_value_heads=self.width // 128,
            head_dim=64,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            use_cache=False,
        )
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).train()
        return model.to(device, torch.bfloat16 if device == "cuda" else torch.float32)

    def batch(self, share: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids, and labels on the last `share` per cent of the positions."""
        input_ids = torch.randint(self.vocabulary, (1, self.length), generator=torch.Generator().manual_seed(1))
        labels = torch.full_like(input_ids, -100)
        labels[:, -self.targets(share) :] = input_ids[:, -self.targets(share) :]
        return input_ids.to(device), labels.to(device)

    def targets(self, share: int) -> int:
        """Labelled tokens at a share of `share` per cent; the first token is never one."""
        return max(1, min(self.length * share // 100, self.length - 1))

    def operations(self, rows: int) -> float:
        """Floating-point operations of a step whose output layer sees `rows` rows: 6 for each weight and row."""
        layer = (4 + 2) * self.width**2 // 2 + 3 * 3 * self.width**2
        body = 6 * self.layers * layer * self.length + 12 * self.layers * self.width * self.length**2
        return body + 6 * rows * self.width * self.vocabulary

    def logits_bytes(self, rows: int, copies: int, element: int = 4) -> int:
        return rows * self.vocabulary * copies * element


Step = Callable[[], torch.Tensor]


def paths(shape: Shape, device: str) -> dict[str, Step]:
    """The steps to measure, by name; each returns a loss to be differentiated."""
    model = shape.model(device)
    input_ids, all_labels = shape.batch(100, device)

    def body() -> torch.Tensor:
        return model.model(input_ids=input_ids).last_hidden_state.float().mean()

    def standard(labels: torch.Tensor = all_labels) -> torch.Tensor:
        return model(input_ids=input_ids, labels=labels, num_items_in_batch=(labels != -100).sum()).loss

    def ours(labels: torch.Tensor) -> torch.Tensor:
        return causal_loss(model, {"input_ids": input_ids}, labels, None).loss

    steps: dict[str, Step] = {"body": body, "standard": standard}
    for share in SHARES:
        labels = shape.batch(share, device)[1]
        steps[f"ours {share}%"] = lambda labels=labels: ours(labels)
        # The standard path on the same labels, to compare gradients with; its cost does not depend on them.
        steps[f"reference {share}%"] = lambda labels=labels: standard(labels)
    if device == "cuda":
        steps |= fused(shape, device)
    for name, step in steps.items():
        steps[name] = with_parameters(step, model)
    return steps


def with_parameters(step: Step, model: torch.nn.Module) -> Step:
    """Let a step carry the model whose gradients it fills."""
    step.model = getattr(step, "model", model)  # type: ignore[attr-defined]
    return step


def fused(shape: Shape, device: str) -> dict[str, Step]:
    """The fused losses that are installed, on all labels and on 5% of them."""
    steps: dict[str, Step] = {}

    def add(name: str, model: torch.nn.Module) -> None:
        for share in (5, 100):
            input_ids, labels = shape.batch(share, device)
            steps[f"{name} {share}%"] = with_parameters(
                lambda model=model, input_ids=input_ids, labels=labels: (
                    model(input_ids=input_ids, labels=labels, num_items_in_batch=(labels != -100).sum()).loss
                ),
                model,
            )

    try:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen3
    except ImportError as error:
        print(f"Liger is left out: {error}")
    else:
        model = shape.model(device)
        off = dict.fromkeys(("rope", "rms_norm", "swiglu", "cross_entropy"), False)
        plain = Qwen3ForCausalLM.forward
        apply_liger_kernel_to_qwen3(**off, fused_linear_cross_entropy=True, model=model)
        Qwen3ForCausalLM.forward = plain
        add("Liger", model)
    try:
        from cut_cross_entropy.transformers import cce_patch
    except ImportError as error:
        print(f"Cut Cross Entropy is left out: {error}")
    else:
        add("CCE", cce_patch(shape.model(device)))
    return steps


def run(step: Step) -> torch.Tensor:
    """One forward and backward pass; returns the detached loss."""
    step.model.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
    loss = step()
    loss.backward()
    return loss.detach()


def seconds(step: Step, device: str) -> tuple[float, float]:
    """Wall-clock time of one step, and what ratios are taken of."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
    start, cpu_start = time.perf_counter(), time.process_time()
    run(step)
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return wall, wall if device == "cuda" else cpu


class LogitsMeter(TorchDispatchMode):
    """Largest number of bytes alive in tensors whose last dimension is the vocabulary."""

    def __init__(self, vocabulary: int, model: torch.nn.Module) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary:
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive and storage._cdata not in self.parameters:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
                self.peak = max(self.peak, sum(self.alive.values()))
        return result


def logits_peak(step: Step, shape: Shape) -> int:
    """Peak bytes of logits in one step."""
    with LogitsMeter(shape.vocabulary, step.model) as meter:  # type: ignore[attr-defined]
        run(step)
    return meter.peak


def process_peak(name: str, shape: Shape) -> int:
    """Peak resident bytes of a fresh process that runs one step."""
    fields = [str(value) for value in (shape.vocabulary, shape.length, shape.width, shape.layers)]
    command = [sys.executable, __file__, "--child", name, *fields]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def gradient_difference(steps: dict[str, Step], share: int) -> float:
    """Largest relative difference of a parameter's gradient to that of the standard path."""
    run(steps[f"reference {share}%"])
    model = steps["standard"].model  # type: ignore[attr-defined]
    expected = [parameter.grad.float().clone() for parameter in model.parameters()]
    run(steps[f"ours {share}%"])
    pairs = zip(model.parameters(), expected, strict=True)
    return max(((p.grad.float() - e).norm() / e.norm().clamp(min=1e-30)).item() for p, e in pairs)


def measure(shape: Shape, device: str, rounds: int, shares: tuple[int, ...], everything: bool) -> None:
    """Measure one shape and print its rows."""
    steps = paths(shape, device)
    difference = gradient_difference(steps, 5) if everything else None
    names = [name for name in steps if name in ("body", "standard") or name.startswith(("Liger", "CCE"))]
    names += [f"ours {share}%" for share in shares]
    run(steps["body"])
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for index in range(rounds):
        # Every round starts at another path, so that none is always first or always after the largest one.
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(seconds(steps[name], device))
    wall = {name: statistics.median(first for first, _ in values) for name, values in times.items()}
    cost = {name: statistics.median(second for _, second in values) for name, values in times.items()}
    logits: dict[str, int] = {}
    peak: dict[str, int] = {}
    for name in names:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            run(steps[name])
            peak[name] = torch.cuda.max_memory_allocated()
        logits[name] = logits_peak(steps[name], shape)
    del steps
    gc.collect()
    if everything and device == "cpu":
        peak = {name: process_peak(name, shape) for name in ("body", "standard", "ours 5%", "ours 100%")}
    for name in names:
        rows = shape.targets(int(name.split()[1][:-1])) if " " in name else shape.length
        expected_cost, saved, expected_logits = "", "", ""
        if name == "body":
            expected_cost = f"{shape.operations(0) / shape.operations(shape.length):.2f}"
        if name == "standard" and device == "cpu":
            expected_logits = f"{shape.logits_bytes(shape.length, copies=3) / MIB:,.0f}"
        if name.startswith("ours"):
            expected_cost = f"{shape.operations(rows) / shape.operations(shape.length):.2f}"
            saved = f"{(cost['standard'] - cost[name]) / (cost['standard'] - cost['body']):.0%}"
            kept = min(rows, chunk_rows(shape.width))
            # In bfloat16 the chunk exists twice: as it leaves the product, and in float32.
            element = 6 if device == "cuda" else 4
            expected_logits = f"{shape.logits_bytes(kept, copies=1, element=element) / MIB:,.0f}"
        above = f"{(peak[name] - peak['body']) / MIB:,.0f}" if name in peak and name != "body" else ""
        print(
            f"| {shape.vocabulary:,} | {shape.length:,} | {name} | {wall[name]:.2f} "
            f"| {cost[name] / cost['standard']:.2f} | {expected_cost} | {saved} "
            f"| {logits[name] / MIB:,.0f} | {logits[name] / logits['standard']:.1%} | {expected_logits} | {above} |",
            flush=True,
        )
    if difference is not None:
        print(
            f"Largest relative difference of a gradient, ours against standard at 5%: {difference:.0e}", file=sys.stderr
        )


def child(name: str, shape: Shape) -> None:
    """Run one step and print the peak resident memory of this process in bytes."""
    torch.set_num_threads(2)
    run(paths(shape, "cpu")[name])
    # Unlike getrusage's maximum, this one does not start at what the parent process had.
    with open("/proc/self/status", encoding="ascii") as status:
        print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small shape, to see that everything runs")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each path (default 5)")
    parser.add_argument("--vocabulary", type=int, help="only the shapes with this vocabulary")
    parser.add_argument("--length", type=int, help="only the shapes with this many tokens")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if options.child:
        name, *fields = options.child
        child(name, Shape(*(int(field) for field in fields)))
        return
    device = options.device
    width, layers = (2048, 8) if device == "cuda" else (512, 4)
    if options.quick:
        width, layers = 256, 2
    rounds = options.rounds
    measurements = [
        (
            Shape(vocabulary, length, width, layers),
            rounds if length < 4_096 else max(1, rounds // 2),
            SHARES if length < 4_096 else (5, 100),
            (vocabulary, length) == (151_936, 1_024),
        )
        for vocabulary in (49_152, 128_256, 151_936)
        for length in (256, 1_024, 4_096)
    ]
    measurements = [
        measurement
        for measurement in measurements
        if options.vocabulary in (None, measurement[0].vocabulary) and options.length in (None, measurement[0].length)
    ]
    if options.quick:
        measurements = [(Shape(49152, 256, width, layers), 2, SHARES, True)]
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"
    if device == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    print(
        f"{time.strftime('%Y-%m-%d')}, {machine}, {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, load at start {os.getloadavg()[0]:.1f}. "
        f"Qwen3 of width {width} with {layers} layers, batch of 1, "
        f"{'bfloat16' if device == 'cuda' else 'float32'}.\n"
    )
    print(
        "| vocabulary | tokens | path, labelled | s/step | of standard | expected | output layer saved | logits MiB "
        "| of standard | expected MiB | process MiB above body |"
    )
    print("|" + "---:|" * 2 + "---|" + "---:|" * 8)
    for shape, repeats, shares, everything in measurements:
        measure(shape, device, repeats, shares, everything)


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that spin while they wait would count as work; OpenMP reads this once, when it is loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_WAIT_POLICY": "passive"})
    main()
