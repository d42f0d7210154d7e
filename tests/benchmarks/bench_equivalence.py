"""Compared answers per second: the rules beside math-verify alone, on real GSM8K answers and on generated LaTeX.

    python tests/benchmarks/bench_equivalence.py

Each item is a reference with an answer that is right or wrong in a known way, so the table also says how many verdicts are
right. "Can't tell" is no verdict; math-verify has no such outcome, what it can't show to be the same is different.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules.equivalence import compare
from sftkey.evaluation.rules.formula_process import FORMULAS
from sftkey.evaluation.verdicts import RuleVerdict

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "test.jsonl"


@dataclass(frozen=True)
class Pair:
    prediction: str
    reference: str
    same: bool


def gsm8k_pairs(path: Path, randomness: random.Random) -> list[Pair]:
    """The real references, each with one answer as models write it; every fourth is wrong."""
    spellings = ("{}", "${:,}", "{:,}", "{}.00", "The total is {} dollars.", "**{}**", "= {}")
    pairs = []
    for index, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        reference = json.loads(line)["answer"].rpartition("####")[2].strip()
        wrong = index % 4 == 0
        number = int(reference.replace(",", "")) + (randomness.choice((-10, -1, 1, 7)) if wrong else 0)
        pairs.append(Pair(randomness.choice(spellings).format(number), reference, not wrong))
    return pairs


def latex_pairs(count: int, randomness: random.Random) -> list[Pair]:
    """Generated formulas in two spellings; every fourth has another value."""

    def one() -> tuple[str, str, str]:
        a, b, c = (randomness.randint(2, 30) for _ in range(3))
        return randomness.choice(
            (
                (rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{2 * a}}}{{{2 * b}}}", rf"\frac{{{a + 1}}}{{{b}}}"),
                (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"{a + 1}\sqrt{{{b}}}"),
                (f"x^2+{a}x+{b}", f"{b}+{a}x+x^2", f"x^2+{a}x+{b + 1}"),
                (f"(x+{a})^2", f"x^2+{2 * a}x+{a * a}", f"(x+{a + 1})^2"),
                (f"({a},{b})", rf"\left({a}, {b}\right)", f"({a},{b + 1})"),
                (rf"\{{{a},{a + b}\}}", f"{a + b}, {a}", rf"\{{{a},{a + b + 1}\}}"),
                (f"{a}{b:02d}{c:03d}", f"{a}{b:02d}{c:03d}.0", f"{a}{b:02d}{c + 1:03d}"),
                (rf"{a}\pi", rf"\pi \cdot {a}", rf"{a + 1}\pi"),
            )
        )

    pairs = []
    for index in range(count):
        reference, same, different = one()
        wrong = index % 4 == 0
        pairs.append(Pair(different if wrong else same, reference, not wrong))
    return pairs


def math_verify_alone(prediction: str, reference: str) -> bool | None:
    """As its README says, time limits included."""
    from math_verify import parse, verify

    return verify(parse(f"${reference}$"), parse(f"${prediction}$"))


def by_rules(kind: AnswerKind) -> Callable[[str, str], bool | None]:
    def decide(prediction: str, reference: str) -> bool | None:
        verdict = compare(prediction, reference, kind).verdict
        return None if verdict is RuleVerdict.CANT_TELL else verdict is RuleVerdict.SAME

    return decide


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gsm8k", type=Path, default=GSM8K, help="test split of GSM8K as JSON lines")
    arguments.add_argument("--formulas", type=int, default=1_000, help="number of generated LaTeX items")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    logging.disable(logging.WARNING)
    randomness = random.Random(options.seed)
    workloads = {
        "GSM8K": (AnswerKind.NUMBER, gsm8k_pairs(options.gsm8k, randomness)),
        "LaTeX": (AnswerKind.MATHS, latex_pairs(options.formulas, randomness)),
    }
    FORMULAS.compare("x+1", "1+x")  # start the process
    math_verify_alone("x+1", "1+x")  # and import math-verify here
    print("| answers | by | items | items/s | right | wrong | can't tell |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, (kind, pairs) in workloads.items():
        for by, decide in (("sftkey", by_rules(kind)), ("math-verify alone", math_verify_alone)):
            start = time.perf_counter()
            verdicts = [decide(pair.prediction, pair.reference) for pair in pairs]
            seconds = time.perf_counter() - start
            right = sum(verdict is pair.same for verdict, pair in zip(verdicts, pairs, strict=True))
            unknown = verdicts.count(None)
            print(
                f"| {name} | {by} | {len(pairs):,} | {len(pairs) / seconds:,.0f} | {right:,} | "
                f"{len(pairs) - right - unknown:,} | {unknown:,} |"
            )


if __name__ == "__main__":
    main()
