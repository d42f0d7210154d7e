"""Find everything under the output roots and tell which evaluation belongs to which stage."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sftkey.evaluation.results import Evaluation, is_results_file, read_evaluations
from sftkey.report.stages import LOG_FILE, MARKER_FILE, RUN_FILE, Stage, read_stage
from sftkey.util.sources import Ledger

_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclass
class Collection:
    """All that was found.

    Attributes:
        roots: The output roots, resolved.
        stages: Every stage by its directory, in the order of the directories.
        before: For a stage's directory that of the stage that it started from, where that is known.
        evaluations: For a stage's directory its evaluations; under ``None`` those that belong to no stage.
        ledger: Files and notes.
    """

    roots: tuple[Path, ...]
    stages: dict[Path, Stage] = field(default_factory=dict)
    before: dict[Path, Path] = field(default_factory=dict)
    evaluations: dict[Path | None, list[Evaluation]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def chain(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages that lead to one, oldest first, itself last."""
        chain, seen = [stage], {stage.directory}
        while (previous := self.before.get(chain[0].directory)) is not None and previous not in seen:
            seen.add(previous)
            chain.insert(0, self.stages[previous])
        return tuple(chain)


def collect(roots: Sequence[Path]) -> Collection:
    """Read everything under `roots`. Never raises because of what a file holds.

    Args:
        roots: Directories; markers, logs and results are found at any depth. Hidden directories are passed over, and
            links to directories aren't followed.
    """
    collection = Collection(tuple(dict.fromkeys(root.resolve() for root in roots)))
    directories, results = _scan(collection.roots, collection.ledger)
    for directory in directories:
        _add_stage(collection, directory)
    _link_stages(collection)
    for path in results:
        try:
            evaluations = read_evaluations(path, collection.ledger)
            for evaluation in evaluations:
                _ = evaluation.items  # now, so that the ledger is complete
        except OSError as error:  # a folder that may be listed but not entered
            collection.ledger.skip(path, "results", f"can't be read: {error.strerror or error}")
            continue
        for evaluation in evaluations:
            stage = _stage_of(evaluation, collection)
            collection.evaluations.setdefault(stage, []).append(evaluation)
    return collection


def _add_stage(collection: Collection, directory: Path) -> None:
    try:
        stage = read_stage(directory, collection.ledger)
    except OSError as error:
        collection.ledger.note(f"{directory} can't be read: {error.strerror or error}.")
        return
    if stage is not None:
        collection.stages[directory] = stage


def _scan(roots: Iterable[Path], ledger: Ledger) -> tuple[list[Path], list[Path]]:
    """Directories of stages, and results files."""
    directories: set[Path] = set()
    results: set[Path] = set()

    def unreadable(error: OSError) -> None:
        ledger.note(f"{error.filename} can't be read: {error.strerror}.")

    for root in roots:
        for folder, subfolders, names in os.walk(root, onerror=unreadable):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            here = Path(folder)
            if MARKER_FILE in names or RUN_FILE in names:
                directories.add(here)
            if LOG_FILE in names:
                directories.add(here.parent if _CHECKPOINT.fullmatch(here.name) else here)
            results.update(here / name for name in names if is_results_file(here / name))
    return sorted(directories), sorted(results)


def input_files(roots: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Size and time of every file that a report would be made from, to tell when there is something new.

    Args:
        roots: Output roots.
    """
    found: dict[Path, tuple[int, int]] = {}
    directories, results = _scan([root.resolve() for root in roots], Ledger())
    logs = [path for directory in directories for path in directory.glob(f"checkpoint-*/{LOG_FILE}")]
    stages = [directory / name for directory in directories for name in (MARKER_FILE, RUN_FILE, LOG_FILE)]
    samples = [path for folder in {path.parent for path in results} for path in folder.glob("samples_*.jsonl")]
    for path in (*stages, *logs, *results, *samples):
        try:
            stat = path.stat()
        except OSError:
            continue
        found[path] = (stat.st_size, stat.st_mtime_ns)
    return found


def _link_stages(collection: Collection) -> None:
    """Find the stage that each later stage started from, also where it lies outside the roots."""
    for stage in list(collection.stages.values()):
        if stage.after is None:
            continue
        found = _find(stage.after.output_dir, stage.directory, collection)
        if found is None:
            found = _outside(stage.after.output_dir, stage.directory, collection)
        if found is None:
            collection.ledger.note(
                f"{stage.directory} started from {stage.after.output_dir}, which isn't there: its Stage 1 isn't shown."
            )
        elif stage.finished and collection.stages[found].finished_at != stage.after.finished_at:
            collection.ledger.note(
                f"{found} was trained again after {stage.directory} had started from it: what is there now is not the "
                "Stage 1 of that run, and the two are not compared."
            )
        else:
            collection.before[stage.directory] = found


def _outside(name: str, directory: Path, collection: Collection) -> Path | None:
    for candidate in _candidates(name, (directory, *collection.roots)):
        if (candidate / MARKER_FILE).is_file():
            _add_stage(collection, candidate)
            return candidate if candidate in collection.stages else None
    return None


def _candidates(name: str, anchors: Iterable[Path]) -> Iterable[Path]:
    """What a path from a recipe or a command line may mean; the directory that it is relative to isn't recorded."""
    path = Path(name)
    if path.is_absolute():
        yield _resolved(path)
        return
    yield _resolved(Path.cwd() / path)
    for anchor in anchors:
        for ancestor in (anchor, *anchor.parents):
            yield _resolved(ancestor / path)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def _find(name: str, anchor: Path, collection: Collection) -> Path | None:
    """The stage that a path means, if there is exactly one that it can mean."""
    for candidate in _candidates(name, (anchor, *collection.roots)):
        if candidate in collection.stages:
            return candidate
    wanted = os.path.normpath(name)
    named = [
        stage.directory
        for stage in collection.stages.values()
        if (stage.output_dir and os.path.normpath(stage.output_dir) == wanted)
        or str(stage.directory).endswith(os.sep + wanted)
    ]
    return named[0] if len(named) == 1 else None


def _stage_of(evaluation: Evaluation, collection: Collection) -> Path | None:
    """The stage whose weights were evaluated, by the model's name, else by where the results lie."""
    around = next((parent for parent in evaluation.path.parents if parent in collection.stages), None)
    if evaluation.model is not None and "\0" not in evaluation.model:
        model = evaluation.model
        head, _, tail = model.rstrip("/").rpartition("/")
        if tail == "merged":  # where `axolotl merge-lora` puts the full weights of an adapter
            model = head
        found = _find(model, evaluation.path.parent, collection)
        if found is not None:
            return found
        if _CHECKPOINT.fullmatch(tail):
            collection.ledger.note(
                f"{evaluation.path} evaluates {evaluation.model}, an intermediate checkpoint; it is not in the tables."
            )
            return None
        if around is not None and any(stage.base_model == evaluation.model for stage in collection.stages.values()):
            return None  # the untrained model, evaluated into a run's folder
    return around
