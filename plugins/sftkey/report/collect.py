"""Find everything under the output roots and tell which evaluation belongs to which stage."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sftkey.evaluation.results import Evaluation, is_results_file, read_evaluations
from sftkey.report.stages import LoggedStage, read_stage
from sftkey.stages.content import changed_weights
from sftkey.stages.links import MERGED_FOLDER, find_before, resolved, stages_at
from sftkey.stages.marker import LOG_FILE, MARKER_FILE, RUN_FILE
from sftkey.util.sources import Ledger
from sftkey.util.text import visible

_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclass
class Collection:
    """All that was found.

    Attributes:
        roots: The output roots, resolved.
        stages: Every stage by its output directory, resolved, in the order of the directories.
        evaluations: For a stage's directory its evaluations; under ``None`` those that belong to no stage.
        ledger: Files and notes.
    """

    roots: tuple[Path, ...]
    stages: dict[Path, LoggedStage] = field(default_factory=dict)
    evaluations: dict[Path | None, list[Evaluation]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def stage_in(self, place: Path) -> LoggedStage | None:
        """The stage in a directory, if it was found."""
        return self.stages.get(resolved(place))


def collect(roots: Sequence[Path]) -> Collection:
    """Read everything under `roots`. Never raises because of what a file holds.

    Args:
        roots: Directories; markers, logs and results are found at any depth. Hidden directories are passed over, and
            links to directories aren't followed.
    """
    collection = Collection(tuple(dict.fromkeys(root.resolve() for root in roots)))
    directories, results = _scan(collection.roots, collection.ledger)
    for directory in directories:
        stage = _stage(directory, collection.ledger)
        if stage is not None:
            collection.stages[directory] = stage
    for directory, stage in list(collection.stages.items()):
        original = collection.stages.get(directory.parent)
        if (
            stage.marker
            and stage.marker.merged
            and original
            and original.marker
            and original.marker.id == stage.marker.id
        ):
            del collection.stages[directory]  # the same stage, as full weights
    for directory in list(collection.stages):
        _note_record(collection.stages[directory], collection.ledger)
        _link(directory, collection)
    for path in results:
        try:
            evaluations = read_evaluations(path, collection.ledger)
            for evaluation in evaluations:
                _ = evaluation.items  # now, so that the ledger is complete
        except OSError as error:  # a folder that may be listed but not entered
            collection.ledger.skip(path, "results", f"can't be read: {error.strerror or error}")
            continue
        for evaluation in evaluations:
            collection.evaluations.setdefault(_evaluated(evaluation, collection), []).append(evaluation)
    return collection


def _stage(directory: Path, ledger: Ledger) -> LoggedStage | None:
    try:
        return read_stage(directory, ledger)
    except OSError as error:
        ledger.note(f"{directory} can't be read: {error.strerror or error}.")
        return None


def _note_record(stage: LoggedStage, ledger: Ledger) -> None:
    """Note what a stage's own record says against its figures."""
    marker = stage.marker
    if marker is None:
        return
    try:
        files = changed_weights(stage.output_dir, marker)
    except OSError:
        files = []
    if files:
        ledger.note(
            f"{stage.output_dir}: {', '.join(files)} isn't what this stage finished with; it was replaced since."
        )
    record = marker.lineage
    if record and record.evaluated_before:
        ledger.note(
            f"{stage.output_dir}: {record.evaluated_before} of its {record.rows_evaluated} evaluation rows had been trained "
            "on; its eval_ figures are too good."
        )


def _scan(roots: Iterable[Path], ledger: Ledger) -> tuple[list[Path], list[Path]]:
    """Directories of stages, and results files."""
    directories: set[Path] = set()
    results: set[Path] = set()

    def unreadable(error: OSError) -> None:
        ledger.note(f"{error.filename} can't be read: {error.strerror}.")

    for root in roots:
        for folder, subfolders, names in os.walk(root, onerror=unreadable):
            here = Path(folder)
            names = _plain(names, here, ledger)
            subfolders[:] = _plain((name for name in subfolders if not name.startswith(".")), here, ledger)
            if MARKER_FILE in names or RUN_FILE in names:
                directories.add(here)
            if LOG_FILE in names:
                directories.add(here.parent if _CHECKPOINT.fullmatch(here.name) else here)
            results.update(here / name for name in names if is_results_file(here / name))
    return sorted(directories), sorted(results)


def _plain(names: Iterable[str], folder: Path, ledger: Ledger) -> list[str]:
    """The names that can be shown, sorted; the others are noted."""
    found = sorted(names)
    for name in found:
        if not name.isprintable():
            ledger.note(
                f"{folder}: {visible(name)!r} has a character in its name that can't be shown; it is passed over."
            )
    return [name for name in found if name.isprintable()]


def input_files(roots: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Size and time of every file that a report would be made from, to tell when there is something new.

    Args:
        roots: Output roots.
    """
    found: dict[Path, tuple[int, int]] = {}
    directories, results = _scan([root.resolve() for root in roots], Ledger())
    logs = [path for directory in directories for path in directory.glob(f"checkpoint-*/{LOG_FILE}")]
    stages = [directory / name for directory in directories for name in (MARKER_FILE, RUN_FILE, LOG_FILE)]
    samples = [path for folder in {path.parent for path in results} for path in folder.glob("*_*.jsonl")]
    for path in (*stages, *logs, *results, *samples):
        try:
            stat = path.stat()
        except OSError:
            continue
        found[path] = (stat.st_size, stat.st_mtime_ns)
    return found


def _link(directory: Path, collection: Collection, later: tuple[Path, ...] = ()) -> LoggedStage:
    """Link a stage to the one that it started from, and that one to the one before it."""
    stage = collection.stages[directory]
    if not stage.linked:
        later = (*later, directory)
        before = _before(stage, collection)
        if before is not None and before.output_dir not in later:  # else they start from each other
            stage = replace(stage, linked_before=_link(before.output_dir, collection, later))
        stage = collection.stages[directory] = replace(stage, linked=True)
    return stage


def _before(stage: LoggedStage, collection: Collection) -> LoggedStage | None:
    """The stage that another one started from, also where it lies outside the roots."""

    def read_outside(place: Path) -> LoggedStage | None:
        place = resolved(place)
        known = place in collection.stages or not os.path.isfile(place / MARKER_FILE)
        return None if known else _stage(place, collection.ledger)

    found, instead = find_before(stage, collection.stage_in, collection.stages.values())
    if found is None:
        found, outside = find_before(stage, read_outside)
        instead = instead or outside
    if found is not None:
        return collection.stages.setdefault(found.output_dir, found)
    if instead is not None:
        collection.ledger.note(
            f"{instead.output_dir} was trained again after {stage.output_dir} had started from it: what is there now is not "
            "the Stage 1 of that run, and the two are not compared."
        )
    elif stage.after is not None:
        collection.ledger.note(
            f"{stage.output_dir} started from {stage.after.output_dir}, which isn't there: its Stage 1 isn't shown."
        )
    return None


def _evaluated(evaluation: Evaluation, collection: Collection) -> Path | None:
    """The stage whose weights were evaluated, by the model's name, else by where the results lie."""
    around = next((parent for parent in evaluation.path.parents if parent in collection.stages), None)
    if evaluation.model is not None and "\0" not in evaluation.model:
        model = evaluation.model
        head, _, tail = model.rstrip("/").rpartition("/")
        if tail == MERGED_FOLDER:
            model = head
        anchors = (evaluation.path.parent, *collection.roots)
        found = next(stages_at(model, anchors, collection.stage_in, collection.stages.values()), None)
        if found is not None:
            return found.output_dir
        if _CHECKPOINT.fullmatch(tail):
            collection.ledger.note(
                f"{evaluation.path} evaluates {evaluation.model}, an intermediate checkpoint; it is not in the tables."
            )
            return None
        if around is not None and any(stage.base_model == evaluation.model for stage in collection.stages.values()):
            return None  # the untrained model, evaluated into a run's folder
    return around
