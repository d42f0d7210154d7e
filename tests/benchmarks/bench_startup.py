"""How long commands take to start, beside ``axolotl --help``.

Run: python tests/benchmarks/bench_startup.py   (``--rounds N``; 1 minute)

``sftkey`` is started as its console script starts it. All commands run in turn, once before they are measured. CPU seconds
(user and system, those of child processes included) stand beside wall time: other programs disturb them less.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench_chain import AXOLOTL, Cost, cost, median

_SCRIPT = "import sys; sys.argv[0] = 'sftkey'; from sftkey.cli.main import sftkey; sftkey()"
SFTKEY = [sys.executable, "-c", _SCRIPT]
FIRST = "axolotl --help"
COMMANDS = {
    FIRST: [AXOLOTL, "--help"],
    "sftkey --help": [*SFTKEY, "--help"],
    "sftkey recipes": [*SFTKEY, "recipes"],
    "sftkey recipe qwen3_8b_stage2": [*SFTKEY, "recipe", "qwen3_8b_stage2"],
    "sftkey inspect --help": [*SFTKEY, "inspect", "--help"],
    "axolotl sftkey --help": [AXOLOTL, "sftkey", "--help"],
}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    costs: dict[str, list[Cost]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, command in COMMANDS.items():
                found = cost([command], Path(folder))
                if number:
                    costs[name].append(found)
    first = median(costs[FIRST])
    print(f"{rounds} rounds\n\n| command | s | x `{FIRST}` | CPU s | x `{FIRST}` |\n|---|---:|---:|---:|---:|")
    for name, values in costs.items():
        wall, cpu = median(values)
        print(f"| `{name}` | {wall:.2f} | {wall / first.wall:.3f} | {cpu:.2f} | {cpu / first.cpu:.3f} |")
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
