"""Makes what the demo recipes need: the tiny base model and the word problems, under ``outputs/demo``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import problems
import tiny_model

SYSTEM_MESSAGE = "Think first, then answer."


def set_up(root: Path, train: int = 4_000, test: int = 200, seed: int = 0) -> None:
    """Write ``model/`` and ``data/`` under `root`, unless they are there."""
    if not (root / "data" / "test.jsonl").exists():
        problems.write_problems(root / "data", train, test)
    if not (root / "model" / "model.safetensors").exists():
        rows = problems.problems(2_000, 0, problems.NAMES)
        turns = [f"system\n{SYSTEM_MESSAGE}", *(f"user\n{row['question']}" for row in rows), "assistant\n"]
        texts = [*turns, *(row["thinking"] for row in rows), *(row["answer"] for row in rows)]
        tiny_model.make_model(
            root / "model", [*texts, *(["<Thinking>", "</Thinking>", "<Answer>", "</Answer>"] * 99)], seed
        )


if __name__ == "__main__":
    set_up(
        Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0
    )
