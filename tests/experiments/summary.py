"""Cells -> one table with 95% intervals and paired tests, by the project's own statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sftkey.evaluation.statistics import PairedTest, holm, mean_interval, paired_test
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

Cells = Mapping[str, Mapping[int, dict[str, Any]]]


def summarise(experiment: Mapping[str, Any], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The summary of an experiment.

    The items are what is resampled: an item's value is its mean over the seeds that both sides have. So intervals and
    tests say what other test items would do; how far seeds are apart stands beside them, seed by seed.

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
    tests = []
    for first, second in COMPARISONS:
        shared = sorted(set(by_name.get(first, {})) & set(by_name.get(second, {})))
        if shared:
            tests.append((first, second, shared))
    comparisons = []
    for metric in METRICS:
        found = [_compare(by_name, metric, first, second, shared) for first, second, shared in tests]
        adjusted = holm([test.p for test in found])
        comparisons += [
            {
                "metric": metric,
                "first": first,
                "second": second,
                "seeds": shared,
                "items": test.items,
                "difference": test.difference,
                "interval": [test.interval.low, test.interval.high],
                "test": test.test,
                "p": test.p,
                "p_holm": p_holm,
            }
            for (first, second, shared), test, p_holm in zip(tests, found, adjusted, strict=True)
        ]
    return {"schema": SCHEMA, **experiment, "strategies": strategies, "comparisons": comparisons}


def _values(cell: Mapping[str, Any], metric: str) -> np.ndarray:
    return np.array([float(scores(record)[metric]) for record in cell["items"]])  # type: ignore[arg-type]


def _mean_over_seeds(cells: Mapping[int, dict[str, Any]], metric: str, seeds: Sequence[int]) -> np.ndarray:
    # Rounded so that equal means are one value: the bootstrap draws distinct values.
    return np.round(np.mean([_values(cells[seed], metric) for seed in seeds], axis=0), 12)


def _strategy(cells: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(cells)
    found: dict[str, Any] = {"seeds": seeds, "items": len(cells[seeds[0]]["items"])}
    for metric in METRICS:
        values = _mean_over_seeds(cells, metric, seeds)
        interval = mean_interval(values)
        found[metric] = {
            "mean": float(values.mean()),
            "interval": [interval.low, interval.high],
            "by_seed": [float(_values(cells[seed], metric).mean()) for seed in seeds],
        }
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


def _compare(cells: Cells, metric: str, first: str, second: str, seeds: Sequence[int]) -> PairedTest:
    return paired_test(*(_mean_over_seeds(cells[name], metric, seeds) for name in (first, second)))


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
        lines.append(line + by_seed.rjust(30))
    lines.append("")
    for test in summary["comparisons"]:
        if test["metric"] != "acc":
            continue
        low, high = test["interval"]
        lines.append(
            f"Acc, {test['second']} - {test['first']}: {100 * test['difference']:+.2f} points "
            f"[{100 * low:+.2f}, {100 * high:+.2f}], p = {test['p']:.4f}, Holm {test['p_holm']:.4f} "
            f"({test['test']}, {test['items']} items, {len(test['seeds'])} seeds)"
        )
    return "\n".join(lines)
