"""Run checks one after the other, each in a process of its own: a crash, a hang or a full GPU ends that check alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sftkey.training.doctor.checks import MEMORY, Check
from sftkey.training.doctor.sizes import GIB, SIZES, size_for
from sftkey.training.doctor.task import Task
from sftkey.training.doctor.verdict import verdict
from sftkey.util.errors import UserError
from sftkey.util.text import visible

Report = dict[str, Any]
"""Plain JSON types: ``machine``, ``size``, ``model``, ``checks`` and ``verdict``."""

BUDGET = 540.0
"""Seconds for everything."""

_SHORTEST = 5.0
"""Seconds that a check needs at least, the start of its process included."""

_LONGEST_LOG = 4000


def examine(
    checks: Sequence[Check],
    *,
    size: str | None = None,
    budget: float = BUDGET,
    recipes: Sequence[dict[str, Any]] = (),
    progress: Callable[[str], None] = lambda _: None,
    save: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Run checks on this machine.

    Args:
        checks: Of `sftkey.training.doctor.checks.chosen`.
        size: One of `SIZES`; by default the largest for the GPU's memory.
        budget: Seconds for all of them; what doesn't fit is skipped.
        recipes: Those whose memory is measured: each with ``recipe`` (its name), and either ``skip`` (why it isn't
            measured) or ``packages`` (that it needs), ``estimates`` (in bytes, for one GPU, for two, ...) and what
            `sftkey.training.doctor.recipe_memory.measure` takes.
        progress: Is told what is done now.
        save: Is given the report after each check.

    Raises:
        UserError: torch can't be used at all.
    """
    start = time.monotonic()
    progress("machine")
    look = _in_process(Task("machine:look", "cpu", 0, "tiny", 120), every_gpu=True)
    if look["status"] == "error":
        raise UserError(f"nothing can be tried: torch doesn't start here ({look['reason']})")
    machine: dict[str, Any] = look["figures"]
    memory = min((gpu["memory_bytes"] for gpu in machine["gpus"]), default=None)
    size = size or size_for(memory)
    report: Report = {
        "machine": machine,
        "size": size,
        "model": {**SIZES[size].config, "length": SIZES[size].length, "tokens": list(SIZES[size].tokens)},
        "checks": [],
    }
    planned = list(_planned(checks, recipes, gpus=len(machine["gpus"])))
    if look["status"] == "failed":
        report["checks"].append({"check": "machine", "what": "what torch sees", "seconds": 0.0, **look, "figures": {}})
        progress(f"machine: {look['reason']}")
    for number, (check, name, details) in enumerate(planned, start=1):
        began = time.monotonic()
        left = budget - (began - start)
        here = f"[{number}/{len(planned)}] {name}"
        reason = _cannot(check, machine, details)
        if reason:
            result = _skipped(reason)
        elif left < _SHORTEST:
            result = _skipped(f"the budget of {budget:.0f} s is used up", over_budget=True)
        else:
            progress(f"{here}: {check.what}")
            seconds = min(float(check.seconds), left)
            result = _in_process(
                Task(check.function, machine["device"], len(machine["gpus"]), size, seconds, details),
                check.every_gpu or bool(details.get("every_gpu")),
            )
            if result.pop("late", False) and seconds < check.seconds:
                result = _skipped(f"cut off: the budget of {budget:.0f} s is used up", over_budget=True)
        took = time.monotonic() - began
        report["checks"].append({"check": name, "what": check.what, "seconds": round(took, 1), **result})
        report["seconds"] = round(time.monotonic() - start, 1)
        report["verdict"] = asdict(verdict(report["checks"], planned=len(planned)))
        save(report)
        progress(f"{here}: {result['status']}{': ' + result['reason'] if result['reason'] else f' ({took:.0f} s)'}")
    report["verdict"] = asdict(verdict(report["checks"], planned=len(planned)))
    return report


def _planned(
    checks: Sequence[Check], recipes: Sequence[dict[str, Any]], gpus: int
) -> Iterator[tuple[Check, str, dict[str, Any]]]:
    for check in checks:
        if check.name != MEMORY:
            yield check, check.name, {}
            continue
        for recipe in recipes:
            estimates = recipe.get("estimates")
            chosen = {"estimate_bytes": estimates[min(max(gpus, 1), len(estimates)) - 1]} if estimates else {}
            yield check, f"{MEMORY}:{recipe['recipe']}", {**recipe, **chosen}


def _cannot(check: Check, machine: dict[str, Any], details: dict[str, Any]) -> str | None:
    """Why a check can't be tried here; None if it can."""
    if details.get("skip"):
        return str(details["skip"])
    if check.gpu and machine["device"] != "cuda":
        return "needs a GPU"
    for package in (*check.packages, *details.get("packages", ())):
        if find_spec(package) is None:
            return f"needs the package {package}, which isn't installed"
    estimate = details.get("estimate_bytes")
    if estimate and machine["gpus"] and estimate > machine["gpus"][0]["memory_bytes"]:
        has = machine["gpus"][0]["memory_bytes"] / GIB
        how = f"{len(machine['gpus'])} GPUs with FSDP2" if details.get("every_gpu") else "one GPU without DeepSpeed"
        return f"the estimate for {how} is {estimate / GIB:.0f} GiB, and a GPU here has {has:.0f}"
    return None


def _skipped(reason: str, **more: bool) -> dict[str, Any]:
    return {"status": "skipped", "reason": reason, "figures": {}, **more}


def _in_process(task: Task, every_gpu: bool) -> dict[str, Any]:
    """Run one check in a process and wait for it; all that it started is gone afterwards."""
    with TemporaryDirectory(prefix="sftkey-doctor-") as folder:
        place = Path(folder)
        (place / "task.json").write_text(json.dumps(asdict(task)), encoding="utf-8")
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sftkey.training.doctor", str(place / "task.json"), str(place / "result.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(every_gpu, place),
                start_new_session=True,
            )
            late = False
            try:
                process.wait(task.seconds)
            except subprocess.TimeoutExpired:
                late = True
            finally:
                _end(process)
        return _result(place, process.returncode, task.seconds if late else None)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(every_gpu: bool, place: Path) -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    offline = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Trainer would spread one process's batch over all GPUs.
    one = {} if every_gpu else {"CUDA_VISIBLE_DEVICES": "0" if devices is None else devices.partition(",")[0]}
    # Extensions are built under a lock file: one that an ended check leaves would block every later build.
    return {**os.environ, **offline, **one, "TORCH_EXTENSIONS_DIR": str(place / "extensions")}


def _result(place: Path, code: int, late_after: float | None) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((place / "result.json").read_text("utf-8"))
    except (OSError, ValueError):
        if late_after is not None:
            reason = f"ended after {late_after:.0f} s, its limit"
        elif code < 0:
            reason = f"its process was ended by signal {-code} ({signal.Signals(-code).name})"
        else:
            reason = f"its process ended with code {code}"
        result = {"status": "error", "reason": reason, "figures": {}, "late": late_after is not None}
    if result["status"] == "error":
        log = (place / "log").read_bytes()[-_LONGEST_LOG:]
        result["log"] = visible(log.decode("utf-8", "replace"))
    return result
