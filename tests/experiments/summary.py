"""Cells -> one table with 95% intervals and paired tests, by the project's own statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sftkey.evaluation.decomposition import COMPARED, CUT_OFF, Items, Runs, compare, decompose
from sftkey.evaluation.seeds import Estimate
from sftkey.evaluation.verdicts import scores

from experiments.cells import CELLS, SCHEMA, WITHOUT_CONTEXT_GRAD

METRICS = ("acc", "fmt", "score")
COMPARISONS = (
    ("SFT", "SFT-Tag"),
    ("SFT", "Key-Tag"),
    ("SFT", "SFTKey-Tag"),
    ("SFT-Tag", "SFTKey-Tag"),
    ("SFT-Tag", "SFT-Tag continued"),
    ("SFT-Tag continued", "SFTKey-Tag"),
    ("SFT-Tag", WITHOUT_CONTEXT_GRAD.name),
    ("SFT-Tag continued", WITHOUT_CONTEXT_GRAD.name),
    ("SFTKey-Tag", WITHOUT_CONTEXT_GRAD.name),
)
"""The second against the first, where both were trained. The sixth is what Stage 2's loss adds to mere further training."""


def summarise(experiment: Mapping[str, Any], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The summary of an experiment.

    With several seeds intervals and tests are over seeds and items at once (`sftkey.evaluation.seeds`), with one over its
    items, and `over` says so.

    Args:
        experiment: Settings, plan, speed and environment.
        cells: Finished cells.
    """
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for cell in cells:
        by_name.setdefault(cell["cell"], {})[cell["seed"]] = cell
    strategies = {
        cell.name: _strategy(by_name[cell.name]) for cell in (*CELLS, WITHOUT_CONTEXT_GRAD) if cell.name in by_name
    }
    pairs = {
        (first, second): (_runs(by_name[first]), _runs(by_name[second]))
        for first, second in COMPARISONS
        if set(by_name.get(first, {})) & set(by_name.get(second, {}))
    }
    found = compare(pairs)
    comparisons = [
        {
            "metric": one.measure,
            "first": first,
            "second": second,
            "seeds": list(one.seeds),
            "items": one.difference.items,
            "difference": one.difference.value,
            "interval": [one.difference.interval.low, one.difference.interval.high],
            "over": one.difference.over,
            "test": one.difference.test,
            "p": one.difference.p,
            "p_holm": one.adjusted_p,
            "detectable": one.detectable,
        }
        for measure in COMPARED
        for (first, second), several in found.items()
        for one in several
        if one.measure == measure
    ]
    return {"schema": SCHEMA, **experiment, "strategies": strategies, "comparisons": comparisons}


def _runs(cells: Mapping[int, dict[str, Any]]) -> Runs:
    """The items' figures of each seed; an item is known by its place among the test rows."""
    return {seed: _items(cell["items"]) for seed, cell in cells.items()}


def _items(records: Sequence[Mapping[str, Any]]) -> Items:
    found: dict[str, dict[str, float]] = {name: {} for name in (*METRICS, "cut_off")}
    for place, record in enumerate(records):
        figures = scores(record)
        for name in METRICS:
            found[name][str(place)] = float(figures[name])
        found["cut_off"][str(place)] = float(record["format_failure"] in CUT_OFF)
    return found


def _figure(estimate: Estimate) -> dict[str, Any]:
    interval = estimate.interval
    return {
        "mean": estimate.value,
        "interval": [interval.low, interval.high],
        "over": estimate.over,
        "by_seed": list(estimate.by_seed),
    }


def _strategy(cells: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(cells)
    found: dict[str, Any] = {"seeds": seeds, "items": len(cells[seeds[0]]["items"])}
    found |= {measure: _figure(estimate) for measure, estimate in decompose(_runs(cells)).items()}
    found["tokens_per_output"] = float(np.mean([r["tokens"] for seed in seeds for r in cells[seed]["items"]]))
    found["finished"] = float(np.mean([r["finished"] for seed in seeds for r in cells[seed]["items"]]))
    found["training"] = {
        "steps": [cells[seed]["training"]["steps"] for seed in seeds],
        "seconds": [cells[seed]["training"]["seconds"] for seed in seeds],
        "last_log": [(cells[seed]["training"]["curve"] or [{}])[-1] for seed in seeds],
    }
    found["generation_seconds"] = [cells[seed]["generation_seconds"] for seed in seeds]
    diagnoses = [cells[seed]["diagnosis"] for seed in seeds if cells[seed].get("diagnosis")]
    if diagnoses:
        found["diagnosis"] = diagnoses
    return found


def table(summary: Mapping[str, Any]) -> str:
    """The summary as text."""
    width = 2 + max([18, *map(len, summary["strategies"])])
    lines = [" " * width + "".join(f"{name:>26}" for name in ("Acc", "Fmt", "Score")) + f"{'Acc by seed':>30}"]
    for name, found in summary["strategies"].items():
        line = name.ljust(width)
        for metric in METRICS:
            low, high = found[metric]["interval"]
            line += f"{found[metric]['mean']:>10.4f} [{low:.4f}, {high:.4f}]".rjust(26)
        by_seed = " ".join(f"{value:.4f}" for value in found["acc"]["by_seed"])
        by_seed = by_seed if len(found["seeds"]) > 1 else f"one seed: {by_seed}"
        lines.append(line + by_seed.rjust(30))
    lines.append("")
    for test in summary["comparisons"]:
        if test["metric"] != "acc":
            continue
        low, high = test["interval"]
        lines.append(
            f"Acc, {test['second']} - {test['first']}: {100 * test['difference']:+.2f} points "
            f"[{100 * low:+.2f}, {100 * high:+.2f}], p = {test['p']:.4f}, Holm {test['p_holm']:.4f} "
            f"({test['test']}, {test['items']} items, {_seeds(len(test['seeds']))})"
        )
    return "\n".join(lines)


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
