"""The demo's word problems: facts that must be recalled, and an answer that follows from them but never repeats them.

Each of 28 items has a price of its own, and a fixed table sends every unordered pair of prices to one of 12 boxes. A
question names two items; the thinking recalls their prices; the answer is the box. The box is a function of the
thinking, but no word of it stands there, so the answer can't be copied and Stage 2 has something to learn.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

ITEMS = (
    "lamp rope kettle basket drum mirror candle ladder hammer pillow blanket bucket violin compass lantern saddle anchor "
    "chisel goblet helmet tripod shovel teapot napkin ribbon marble magnet trumpet"
).split()
BOXES = "red blue green white black brown gold silver pink grey orange purple".split()
NAMES = "Tom Ann Ben Eve Joe Kim Leo Mia Ned Pam Ray Sue Tim Una Vic Zoe Amy Bob Cid Dot".split()


def _fixed_world() -> tuple[dict[str, int], dict[frozenset[int], str]]:
    generator = random.Random(20)
    prices = generator.sample(range(10, 100), len(ITEMS))
    price_of = dict(zip(ITEMS, prices, strict=True))
    pairs = [frozenset((first, second)) for index, first in enumerate(prices) for second in prices[index:]]
    return price_of, {pair: generator.choice(BOXES) for pair in pairs}


PRICES, BOX_OF = _fixed_world()


def problem(name: str, first: str, second: str) -> dict[str, str]:
    """One row: ``question``, ``thinking``, ``answer``."""
    return {
        "question": f"{name} takes the {first} and the {second} to which box?",
        "thinking": f"The {first} costs {PRICES[first]}. The {second} costs {PRICES[second]}.",
        "answer": f"the {BOX_OF[frozenset((PRICES[first], PRICES[second]))]} box",
    }


def problems(count: int, seed: int, names: list[str]) -> list[dict[str, str]]:
    """Random problems whose questions use only `names`."""
    generator = random.Random(seed)
    return [problem(generator.choice(names), *generator.sample(ITEMS, 2)) for _ in range(count)]


def write_problems(folder: Path, train: int = 4_000, test: int = 200) -> None:
    """Write ``train.jsonl`` and ``test.jsonl``. Every question of the test file is about a person not seen in training."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", problems(train, 1, NAMES[:-4])), ("test", problems(test, 2, NAMES[-4:]))):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
