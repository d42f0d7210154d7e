"""`make demo`: trains the demo's two stages and the control through the real commands, evaluates them, says what came of it.

No network and no GPU are needed. Everything goes below ``outputs/demo``; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECIPES = HERE.parents[1] / "recipes"
ROOT = Path("outputs/demo")


@dataclass(frozen=True)
class Cell:
    """One trained strategy: what it is called here and in the report, its recipe and its lm-eval task."""

    title: str
    strategy: str
    name: str
    task: str = "sftkey_demo"

    @property
    def recipe(self) -> Path:
        """The shipped recipe."""
        return RECIPES / f"demo_{self.name}.yml"

    @property
    def output(self) -> Path:
        """What it is trained into."""
        return ROOT / self.name


STAGE1 = Cell("Stage 1, SFT-Tag (whole response)", "SFT-Tag", "stage1")
STAGE2 = Cell("Stage 2, SFTKey-Tag (answer only)", "SFTKey-Tag", "stage2")
CONTROL = Cell("Control, SFT-Tag carried on", "SFT-Tag then SFT-Tag", "control")
SFT = Cell("SFT (untagged)", "SFT", "sft", "sftkey_demo_plain")
KEY = Cell("Key-Tag (answer only, from the base model)", "Key-Tag", "key")

BEFORE = """\
Trains a tiny model (0.8 M parameters, random weights) on 4,000 made-up problems: Stage 1, then from its weights Stage 2
and the control, which is Stage 1's loss for as many steps as Stage 2. Evaluates each on 200 unseen questions and writes
a report. It takes about {minutes} minutes on two free cores ({seconds} CPU seconds), downloads nothing, and writes
{megabytes} MB below {root}. Ctrl-C stops it; the same command goes on.
"""


def environment() -> dict[str, str]:
    """The user's, with this Python's commands first, on the CPU and off the network."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(ROOT.resolve() / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        # Two threads of so small a step wait for each other longer than they compute, and more so on a busy machine.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def run_quietly(title: str, command: Sequence[str]) -> None:
    """Run a short command, its output in a log file; show the end of the log and stop if it fails."""
    print(title, flush=True)
    log = ROOT / "logs" / f"{Path(command[1]).stem}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        status = subprocess.run(
            command, env=environment(), stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status:
        print("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-30:]))
        sys.exit(f"{command[0]} failed with status {status}; the whole log is {log}")


def train_and_evaluate(cell: Cell, seed: int | None) -> None:
    """``sftkey run`` on its recipe, which shows how far it is; its table of figures is left out, as a better one follows."""
    command = ["sftkey", "run", str(cell.recipe), "--launcher", "python", *(["--seed", str(seed)] if seed else [])]
    evaluation = ["--eval", "--eval-tasks", cell.task, "--eval-include-path", str(HERE / "tasks")]
    status = subprocess.run(
        [*command, *evaluation, "--eval-batch-size", "64"], env=environment(), stdout=subprocess.DEVNULL, check=False
    ).returncode
    if status:
        sys.exit(status)


def samples(cell: Cell) -> list[dict[str, Any]]:
    """The evaluated items, as lm-eval logged them."""
    path = sorted((cell.output / "eval").rglob("samples_*.jsonl"))[-1]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures(cell: Cell) -> dict[str, float]:
    """Acc, Fmt and Score, by lm-eval."""
    path = sorted((cell.output / "eval").rglob("results_*.json"))[-1]
    results = json.loads(path.read_text(encoding="utf-8"))["results"][cell.task]
    return {metric: results[f"{metric},none"] for metric in ("acc", "fmt", "score")}


def evaluations(cell: Cell) -> list[dict[str, float]]:
    """What the trainer logged of the test split, before the first step to after the last."""
    history = json.loads((cell.output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry for entry in history if "eval_loss" in entry]


def comparison(first: Cell, second: Cell, metric: str = "acc") -> dict[str, float]:
    """The report's paired test of two cells: difference (second minus first), low, high, adjusted p."""
    with open(ROOT / "report" / "tables" / "comparisons.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["first"], row["second"], row["metric"]) == (first.strategy, second.strategy, metric):
                return {key: float(row[key]) for key in ("difference", "low", "high", "adjusted p")}
            if (row["second"], row["first"], row["metric"]) == (first.strategy, second.strategy, metric):
                return {
                    "difference": -float(row["difference"]),
                    "low": -float(row["high"]),
                    "high": -float(row["low"]),
                    "adjusted p": float(row["adjusted p"]),
                }
    raise LookupError(f"the report doesn't compare {first.strategy} with {second.strategy}")


def verdict(gain: float, control: float, difference: dict[str, float]) -> str:
    """What Stage 2 gained that the control didn't, in words.

    Args:
        gain: Stage 2's Acc minus Stage 1's.
        control: The control's Acc minus Stage 1's.
        difference: Of Stage 2 minus the control, as `comparison` has it.
    """
    interval = f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}], p = {difference['adjusted p']:.2g}"
    lines = [
        f"Acc by Stage 2: {100 * gain:+.1f} points. By the control, as many steps of Stage 1's loss: {100 * control:+.1f}.",
        f"Stage 2 minus the control: {100 * difference['difference']:+.1f} points {interval}.",
    ]
    if difference["low"] > 0:
        lines.append("Here Stage 2 gains more than the control: that much is the answer-only loss's, on this one seed.")
    elif difference["high"] < 0:
        lines.append("Here Stage 2 gains less than the control: nothing of its gain is the answer-only loss's.")
    else:
        lines.append("No difference is shown: what Stage 2 gains here is what more training gains.")
    return "\n".join(lines)


def print_outcome(cells: Sequence[Cell]) -> None:
    """Losses, one output of each, figures, and what they say about Stage 2."""
    print("\nLoss per segment on unseen questions (nats per token), before -> after")
    print(f"{'':44}{'thinking':>18}{'answer':>18}{'format':>18}")
    for cell in cells:
        before, *_, after = evaluations(cell)
        keys = [f"eval_loss_{segment}" for segment in ("thinking", "answer", "format")]
        print(f"{cell.title:44}" + "".join(f"{f'{before[key]:.3f} -> {after[key]:.3f}':>18}" for key in keys))
    print("\nOne question")
    for number, cell in enumerate(cells):
        item = samples(cell)[0]
        if not number:
            print(f"  {item['doc']['question']} (reference: {item['target']})")
        print(f"{cell.title}\n  {item['resps'][0][0]}")
    print(f"\nEvaluation on {len(samples(cells[0]))} unseen questions (lm_eval)")
    print(f"{'':44}{'acc':>8}{'fmt':>8}{'score':>8}")
    for cell in cells:
        print(f"{cell.title:44}" + "".join(f"{value:8.3f}" for value in figures(cell).values()))
    acc = {cell: figures(cell)["acc"] for cell in (STAGE1, STAGE2, CONTROL)}
    print()
    print(verdict(acc[STAGE2] - acc[STAGE1], acc[CONTROL] - acc[STAGE1], comparison(CONTROL, STAGE2)))


def main() -> None:
    """Set up, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="also train the other strategies: SFT and Key-Tag")
    parser.add_argument("--seed", type=int, help="of the model's first weights and of the training [0 and 42]")
    parser.add_argument("--place", type=Path, default=Path(), help="the folder whose outputs/demo is used [this one]")
    options = parser.parse_args()
    options.place.mkdir(parents=True, exist_ok=True)
    os.chdir(options.place)
    began = time.monotonic()
    cost = {"minutes": 9, "seconds": 500, "megabytes": 160} if options.all else COST
    print(BEFORE.format(**cost, root=ROOT), flush=True)
    run_quietly(
        "Making model and problems", [sys.executable, str(HERE / "setup_demo.py"), str(ROOT), str(options.seed or 0)]
    )
    for cell in (STAGE2, CONTROL, *((SFT, KEY) if options.all else ())):
        train_and_evaluate(cell, options.seed)
    run_quietly("Writing the report", ["sftkey", "report", str(ROOT), "-o", str(ROOT / "report")])
    print_outcome([STAGE1, STAGE2, CONTROL, *((SFT, KEY) if options.all else ())])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in used)
    print(f"\nReport: {ROOT / 'report' / 'index.html'}    Logs: {ROOT / 'logs'}")
    print(f"Took {(time.monotonic() - began) / 60:.1f} minutes, {seconds:.0f} CPU seconds.")


COST = {"minutes": 5, "seconds": 280, "megabytes": 100}
"""Of `make demo`: what its commands took on two idle cores, added up."""

if __name__ == "__main__":
    main()
