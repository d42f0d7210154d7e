"""One training stage as its output directory tells it: the completion marker and the training log."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from sftkey.datasets.registry import DATASETS
from sftkey.stages.marker import LOG_FILE, MARKER_FILE, RUN_FILE, Marker, RunFile
from sftkey.stages.stage import Stage
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json

CURVES = ("loss_answer", "loss_thinking", "loss_format", "acc_answer")
"""The logged metrics that are drawn; on an evaluation split each has the prefix ``eval_``."""

LOG_COLUMNS = ("metric", "split", "step", "examples", "value")

_File = TypeVar("_File", Marker, RunFile)


@dataclass(frozen=True)
class LoggedStage(Stage):
    """A stage with its training log.

    Attributes:
        log: What was logged, long: columns `LOG_COLUMNS`, ``split`` is ``train`` or ``eval``, ``examples`` counts the
            training examples seen so far in this stage.
    """

    log: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(LOG_COLUMNS)), repr=False)

    @property
    def data_names(self) -> tuple[str, ...]:
        """Short names of the training data, in the recipe's order."""
        if self.marker is not None:
            return tuple(data_name(entry.path, entry.type) for entry in self.marker.data)
        entries = self.config.get("datasets")
        return tuple(
            data_name(entry.get("path"), entry.get("type"))
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
        )

    @property
    def steps(self) -> int | None:
        """Optimizer steps, those in the log while it isn't finished."""
        last = int(self.log["step"].max()) if len(self.log) else None
        return self.training.steps if self.finished else last

    @property
    def examples(self) -> float:
        """Examples seen when the log ends; 0 without a log."""
        return float(self.log["examples"].max()) if len(self.log) else 0.0


def read_stage(output_dir: Path, ledger: Ledger) -> LoggedStage | None:
    """Read one output directory, whatever its files hold.

    Args:
        output_dir: A directory with a marker, a run file, a training log or checkpoints.
        ledger: Takes what was read, skipped and noted.

    Returns:
        The stage; ``None`` where nothing in the directory could be read.
    """
    marker = _read(output_dir, "marker", Marker, ledger)
    if marker is not None:
        rows = [entry.rows_used for entry in marker.data]
        log = _read_log(output_dir, sum(row for row in rows if row) if None not in rows else None, ledger)
        return LoggedStage(output_dir, marker.recipe.config, marker, log=log)
    if (output_dir / MARKER_FILE).exists():
        ledger.note(f"{output_dir} counts as unfinished: its {MARKER_FILE} can't be used.")
    run = _read(output_dir, "run file", RunFile, ledger)
    log = _read_log(output_dir, None, ledger)
    if not len(log) and not any((output_dir / name).exists() for name in (MARKER_FILE, RUN_FILE)):
        return None
    return LoggedStage(output_dir, run.settings if run else {}, run=run, log=log)


def _read(output_dir: Path, kind: str, model: type[_File], ledger: Ledger) -> _File | None:
    path = output_dir / model.FILE
    if not path.exists():
        return None
    try:
        content = model.parse(read_json(path))
    except UnreadableFile as error:
        ledger.skip(path, kind, str(error))
        return None
    ledger.used(path, kind)
    return content


def data_name(path: Any, kind: Any) -> str:
    """A short name for a training data set: its module's; for own rows without a module of their own their path.

    The name is all that is read from it. The module may be a stranger's and is not imported.
    """
    module = kind.rpartition("sftkey.datasets.")[2] if isinstance(kind, str) and "sftkey.datasets." in kind else ""
    if module and module not in ("columns", "messages"):
        return module
    if isinstance(kind, str) and not module and "." in kind:
        name = kind.rpartition(".")[2]
        # Somebody's own module of that name is not the published data.
        return kind if name in DATASETS else name
    return str(path or module or "unknown data")


def _read_log(directory: Path, rows: int | None, ledger: Ledger) -> pd.DataFrame:
    """The log of the directory itself, else that of its newest checkpoint that can be read."""
    checkpoints = sorted(
        (path for path in directory.glob(f"checkpoint-*/{LOG_FILE}") if path.parent.name.rpartition("-")[2].isdigit()),
        key=lambda path: int(path.parent.name.rpartition("-")[2]),
        reverse=True,
    )
    for path in (directory / LOG_FILE, *checkpoints):
        if not path.exists():
            continue
        try:
            history = read_json(path).get("log_history")
            if not isinstance(history, list):
                raise UnreadableFile("log_history is missing or isn't a list")
        except UnreadableFile as error:
            ledger.skip(path, "training log", str(error))
            continue
        ledger.used(path, "training log")
        return _long(history, rows, path, ledger)
    return pd.DataFrame(columns=list(LOG_COLUMNS))


def _long(history: list[Any], rows: int | None, path: Path, ledger: Ledger) -> pd.DataFrame:
    entries = [entry for entry in history if isinstance(entry, dict)]
    bad = len(history) - len(entries)
    records: list[tuple[str, str, int, float, float]] = []
    for entry, examples in zip(entries, _positions(entries, rows, path, ledger), strict=True):
        for split, prefix in (("train", ""), ("eval", "eval_")):
            for metric in CURVES:
                value = number(entry.get(prefix + metric))
                if value is not None:
                    records.append((metric, split, int(number(entry.get("step")) or 0), examples, value))
                elif prefix + metric in entry:
                    bad += 1
    if bad:
        ledger.note(f"{path}: {bad} logged values aren't finite numbers and are left out.")
    return pd.DataFrame(records, columns=list(LOG_COLUMNS))


def _positions(entries: list[dict[str, Any]], rows: int | None, path: Path, ledger: Ledger) -> list[float]:
    """Where on the axis of examples seen each entry stands."""
    if any(number(entry.get("examples_seen")) is not None for entry in entries):
        positions, last = [], 0.0
        for entry in entries:
            seen = number(entry.get("examples_seen"))
            last = last if seen is None else seen
            positions.append(last)  # what an evaluation logs has no count of its own
        return positions
    if rows:
        return [(number(entry.get("epoch")) or 0.0) * rows for entry in entries]
    if any(metric in entry for entry in entries for metric in CURVES):
        ledger.note(f"{path} doesn't say how many examples were seen; its curves are drawn over steps instead.")
    return [number(entry.get("step")) or 0.0 for entry in entries]
