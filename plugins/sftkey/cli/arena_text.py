"""An arena's results as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftkey.util.text import Cell, table

ONE_SEED = "one seed"
_COLUMNS = {
    "acc": "ACC",
    "fmt": "FMT",
    "acc_well_formed": "ACC, WELL-FORMED",
    "thinking_right": "THINKING RIGHT",
    "acc_given_reference": "ACC, REFERENCE THINKING",
    "length": "LENGTH",
    "cut_off": "CUT OFF",
}
_WITH_INTERVAL = ("acc", "acc_given_reference")


def arena_text(content: Mapping[str, Any]) -> str:
    """The table of the runs and that of the comparisons, for each task, with what they are over."""
    parts = [f"{content['recipe']}: {content['design']}"]
    runs = {run["name"]: run for run in content["runs"]}
    for task, found in content["tasks"].items():
        parts.append(f"{task}\n{table(_runs(runs, found['figures']))}")
        if found["items_left_out"]:
            parts.append(
                f"{found['items_left_out']} items that not all runs answered are left out where runs are compared."
            )
        compared = [one for one in found["comparisons"] if one["measure"] == "acc"]
        if compared:
            parts.append(f"Acc against the control, points\n{table(_comparisons(compared))}")
            parts.append(_reading(compared))
    if not content["tasks"]:
        parts.append("Nothing is evaluated yet.")
    for title, names in (("Left", content["left"]), ("Failed", content["failed"])):
        if names:
            parts.append(f"{title}: {len(names)}\n" + "\n".join(f"  {name}" for name in names))
    return "\n\n".join(parts)


def _runs(runs: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]]) -> list[tuple[Cell, ...]]:
    measures = [name for name in _COLUMNS if any(name in found for found in figures.values())]
    rows: list[tuple[Cell, ...]] = [("RUN", "SEEDS", "STEPS", "TIME", *(_COLUMNS[name] for name in measures))]
    for name, run in runs.items():
        found = figures.get(name)
        if found is None:
            continue
        steps = " and ".join(map(str, run["steps"])) or None
        time = None if run["compute"] is None else f"x {run['compute']:.2f}"
        rows.append((name, seeds_text(run["seeds"]), steps, time, *(_shown(found.get(one), one) for one in measures)))
    return rows


def seeds_text(seeds: Sequence[int]) -> str:
    """How many seeds there are; a single one is called so."""
    return ONE_SEED if len(seeds) == 1 else f"{len(seeds)}" if seeds else "-"


def _shown(figure: Mapping[str, Any] | None, measure: str) -> Cell:
    if figure is None:
        return None
    if measure == "length":
        return f"{figure['value']:,.0f}"
    low, high = figure["interval"]
    interval = f" [{low:.3f}, {high:.3f}]" if measure in _WITH_INTERVAL else ""
    return f"{figure['value']:.4f}{interval}"


def _comparisons(found: Sequence[Mapping[str, Any]]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = [("RUN", "SEEDS", "DIFFERENCE", "95%", "P, HOLM", "BETTER IN", "COULD SHOW")]
    for one in found:
        low, high = one["interval"]
        seeds = one["by_seed"]
        least = one["detectable"]
        rows.append(
            (
                one["run"],
                seeds_text(one["seeds"]),
                f"{100 * one['difference']:+.1f}",
                f"[{100 * low:+.1f}, {100 * high:+.1f}]",
                "< 0.001" if one["p_holm"] < 0.001 else f"{one['p_holm']:.3f}",
                f"{sum(value > 0 for value in seeds)} of {len(seeds)}",
                None if least is None else "nothing" if least > 1 else f"{100 * least:.1f}",
            )
        )
    return rows


def _reading(found: Sequence[Mapping[str, Any]]) -> str:
    over = sorted({one["over"] for one in found})
    one = found[0]
    lines = [f"Intervals over {' or '.join(over)}; p-values adjusted for {one['comparisons']} comparisons (Holm)."]
    if "items" in over:
        lines.append("One seed: nothing here says what another seed would give.")
    lines.append(
        f"Could show: the smallest true difference that so many seeds and {one['items']:,} items find significant in "
        f"{100 * one['power']:.0f} of 100 cases."
    )
    more = [
        f"{100 * one[key]:.1f} with twice the {what}"
        for what in ("seeds", "items")
        if (key := f"detectable_with_twice_the_{what}") and one[key] is not None and one[key] <= 1
    ]
    if more:
        lines.append(f"For {one['run']} it would be {' and '.join(more)}.")
    return "\n".join(lines)
