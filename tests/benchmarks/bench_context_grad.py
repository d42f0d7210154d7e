"""Step time and memory of Stage 2: with the context gradient (exact) and without (``sftkey_context_grad: false``).

    python tests/benchmarks/bench_context_grad.py [--quick] [--device cuda] [--rounds N]

Both compute the output layer at labelled positions only, have the same loss and different gradients: this compares the
price of two methods. Models, batches and the way of timing are those of `bench_stage2_step`. A step is forward and
backward pass; the paths run in turn in one process, times are medians, on the CPU of CPU seconds.

- *time, expected*: by operations: 6 for each weight and token for the exact one; 2 for a token of the context and 6 for one
  of the answer for the other; attention and output layer likewise.
- *activations*: bytes of all tensors that autograd keeps from the forward to the backward pass, each storage once, weights
  left out; without the context gradient those of the key-value cache are added, which lives as long.
- *activations, expected*: the share of the tokens that are run with gradient, plus the context's keys and values: the
  cache, and what attention keeps of them for its backward pass (once more, at the number of query heads).
- *process memory*: how far the peak resident memory of a fresh process that runs one step lies above that of one that
  builds the same model with empty gradients and stops (CPU only, longest sequence).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import astuple

import torch
import transformers
from bench_stage2_step import MIB, Shape, Step, run, seconds, with_parameters
from sftkey.training.context_grad import after_context, without_gradient_checkpointing
from sftkey.training.loss import causal_loss

SHARES = (3, 5, 20)


def path(shape: Shape, share: int, exact: bool, device: str, model: torch.nn.Module) -> Step:
    """A step whose labels are on the last `share` per cent of the positions."""
    input_ids, labels = shape.batch(share, device)
    return with_parameters(
        lambda: causal_loss(model, {"input_ids": input_ids}, labels, None, context_grad=exact).loss, model
    )


def operations(shape: Shape, share: int, exact: bool) -> float:
    """Floating-point operations of a step."""
    answer = shape.targets(share)
    with_gradient = shape.length if exact else answer + 1
    context = shape.length - with_gradient
    weights = shape.layers * (3 * shape.width**2 + 9 * shape.width**2)
    attention = 2 * shape.layers * shape.width
    forward = 2 * weights * context + 2 * attention * context**2
    both = 6 * weights * with_gradient + 6 * attention * with_gradient * shape.length
    return forward + both + 6 * answer * shape.width * shape.vocabulary


def kept_bytes(step: Step, shape: Shape, share: int, exact: bool, device: str) -> int:
    """Bytes kept for the backward pass, the cache included."""
    model = step.model  # type: ignore[attr-defined]
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()
    total = sum(storage.nbytes() for storage in kept.values())
    loss.backward()
    if not exact:
        input_ids, labels = shape.batch(share, device)
        with without_gradient_checkpointing(model):
            cache = after_context(model, {"input_ids": input_ids}, labels, None)[0]["past_key_values"]
        total += sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    return total


def expected_kept(shape: Shape, share: int, exact_bytes: int, element: int) -> float:
    """What training without the context gradient keeps, by the exact one's bytes and the size of keys and values."""
    part = (shape.targets(share) + 1) / shape.length
    context = shape.length - shape.targets(share) - 1
    # Half as many heads for keys and values as for queries.
    cache = 2 * shape.layers * context * shape.width // 2 * element
    return part * exact_bytes + cache + 2 * cache


def process_peak(name: str, shape: Shape, share: int) -> int:
    """Peak resident bytes of a fresh process that runs one step, or builds the model alone (``model``)."""
    command = [sys.executable, __file__, "--child", name, str(share), *map(str, astuple(shape))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(json.loads(output.splitlines()[-1]))


def child(name: str, share: int, shape: Shape) -> None:
    """Run one step and print the peak resident memory of this process in bytes."""
    model = shape.model("cpu")
    if name == "model":
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    else:
        run(path(shape, share, name == "exact", "cpu", model))
    with open("/proc/self/status", encoding="ascii") as status:
        print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024)


def measure(shape: Shape, device: str, rounds: int, processes: bool) -> None:
    """Measure one shape and print its rows."""
    model = shape.model(device)
    steps = {(share, exact): path(shape, share, exact, device, model) for share in SHARES for exact in (True, False)}
    times: dict[tuple[int, bool], list[tuple[float, float]]] = {key: [] for key in steps}
    for step in steps.values():
        run(step)
    for index in range(rounds):
        keys = list(steps)
        shift = index % len(keys)
        for key in keys[shift:] + keys[:shift]:
            times[key].append(seconds(steps[key], device))
    wall = {key: statistics.median(first for first, _ in values) for key, values in times.items()}
    cost = {key: statistics.median(second for _, second in values) for key, values in times.items()}
    element = 2 if device == "cuda" else 4
    base = process_peak("model", shape, SHARES[0]) if processes else 0
    for share in SHARES:
        exact, ours = (share, True), (share, False)
        kept = {key: kept_bytes(steps[key], shape, share, key[1], device) for key in (exact, ours)}
        peaks = ""
        if processes:
            names = ("exact", "without")
            peaks = " / ".join(f"{(process_peak(name, shape, share) - base) / MIB:,.0f}" for name in names)
        print(
            f"| {shape.vocabulary:,} | {shape.length:,} | {share}% | {wall[exact]:.2f} | {wall[ours]:.2f} "
            f"| {cost[ours] / cost[exact]:.2f} | {operations(shape, share, False) / operations(shape, share, True):.2f} "
            f"| {kept[exact] / MIB:,.0f} | {kept[ours] / MIB:,.0f} | {kept[ours] / kept[exact]:.2f} "
            f"| {expected_kept(shape, share, kept[exact], element) / kept[exact]:.2f} | {peaks} |",
            flush=True,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small shape, to see that everything runs")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each path (default 5)")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if options.device == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    if options.child:
        name, share, *fields = options.child
        child(name, int(share), Shape(*map(int, fields)))
        return
    width, layers = (2048, 8) if options.device == "cuda" else (512, 4)
    if options.quick:
        width, layers = 256, 2
    lengths = (256,) if options.quick else (256, 1024)
    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} CPU cores"
    print(
        f"{time.strftime('%Y-%m-%d')}, {machine}, {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, load at start {os.getloadavg()[0]:.1f}. "
        f"Qwen3 of width {width} with {layers} layers, batch of 1, "
        f"{'bfloat16' if options.device == 'cuda' else 'float32'}.\n"
    )
    print(
        "| vocabulary | tokens | labelled | exact s/step | without s/step | time | expected | exact activations MiB "
        "| without MiB | activations | expected | process MiB above model, exact / without |"
    )
    print("|" + "---:|" * 12)
    for length in lengths:
        # Processes take their time to start: those of the longest sequence are enough.
        processes = options.device == "cpu" and length == lengths[-1]
        rounds = 2 if options.quick else options.rounds
        measure(Shape(49152, length, width, layers), options.device, rounds, processes)


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that spin while they wait would count as work; OpenMP reads this once, when it is loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_WAIT_POLICY": "passive"})
    main()
