"""What it costs that a checkpoint names the hash of each of its files: beside saving it, and beside loading it.

    python tests/benchmarks/bench_checkpoint_hashing.py [--mib 600] [--rounds 3] [--folder .]

A checkpoint of a third weights and two thirds optimizer is saved as the trainer saves it, vouched for in a thread, and read
back at a resumption.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sftkey.stages.checkpoints import survey
from sftkey.stages.marker import RunFile
from sftkey.stages.saving import Saving


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    numbers = options.mib * 2**20 // 4 // 3 // 8
    weights = {f"layer{n}": torch.randn(numbers) for n in range(8)}
    moments = {name: {"exp_avg": torch.randn(numbers), "exp_avg_sq": torch.rand(numbers)} for name in weights}
    run = RunFile(id="1", world_size=1)
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        checkpoint, saving = Path(name) / "checkpoint-1", Saving(run)

        def save() -> None:
            save_file(weights, checkpoint / "model.safetensors")
            torch.save(moments, checkpoint / "optimizer.pt")
            (checkpoint / "trainer_state.json").write_text("{}")

        def vouch() -> None:
            saving.complete(checkpoint)
            saving.finish()

        def read() -> None:
            (one,) = survey(Path(name), run, {"save_only_model": True}, 1)
            assert one.fault is None
            assert one.damage() == ""

        def load() -> None:
            for tensor in load_file(checkpoint / "model.safetensors").values():
                tensor.sum()
            torch.load(checkpoint / "optimizer.pt", weights_only=True)

        steps = {"save": save, "sync and hash, in the thread": vouch, "load": load, "check": read}
        for _ in range(options.rounds):
            saving.begin(checkpoint)
            for what, function in steps.items():
                found.setdefault(what, []).append(seconds(function))
            shutil.rmtree(checkpoint)
    median = {
        what: [statistics.median(values) for values in zip(*rounds, strict=True)] for what, rounds in found.items()
    }
    print(f"{options.mib} MiB, medians of {options.rounds} rounds")
    print("| | wall s | CPU s | wall, of save | CPU, of save |\n|---|---:|---:|---:|---:|")
    for what, (wall, cpu) in median.items():
        ratios = f"{wall / median['save'][0]:.2f} | {cpu / median['save'][1]:.2f}"
        print(f"| {what} | {wall:.2f} | {cpu:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
