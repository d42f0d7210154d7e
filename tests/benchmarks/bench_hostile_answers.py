"""Hostile answers against the rules: the longest comparison, and the most memory that the process for formulas takes.

python tests/benchmarks/bench_hostile_answers.py
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from pathlib import Path

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules.equivalence import compare
from sftkey.evaluation.rules.formula_process import FORMULAS

PIECES = (
    "9^{9^{9}}", "9**9**9", "(((9!)!)!)!", r"\binom{10000000}{5000000}", r"\sum_{n=1}^{1000}", r"\prod_{n=1}^{999}n",
    r"\frac{1}{", "}", "{",
    r"\sqrt{", r"\sqrt[99]{2}", "(", ")", "[", "]", r"\{", r"\}", "x", "y_1", "+", "-", "/", "^", "^{-1}", "!", "%",
    "1e999", "0.1", "1,234", "7",
    "10^{300}", "99999999999999999999", r"\sin(", r"\log_2", r"\infty", r"\cup", "=", "<", r"\le", ",", " and ",
    " or ", ";", ":", r"\pm", "|",
    r"\begin{pmatrix}", r"\end{pmatrix}", "&", r"\\", r"\text{cm}", "dozen", "twenty", "hundred", " minutes", "°",
    "√", "²", "½", "¢", "$",
    r"\overline{3}", "\x00", "\u202e", "\ud800", "   ", "\n\n", "Step 1:", "when x =", "the answer is", "_8",
    r"\lfloor", r"\rfloor", "i", "e", r"\pi",
)  # fmt: skip


def hostile(randomness: random.Random) -> str:
    """Pieces in a row, some of them many times."""
    count = randomness.choice((1, 2, 3, 5, 8, 13, 30))
    parts = (randomness.choice(PIECES) * randomness.choice((1, 1, 1, 1, 2, 5, 40, 2_000)) for _ in range(count))
    return "".join(parts)[: randomness.choice((100, 1_000, 5_000))]


def peak_megabytes() -> float:
    """The most memory that the process for formulas has had, or 0 where it isn't running."""
    process = FORMULAS._process
    if process is None or process.poll() is not None:
        return 0.0
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--answers", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    logging.disable(logging.WARNING)
    randomness = random.Random(options.seed)
    FORMULAS.compare("x+1", "1+x")  # start the process
    slowest, worst, memory, over = 0.0, "", 0.0, 0
    for _ in range(options.answers):
        kind = randomness.choice((AnswerKind.NUMBER, AnswerKind.MATHS, AnswerKind.MATHS, AnswerKind.TEXT))
        answer, reference = (
            hostile(randomness),
            randomness.choice(("18", r"\sqrt{2}x", "(1,2)", "x > 2", hostile(randomness)[:200])),
        )
        start = time.perf_counter()
        over += compare(answer, reference, kind).over_limit
        seconds = time.perf_counter() - start
        memory = max(memory, peak_megabytes())
        if seconds > slowest:
            slowest, worst = seconds, answer[:80]
    print("| answers | over a limit | slowest (s) | memory (MB) |")
    print("|---:|---:|---:|---:|")
    print(f"| {options.answers:,} | {over:,} | {slowest:.2f} | {memory:.0f} |")
    print(f"slowest: {worst!r}")


if __name__ == "__main__":
    main()
