"""`make demo-seeds`: the demo with several seeds; their figures go to ``tests/demo/seeds.json``, for the picture.

A seed is that of the model's first weights and of the training. What is finished is not done again; each takes as long as the
demo.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import run as demo

FIGURES = Path(__file__).parent / "seeds.json"
CELLS = {"stage1": demo.STAGE1, "stage2": demo.STAGE2, "control": demo.CONTROL}
VERSIONS = ("sftkey", "axolotl", "lm-eval", "torch", "transformers", "numpy")


def figures_of(cell: demo.Cell) -> dict[str, Any]:
    """One cell's figures, in the working directory: Acc and Fmt of each item, and the answer loss on the test split."""
    items = sorted(demo.samples(cell), key=lambda item: item["doc_id"])
    return {
        **{metric: "".join(str(int(item[metric])) for item in items) for metric in ("acc", "fmt")},
        "answer_loss": [[entry["step"], round(entry["eval_loss_answer"], 4)] for entry in demo.evaluations(cell)],
    }


def collect(places: dict[int, Path]) -> dict[str, Any]:
    """The figures of finished demos, with what made them."""
    here, seeds = Path.cwd(), {}
    for seed, place in places.items():
        os.chdir(place)
        try:
            seeds[str(seed)] = {name: figures_of(cell) for name, cell in CELLS.items()}
        finally:
            os.chdir(here)
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "machine": f"{platform.system()} {platform.machine()}, CPU, one thread",
        "seeds": seeds,
    }


def main() -> None:
    """Run the demo once for each seed and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4], metavar="SEED", help="[1 2 3 4]")
    parser.add_argument(
        "--place", type=Path, default=Path("outputs/demo-seeds"), help="a folder for each seed is in it"
    )
    options = parser.parse_args()
    places = {seed: options.place / str(seed) for seed in options.seeds}
    for seed, place in places.items():
        print(f"\n== Seed {seed} ==", flush=True)
        subprocess.run(
            [sys.executable, demo.__file__, "--seed", str(seed), "--place", str(place)],
            check=True,
        )
    FIGURES.write_text(json.dumps(collect(places), indent=1) + "\n", encoding="utf-8")
    print(f"\nWrote {FIGURES}; make demo-picture draws it")


if __name__ == "__main__":
    main()
