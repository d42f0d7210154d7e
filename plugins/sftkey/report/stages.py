"""One training stage as its output directory tells it: the completion marker and the training log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sftkey.datasets.registry import DATASETS
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json

MARKER_FILE = "sftkey_stage.json"
RUN_FILE = "sftkey_run.json"
LOG_FILE = "trainer_state.json"

CURVES = ("loss_answer", "loss_thinking", "loss_format", "acc_answer")
"""The logged metrics that are drawn; on an evaluation split each has the prefix ``eval_``."""

LOG_COLUMNS = ("metric", "split", "step", "examples", "value")


class _Lenient(BaseModel):
    """Only what the report uses is checked; what other versions add is ignored."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class _Recipe(_Lenient):
    name: str = ""
    config: dict[str, Any] = Field(default_factory=dict)


# The texts end up on the page, so none may be longer than what it can be.
_Word = Annotated[str, Field(max_length=100)]
_Path = Annotated[str, Field(max_length=4096)]


class _After(_Lenient):
    output_dir: _Path
    method: _Word | None = None
    finished_at: _Word | None = None


class _Data(_Lenient):
    path: _Path | None = None
    type: str | dict[str, Any] | None = None
    rows_used: int | None = None


class _Training(_Lenient):
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    train_loss: float | None = None


class _Marker(_Lenient):
    finished_at: _Word
    method: _Word
    base_model: _Path
    recipe: _Recipe = Field(default_factory=_Recipe)
    after: _After | None = None
    data: list[_Data] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)
    training: _Training = Field(default_factory=_Training)


@dataclass(frozen=True)
class Stage:
    """One stage, finished or not.

    Attributes:
        directory: Its output directory, resolved.
        finished: Whether it has a completion marker.
        method: ``sft``, ``sft-tag``, ``key-tag``, ``key``; ``None`` where an unfinished stage doesn't say.
        base_model: What it started from, as its recipe names it.
        after: Output directory of the stage before, and its method and time of completion where they are known;
            ``None`` for a first stage.
        output_dir: The output directory as the recipe names it.
        data: Short names of the training data, in the recipe's order.
        rows: Training examples per epoch, where known.
        config: The recipe.
        versions: Package versions.
        finished_at: ISO 8601, as in the marker.
        steps: Optimizer steps.
        epochs: Epochs.
        seconds: Wall time of the training.
        train_loss: The trainer's mean training loss.
        log: What was logged, long: columns `LOG_COLUMNS`, ``split`` is ``train`` or ``eval``, ``examples`` counts the
            training examples seen so far in this stage.
    """

    directory: Path
    finished: bool
    method: str | None = None
    base_model: str | None = None
    after: _After | None = None
    output_dir: str | None = None
    data: tuple[str, ...] = ()
    rows: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    finished_at: str | None = None
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    train_loss: float | None = None
    log: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(LOG_COLUMNS)))

    @property
    def examples(self) -> float:
        """Examples seen when the log ends; 0 without a log."""
        return float(self.log["examples"].max()) if len(self.log) else 0.0


def read_stage(directory: Path, ledger: Ledger) -> Stage | None:
    """Read one output directory.

    Args:
        directory: A directory with a marker, a run file, a training log or checkpoints.
        ledger: Takes what was read, skipped and noted.

    Returns:
        The stage; ``None`` where nothing in the directory could be read.
    """
    marker_path = directory / MARKER_FILE
    if marker_path.exists():
        marker = _read(marker_path, "marker", _Marker, ledger)
        if marker is not None:
            return _finished(directory, marker, ledger)
        ledger.note(f"{directory} counts as unfinished: its {MARKER_FILE} can't be used.")
    return _unfinished(directory, ledger)


def _read(path: Path, kind: str, model: type[_Marker], ledger: Ledger) -> _Marker | None:
    try:
        content = model.model_validate(read_json(path))
    except UnreadableFile as error:
        ledger.skip(path, kind, str(error))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        ledger.skip(path, kind, f"{key}: {first['msg']}")
    else:
        ledger.used(path, kind)
        return content
    return None


def _finished(directory: Path, marker: _Marker, ledger: Ledger) -> Stage:
    rows = [entry.rows_used for entry in marker.data]
    per_epoch = sum(row for row in rows if row) if rows and None not in rows else None
    output_dir = marker.recipe.config.get("output_dir")
    return Stage(
        directory=directory,
        finished=True,
        method=marker.method,
        base_model=marker.base_model,
        after=marker.after,
        output_dir=str(output_dir) if output_dir else None,
        data=tuple(data_name(entry.path, entry.type) for entry in marker.data),
        rows=per_epoch,
        config=marker.recipe.config,
        versions=marker.versions,
        finished_at=marker.finished_at,
        steps=marker.training.steps,
        epochs=marker.training.epochs,
        seconds=marker.training.seconds,
        train_loss=marker.training.train_loss,
        log=_read_log(directory, per_epoch, ledger),
    )


def _unfinished(directory: Path, ledger: Ledger) -> Stage | None:
    settings: dict[str, Any] = {}
    run_path = directory / RUN_FILE
    started = run_path.exists()
    if started:
        try:
            found = read_json(run_path).get("settings")
            settings = found if isinstance(found, dict) else {}
            ledger.used(run_path, "run file")
        except UnreadableFile as error:
            ledger.skip(run_path, "run file", str(error))
    log = _read_log(directory, None, ledger)
    if not started and not len(log) and not (directory / MARKER_FILE).exists():
        return None
    entries = settings.get("datasets")
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return Stage(
        directory=directory,
        finished=False,
        method=_text(settings.get("sftkey_method")),
        base_model=_text(settings.get("base_model")),
        after=_running_after(settings),
        data=tuple(data_name(_text(entry.get("path")), entry.get("type")) for entry in entries),
        config=settings,
        steps=int(log["step"].max()) if len(log) else None,
        log=log,
    )


def _running_after(settings: Mapping[str, Any]) -> _After | None:
    """The stage that an unfinished one started from: its weights are where the recipe's own model would be."""
    start = settings.get("lora_model_dir") or settings.get("base_model")
    if not settings.get("sftkey_after") or not isinstance(start, str):
        return None
    return _After(output_dir=start[:4096])


def _text(value: Any) -> str | None:
    return str(value)[:4096] if value is not None else None


def data_name(path: str | None, kind: Any) -> str:
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
    return path or module or "unknown data"


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
