"""Judged items per second: concurrent calls against one at a time, and answers from the cache.

    python tests/benchmarks/bench_judge.py

The judge is a loopback server in a process of its own that answers after a fixed delay. "Of the limit" is against a
client that costs nothing: concurrency / delay.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sftkey.evaluation.judge.client import judge
from sftkey.evaluation.judge.prompt import JudgeItem
from sftkey.evaluation.judge.settings import JudgeSettings
from support.loopback_judge import LoopbackServer, read_judge_prompt


def _same(prompt: str) -> str:
    _, reference, prediction = read_judge_prompt(prompt)
    return "yes" if reference == prediction else "no"


def _serve(delay: float, pipe: Connection) -> None:
    with LoopbackServer(_same, delay=delay) as server:
        pipe.send(server.base_url)
        pipe.recv()


def _items(count: int, run: str) -> list[JudgeItem]:
    return [JudgeItem(f"{run}: what is {n} + {n}?", str(2 * n), str(2 * n + n % 2)) for n in range(count)]


def _measure(base_url: str, cache: Path, items: list[JudgeItem], concurrency: int) -> float:
    settings = JudgeSettings(base_url, "loopback", concurrency=concurrency, cache_dir=cache)
    start = time.perf_counter()
    verdicts = judge(items, settings, progress=False)
    seconds = time.perf_counter() - start
    wrong = sum(verdict.same != (n % 2 == 0) for n, verdict in enumerate(verdicts))
    if wrong:
        raise SystemExit(f"{wrong} of {len(items)} verdicts are wrong")
    return len(items) / seconds


def main() -> None:
    """Print a table of items per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1319, help="items of a concurrent run (GSM8K's test rows)")
    parser.add_argument("--items-one-at-a-time", type=int, default=60)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.1, 0.3], help="seconds that the server takes")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32, 128])
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)

    print(f"{'delay':>7} {'concurrency':>12} {'items':>6} {'items/s':>9} {'x one at a time':>16} {'of the limit':>13}")
    for delay in options.delays:
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=_serve, args=(delay, there))
        server.start()
        base_url = here.recv()
        with tempfile.TemporaryDirectory() as folder:
            _measure(base_url, Path(folder), _items(2, "warm-up"), 1)  # imports the client
            alone = 0.0
            for concurrency in [1, *options.concurrency]:
                items = _items(options.items_one_at_a_time if concurrency == 1 else options.items, f"run {concurrency}")
                rate = _measure(base_url, Path(folder), items, concurrency)
                alone = alone or rate
                share = rate * delay / concurrency
                print(
                    f"{delay:>6}s {concurrency:>12} {len(items):>6} {rate:>9.1f} {rate / alone:>15.1f}x {share:>12.0%}"
                )
            rate = _measure(base_url, Path(folder), items, concurrency)
            print(f"{delay:>6}s {'cached':>12} {len(items):>6} {rate:>9.1f} {rate / alone:>15.1f}x {'':>13}")
        here.send("stop")
        server.join()


if __name__ == "__main__":
    main()
