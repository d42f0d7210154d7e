"""Generated problems of known kinds, for which it is known in advance what Stage 2 can do.

- ``derived``: the demo's. The thinking recalls two prices, the answer is the box that a fixed table has for them. The hard
  part is after ``</Thinking>``.
- ``copied``: a fixed table says what goes with two items; the thinking names it, the answer repeats the thinking's end. The
  hard part is in the thinking. (It names it twice: a tiny model learns to copy sooner where the thinking itself repeats.)
- ``memorised``: as ``derived``, with so few rows that Stage 1 learns their answers by heart.
"""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

from demo import problems

KINDS = ("derived", "copied", "memorised")
ROWS = {"derived": 4_000, "copied": 4_000, "memorised": 64}


def _fixed_table() -> dict[frozenset[str], str]:
    generator = random.Random(5)
    return {frozenset(pair): generator.choice(problems.ITEMS) for pair in combinations(problems.ITEMS, 2)}


GOES_WITH = _fixed_table()


def _copied(row: dict[str, str]) -> dict[str, str]:
    words = row["question"].rstrip("?").split()
    answer = f"the {GOES_WITH[frozenset(word for word in words if word in problems.ITEMS)]}"
    return {**row, "thinking": f"It goes with {answer}, so with {answer}.", "answer": answer}


def rows(kind: str, count: int, seed: int, names: list[str]) -> list[dict[str, str]]:
    """Random problems of a kind."""
    made = problems.problems(count, seed, names)
    return list(map(_copied, made)) if kind == "copied" else made


def write(folder: Path, kind: str, test: int = 200) -> None:
    """Write ``train.jsonl`` and ``test.jsonl``; the test questions are about people who aren't in training."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, made in (
        ("train", rows(kind, ROWS[kind], 1, problems.NAMES[:-4])),
        ("test", rows(kind, test, 2, problems.NAMES[-4:])),
    ):
        text = "".join(json.dumps(row) + "\n" for row in made)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
