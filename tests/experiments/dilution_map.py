"""The dilution map as tables, figure and file: where does Stage 2 pay, and did the diagnosis say so beforehand?

    python tests/experiments/dilution_map.py outputs/dilution/*.jsonl --output results/dilution_map

Reads what `dilution.py` left, plain or gzipped. Every difference is to the control from the same snapshot of Stage 1, over
the seeds that have both; a cell of one seed is over its items alone and says so.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    __import__("as_script")

from sftkey.evaluation.seeds import difference_over
from sftkey.evaluation.statistics import holm

from experiments.bits import from_bits

CONTROL, STAGE1, ANSWER_ONLY = "control", "stage 1", "answer only"
ARMS = (ANSWER_ONLY, "anchored 0.1", "anchored 0.02")
MEASURES = {
    "right": "own thinking",
    "given_reference": "reference thinking",
    "thinking_right": "thinking right",
    "well_formed": "Fmt",
}
PER_SEED = ("right", "given_reference")
"""Measures that are compared with the diagnosis, seed by seed."""
CELL = ("length", "words", "values", "reached")
SHORT = ("points", "low", "high", "p", "p_holm", "by_seed")
"""What the file keeps of a difference, as a list."""
PROFIT, LOSS, NOISE = "pays", "costs", "not shown"
Cell = tuple[int, int, int, float]


def read(paths: Iterable[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of all files, each cell, seed and arm once, and the machines that made them.

    Raises:
        SystemExit: Two files have the same cell, seed and arm.
    """
    found: dict[Any, dict[str, Any]] = {}
    machines: Counter[str] = Counter()
    for path in paths:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for record in map(json.loads, content.splitlines()):
            if record["kind"] == "curve":
                machines[f"{record['device']}, torch {record['torch']}"] += 1
                continue
            key = (*(record[name] for name in CELL), record["seed"], record["arm"])
            if key in found:
                raise SystemExit(f"error: {path}: {key} is in an earlier file, too")
            found[key] = record
    return list(found.values()), sorted(machines)


def _difference(first: list[np.ndarray], second: list[np.ndarray]) -> dict[str, Any]:
    estimate = difference_over(np.stack(first), np.stack(second))
    low, high = estimate.interval.low, estimate.interval.high
    return {
        "points": round(100 * estimate.value, 1),
        "low": round(100 * low, 1),
        "high": round(100 * high, 1),
        "p": None if estimate.p is None else float(f"{estimate.p:.3g}"),
        "sign": PROFIT if low > 0 else LOSS if high < 0 else NOISE,
        "by_seed": [round(100 * value, 1) for value in estimate.by_seed],
    }


def cells(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each cell: means of Stage 1 and the control, the arms' differences to the control, what the diagnosis said."""
    index: dict[Cell, dict[tuple[str, int], dict[str, Any]]] = {}
    for record in records:
        cell = (record["length"], record["words"], record["values"], record["reached"])
        index.setdefault(cell, {})[record["arm"], record["seed"]] = record

    found = []
    for cell in sorted(index):
        of = index[cell]
        seeds = sorted(s for arm, s in of if arm == STAGE1 and all((a, s) in of for a in (CONTROL, *ARMS)))
        if not seeds:
            continue

        def values(arm: str, measure: str, of: Any = of, seeds: Any = seeds) -> list[np.ndarray]:
            return [from_bits(of[arm, s][measure], of[arm, s]["items"]) for s in seeds]

        entry: dict[str, Any] = dict(zip(CELL, cell, strict=True)) | {"seeds": seeds}
        for arm in (STAGE1, CONTROL):
            entry[arm] = {m: round(100 * float(np.mean(values(arm, m))), 1) for m in MEASURES}
        entry["differences"] = {
            arm: {m: _difference(values(CONTROL, m), values(arm, m)) for m in MEASURES} for arm in ARMS
        }
        for one in (of_arm[m] for of_arm in entry["differences"].values() for m in MEASURES if m not in PER_SEED):
            one["by_seed"] = None
        entry["anchored 0.1 minus answer only"] = _difference(values(ANSWER_ONLY, "right"), values(ARMS[1], "right"))
        names = ("verdict", "headroom", "answer_loss_on_training_rows")
        entry["diagnosis"] = [{name: of[STAGE1, s][name] for name in names} for s in seeds]
        entry["one seed"] = {
            measure: [
                _difference([control], [other])["sign"]
                for control, other in zip(values(CONTROL, measure), values(ANSWER_ONLY, measure), strict=True)
            ]
            for measure in PER_SEED
        }
        found.append(entry)
    for arm in ARMS:
        for measure in PER_SEED:
            compared = [entry["differences"][arm][measure] for entry in found]
            known = [one for one in compared if one["p"] is not None]
            for one, p in zip(known, holm([one["p"] for one in known]), strict=True):
                one["p_holm"] = float(f"{p:.3g}")
    return found


def hits(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By verdict and measure: the sign of answer only minus control in each seed, and how often it is beyond noise."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for entry in found:
        for measure in PER_SEED:
            gains = entry["differences"][ANSWER_ONLY][measure]["by_seed"]
            for diagnosis, gain, sign in zip(entry["diagnosis"], gains, entry["one seed"][measure], strict=True):
                row = rows.setdefault((diagnosis["verdict"], MEASURES[measure]), Counter())
                row["seeds"] += 1
                row["more" if gain > 0 else "less" if gain < 0 else "the same"] += 1
                row[sign] += 1
    kinds = ("seeds", "more", "the same", "less", PROFIT, LOSS)
    return [
        {"verdict": verdict, "measured with": measure} | {kind: row[kind] for kind in kinds}
        for (verdict, measure), row in sorted(rows.items())
    ]


def _short(value: Any) -> Any:
    """A difference as the list of its `SHORT` parts."""
    if isinstance(value, dict):
        return [value.get(key) for key in SHORT] if "points" in value else {k: _short(v) for k, v in value.items()}
    return value


def _shown(one: dict[str, Any]) -> str:
    text = f"{one['points']:+.1f} [{one['low']:.1f}, {one['high']:.1f}]"
    return text if one["sign"] == NOISE else f"**{text}**"


def _seeds(entry: dict[str, Any]) -> str:
    return str(len(entry["seeds"])) if len(entry["seeds"]) > 1 else "one seed"


def tables(found: list[dict[str, Any]]) -> str:
    """The map, how often which sign, and the hits and misses of the diagnosis, as Markdown."""
    heads = [f"{arm}, {MEASURES[m]}" for arm in ARMS for m in PER_SEED]
    lines = [f"| length | words | values | reached | seeds | control | {' | '.join(heads)} | diagnosis |"]
    lines.append("|---" * (len(heads) + 7) + "|")
    for entry in found:
        differences = [_shown(entry["differences"][a][m]) for a in ARMS for m in PER_SEED]
        verdicts = Counter(one["verdict"] for one in entry["diagnosis"])
        said = ", ".join(f"{verdict} {count}" for verdict, count in sorted(verdicts.items()))
        control = f"{entry[CONTROL]['right']:.1f}"
        place = " | ".join(str(entry[name]) for name in CELL)
        lines.append(f"| {place} | {_seeds(entry)} | {control} | {' | '.join(differences)} | {said} |")
    lines += ["", "| minus the control | measured with | cells | pays | not shown | costs | mean of the cells |"]
    lines.append("|---" * 7 + "|")
    several = [entry for entry in found if len(entry["seeds"]) > 1]
    for arm in ARMS:
        for measure, name in MEASURES.items():
            compared = [entry["differences"][arm][measure] for entry in several]
            signs = Counter(one["sign"] for one in compared)
            mean = float(np.mean([one["points"] for one in compared])) if compared else 0.0
            counts = " | ".join(str(signs[sign]) for sign in (PROFIT, NOISE, LOSS))
            lines.append(f"| {arm} | {name} | {len(several)} | {counts} | {mean:+.1f} |")
    lines += [
        "",
        "| diagnosis of a Stage 1 | Acc measured with | how many | more | the same | less | beyond noise: more | less |",
    ]
    lines.append("|---" * 8 + "|")
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in hits(found)]
    return "\n".join(lines) + "\n"


def figure(found: list[dict[str, Any]], path: Path) -> None:
    """Every cell with its interval, by arm and measure; its marker is what the diagnosis said before."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "sftkey", "svg.fonttype": "none"}
    colors = {PROFIT: "#0072B2", NOISE: "#999999", LOSS: "#D55E00"}
    several = [entry for entry in found if len(entry["seeds"]) > 1]
    markers = [
        "o" if 2 * sum(d["verdict"] == "headroom" for d in entry["diagnosis"]) > len(entry["seeds"]) else "s"
        for entry in several
    ]
    names = [" · ".join(f"{entry[name]:g}" for name in CELL) + f"  ({len(entry['seeds'])})" for entry in several]
    drawn, axes = plt.subplots(1, 4, figsize=(13, 1.6 + 0.2 * len(several)), sharey=True, layout="constrained")
    columns = [(arm, measure) for arm in ARMS[:2] for measure in PER_SEED]
    for axis, (arm, measure) in zip(axes, columns, strict=True):
        ones = [entry["differences"][arm][measure] for entry in several]
        for sign, color in colors.items():
            for marker in ("o", "s"):
                rows = [r for r, one in enumerate(ones) if one["sign"] == sign and markers[r] == marker]
                if not rows:
                    continue
                axis.hlines(rows, [ones[r]["low"] for r in rows], [ones[r]["high"] for r in rows], colors=color)
                points = [ones[r]["points"] for r in rows]
                face = color if marker == "o" else "white"
                axis.scatter(points, rows, s=22, marker=marker, edgecolors=color, facecolors=face, zorder=3)
        axis.set_xlim(-80, 50)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{arm}\nAcc, {MEASURES[measure]}", fontsize=10)
        axis.set_xlabel("points minus control")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(several)), names, fontsize=7)
    axes[0].set_ylabel("thinking length · words · values · reached (seeds)")
    axes[0].invert_yaxis()
    drawn.suptitle(
        "Blue: pays; orange: costs; grey: not shown. Filled circle: most seeds diagnosed as headroom; open square: not",
        fontsize=10,
    )
    drawn.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(drawn)


def main(argv: list[str] | None = None) -> None:
    """Read, write, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help="without suffix: .json and .svg are added")
    options = parser.parse_args(argv)
    records, machines = read(options.files)
    found = cells(records)
    if not found:
        raise SystemExit("error: no cell has Stage 1, the control and every other arm of a seed")
    head = {"machines": machines, "difference": SHORT, "diagnosis": hits(found)}
    lines = ",\n".join(json.dumps(_short(entry), separators=(",", ":")) for entry in found)
    text = json.dumps(head)[:-1] + f', "cells": [\n{lines}\n]}}\n'
    options.output.with_suffix(".json").write_text(text, encoding="utf-8")
    figure(found, options.output.with_suffix(".svg"))
    print(tables(found))


if __name__ == "__main__":
    main()
