"""A report as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sftkey.training.doctor.checks import CHECKS, MEMORY
from sftkey.training.doctor.sizes import GIB, SHARES
from sftkey.util.text import Cell, table

Rows = list[tuple[Cell, ...]]


def text(report: dict[str, Any]) -> str:
    """The machine, a table for each kind of check, the verdict."""
    return "\n\n".join(_parts(report))


def _parts(report: dict[str, Any]) -> Iterator[str]:
    yield _machine(report)
    yield table(_checks(report))
    for rows in (_costs(report), _memory(report)):
        if len(rows) > 1:
            yield table(rows)
    yield f"{report['verdict']['status']}: {report['verdict']['text']}"


def _machine(report: dict[str, Any]) -> str:
    machine, model = report["machine"], report["model"]
    gpus = [f"{gpu['name']} ({gpu['memory_bytes'] / GIB:.0f} GiB)" for gpu in machine["gpus"]]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    shape = (
        f"{model['model_type']} {report['size']}, vocabulary {model['vocab_size']:,}, rows of {model['length']} tokens"
    )
    return f"{', '.join(gpus) or 'no GPU'}, {machine['cpus']} CPUs\n{versions}\nmodel: {shape}, random weights"


def _checks(report: dict[str, Any]) -> Rows:
    rows: Rows = [("CHECK", "RESULT", "SECONDS", "LOSS OFF BY", "GRADIENTS OFF BY", "NOTE")]
    for result in report["checks"]:
        figures = result["figures"]
        errors = [_scientific(figures.get(key)) for key in ("loss_error", "gradient_error")]
        rows.append((result["check"], result["status"], f"{result['seconds']:.1f}", *errors, _note(result)))
    return rows


def _note(result: dict[str, Any]) -> str:
    figures = result["figures"]
    notes = [result["reason"]] if result["reason"] else []
    if "processes" in figures:
        notes.append(f"processes: {figures['processes']}")
    if "graph_breaks" in figures:
        notes.append(f"graphs: {figures['graphs']}, breaks: {figures['graph_breaks']}")
    waits = [count for count in figures.get("waits", []) if count is not None]
    if waits:
        own = [count for count in figures["own_waits"] if count is not None]
        # The last micro-batch: in the first one a model is still got to know.
        notes.append(f"waits of a micro-batch: {waits[-1]}, without sftkey {own[-1]}")
    return "; ".join(notes)


def _scientific(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}"


def _costs(report: dict[str, Any]) -> Rows:
    rows: Rows = [
        (
            "LOSS",
            "LABELLED",
            "SECONDS A STEP",
            "OF STANDARD",
            "TOKENS A SECOND",
            "PEAK GIB",
            "OF STANDARD",
            "WAITS A STEP",
        )
    ]
    found = {result["check"]: result["figures"] for result in report["checks"] if result["figures"]}
    for share in SHARES:
        key = f"labels_{share}_percent"
        usual = found.get("cost-standard", {}).get(key, {})
        for name in (name for name in CHECKS if name.startswith("cost-") and name in found):
            one = found[name].get(key, {})
            rows.append(
                (
                    name.removeprefix("cost-"),
                    f"{share}%",
                    one.get("seconds"),
                    _ratio(one.get("seconds"), usual.get("seconds")),
                    f"{one['tokens_per_second']:,.0f}" if one else None,
                    f"{one['peak_bytes'] / GIB:.2f}" if one.get("peak_bytes") else None,
                    _ratio(one.get("peak_bytes"), usual.get("peak_bytes")),
                    one.get("waits"),
                )
            )
    return rows


def _ratio(value: float | None, usual: float | None) -> str | None:
    return f"{value / usual:.2f}" if value and usual else None


def _memory(report: dict[str, Any]) -> Rows:
    rows: Rows = [("RECIPE", "ESTIMATE GIB", "MEASURED GIB")]
    for result in report["checks"]:
        figures = result["figures"]
        if result["check"].startswith(f"{MEMORY}:") and figures.get("peak_bytes"):
            sizes = (f"{figures[key] / GIB:.1f}" for key in ("estimate_bytes", "peak_bytes"))
            rows.append((result["check"].removeprefix(f"{MEMORY}:"), *sizes))
    return rows
