"""Apply the rules to the outputs of `real_text.py`: a small file of yes and no for each item, and the tables from it.

    python tests/experiments/real_text_scores.py outputs/real --data data/commonsenseqa --output results/NAME.json

Every comparison is with the control, SFT-Tag carried on from the same Stage 1 for as many steps; intervals are over seeds
and items.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    __import__("as_script")

from sftkey.datasets.commonsenseqa import COMMONSENSEQA
from sftkey.evaluation.assess import assess
from sftkey.evaluation.headroom import AnswerLoss, judge_headroom, outcome
from sftkey.evaluation.seeds import detectable, difference_over
from sftkey.evaluation.statistics import holm
from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.format.example import SkippedRow
from sftkey.format.formats import THINKING_ANSWER

from experiments.bits import bits, from_bits

CONTROL, STAGE1, BASE = "SFT-Tag carried on", "stage 1", "base model"
MEASURES = {
    "right": "Acc",
    "right_given_reference": "Acc given the reference thinking",
    "well_formed": "Fmt",
    "names_it": "thinking names the right option",
    "finished": "not cut off",
}


def read_outputs(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of all seeds; a record that was being written when time was up is left out."""
    for path in sorted(folder.glob("seed*.jsonl.gz")):
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):
                        yield json.loads(line)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            print(f"{path.name}: the last record is cut off", file=sys.stderr)


def held_out(data: Path) -> list[tuple[dict[str, Any], Any]]:
    """The held-out rows that have a thinking, in order, and their examples."""
    found = []
    for line in (data / "validation.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        try:
            found.append((row, COMMONSENSEQA.to_example(row)))
        except SkippedRow:
            continue
    return found


def scored(record: dict[str, Any], rows: list[tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    """A cell: what the rules say of each item."""
    rows = rows[: len(record["own"])]
    right, given, formed, finished, names, tokens = [], [], [], [], [], []
    for (row, example), own, after in zip(rows, record["own"], record["given_reference"], strict=True):
        item = assess(own[0], row, COMMONSENSEQA, plain=False)
        right.append(item.rule_verdict is RuleVerdict.SAME)
        formed.append(item.format_failure is None)
        finished.append(own[2])
        tokens.append(own[1])
        thinking = THINKING_ANSWER.parse(own[0]).thinking or ""
        names.append(example.answer.partition(". ")[2].lower() in thinking.lower())
        whole = f"{THINKING_ANSWER.thinking_open}{example.thinking}{THINKING_ANSWER.thinking_close}{after[0]}"
        given.append(assess(whole, row, COMMONSENSEQA, plain=False).rule_verdict is RuleVerdict.SAME)
    cell = {name: record[name] for name in ("stage1", "arm", "seed", "steps", "training_seconds")}
    cell |= {"items": len(rows), "right": bits(right), "right_given_reference": bits(given)}
    cell |= {"well_formed": bits(formed), "finished": bits(finished), "names_it": bits(names)}
    cell |= {"tokens": round(float(np.mean(tokens)), 2), "environment": record["environment"]}
    signals = record.get("signals")
    if signals:
        outcomes = [
            outcome(one, two, thought, example.thinking)
            for one, two, thought, (_, example) in zip(right, given, signals["thoughts"], rows, strict=True)
        ]
        learned = signals["on_training_rows"]
        found = judge_headroom(outcomes, float(np.mean(given)), AnswerLoss(*learned) if learned else None)
        cell["diagnosis"] = {
            "verdict": found["verdict"].value,
            "reason": found["reason"],
            "headroom": round(found["headroom"], 4),
            "outcomes": {kind.value: outcomes.count(kind) for kind in sorted(set(outcomes))},
            **{name: signals[name] for name in ("on_training_rows", "given_reference", "given_own", "gradient_shares")},
        }
    return cell


def comparisons(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each objective against the control from the same Stage 1, over the seeds that have both."""
    found = []
    index = {(cell["stage1"], cell["arm"], cell["seed"]): cell for cell in cells}
    starts = list(dict.fromkeys(cell["stage1"] for cell in cells))
    arms = [arm for arm in dict.fromkeys(cell["arm"] for cell in cells) if arm not in (BASE, STAGE1, CONTROL)]
    for start in starts:
        for arm in arms:
            seeds = [s for (name, other, s) in index if (name, other) == (start, arm) and (start, CONTROL, s) in index]
            if not seeds:
                continue
            entry: dict[str, Any] = {"stage1": start, "arm": arm, "seeds": seeds}
            for measure in MEASURES:
                control, other = (
                    np.stack([from_bits(index[start, name, s][measure], index[start, name, s]["items"]) for s in seeds])
                    for name in (CONTROL, arm)
                )
                estimate = difference_over(control, other)
                smallest = detectable(estimate)
                entry[measure] = {
                    "points": round(100 * estimate.value, 2),
                    "low": round(100 * estimate.interval.low, 2),
                    "high": round(100 * estimate.interval.high, 2),
                    "by_seed": [round(100 * value, 2) for value in estimate.by_seed],
                    "p": estimate.p,
                    "detectable": None if smallest is None else round(100 * smallest, 2),
                }
            found.append(entry)
    for measure in ("right", "right_given_reference"):
        for entry, p in zip(found, holm([entry[measure]["p"] for entry in found]), strict=True):
            entry[measure]["p_holm"] = p
    return found


def tables(cells: list[dict[str, Any]], compared: list[dict[str, Any]]) -> str:
    """Both tables as Markdown."""
    names = list(MEASURES.values())
    lines = [f"| Stage 1 | trained then | seeds | steps | {' | '.join(names)} | Acc if well-formed | tokens |"]
    lines.append("|---" * (len(names) + 6) + "|")
    for start, arm in dict.fromkeys((cell["stage1"], cell["arm"]) for cell in cells):
        some = [cell for cell in cells if (cell["stage1"], cell["arm"]) == (start, arm)]
        share = {m: [from_bits(cell[m], cell["items"]) for cell in some] for m in MEASURES}
        means = " | ".join(f"{100 * float(np.mean(share[m])):.1f}" for m in MEASURES)
        formed = sum(float(values.sum()) for values in share["well_formed"])
        both = sum(float((a * b).sum()) for a, b in zip(share["right"], share["well_formed"], strict=True))
        among = f"{100 * both / formed:.1f}" if formed else "-"
        tokens = np.mean([cell["tokens"] for cell in some])
        lines.append(f"| {start} | {arm} | {len(some)} | {some[0]['steps']} | {means} | {among} | {tokens:.1f} |")
    lines += [
        "",
        f"| Stage 1 | minus the control | seeds with more Acc | {' | '.join(names)} | p of Acc (Holm) | detectable |",
    ]
    lines.append("|---" * (len(names) + 5) + "|")
    for entry in compared:
        values = " | ".join(
            f"{entry[m]['points']:+.1f} [{entry[m]['low']:.1f}, {entry[m]['high']:.1f}]" for m in MEASURES
        )
        right = entry["right"]
        lines.append(
            f"| {entry['stage1']} | {entry['arm']} | {sum(x > 0 for x in right['by_seed'])} of {len(right['by_seed'])} | "
            f"{values} | {right['p_holm']:.3f} | {right['detectable']} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Score, write, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    rows = held_out(options.data)
    cells = [scored(record, rows) for record in read_outputs(options.outputs)]
    compared = comparisons(cells)
    options.output.write_text(json.dumps({"cells": cells, "comparisons": compared}, indent=1) + "\n", encoding="utf-8")
    print(tables(cells, compared))


if __name__ == "__main__":
    main()
