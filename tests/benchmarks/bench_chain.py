"""What ``sftkey run`` adds to the commands that a user would give otherwise.

Run: python tests/benchmarks/bench_chain.py   (``--rounds N``; 4 to 8 minutes)

``axolotl train`` of two tiny stages, one command after the other, against ``sftkey run`` of the second recipe, which trains
both; alternated, each from nothing in a folder of its own.

CPU seconds, those of child processes included, stand beside wall time: other programs disturb them less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

AXOLOTL = str(Path(sys.executable).parent / "axolotl")
SFTKEY = (sys.executable, "-m", "sftkey.cli")
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
STAGES = ("demo_stage1.yml", "demo_stage2.yml")


class Cost(NamedTuple):
    """Wall time and CPU time in seconds."""

    wall: float
    cpu: float


def cost(commands: list[list[str]], folder: Path) -> Cost:
    """Run commands one after the other; stop with the end of the output where one fails."""
    started, before = time.perf_counter(), os.times()
    for command in commands:
        done = subprocess.run(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-3000:]}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.perf_counter() - started, used)


def median(costs: list[Cost]) -> Cost:
    """The median of each time by itself."""
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))


def write_recipes(folder: Path) -> None:
    """The demo's two stages, shortened to two steps each, with their model and data."""
    from demo import setup_demo

    setup_demo.set_up(folder / "outputs" / "demo", train=64, test=8)
    (folder / "recipes").mkdir()
    for name in STAGES:
        recipe = yaml.safe_load((REPOSITORY / "recipes" / name).read_text(encoding="utf-8"))
        recipe["max_steps"] = 2
        (folder / "recipes" / name).write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def chain(rounds: int) -> None:
    """Print the table of the chain."""
    bare, ours = "`axolotl train` of each stage", "`sftkey run`"
    ways = {
        bare: [[AXOLOTL, "train", f"recipes/{name}"] for name in STAGES],
        ours: [[*SFTKEY, "run", f"recipes/{STAGES[-1]}"]],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(rounds):
        # The order changes from round to round, because the second of two finds the files in memory.
        for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
            with tempfile.TemporaryDirectory() as folder:
                write_recipes(Path(folder))
                costs[name].append(cost(ways[name], Path(folder)))
    print(f"{rounds} rounds, {len(STAGES)} stages\n\n| way | s | CPU s |\n|---|---:|---:|")
    for name, values in costs.items():
        print(f"| {name} | {median(values).wall:.1f} | {median(values).cpu:.1f} |")
    added = [
        Cost((o.wall - b.wall) / len(STAGES), (o.cpu - b.cpu) / len(STAGES))
        for b, o in zip(costs[bare], costs[ours], strict=True)
    ]
    each = ", ".join(f"{value.wall:+.1f} ({value.cpu:+.1f})" for value in added)
    print(f"| added per stage, median of pairs | {median(added).wall:+.2f} | {median(added).cpu:+.2f} |")
    print(f"\nseconds (CPU seconds) added per stage by pair: {each}\n", flush=True)


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    chain(parser.parse_args().rounds)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
