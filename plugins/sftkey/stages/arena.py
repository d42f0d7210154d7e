"""What came of an arena: the figures of each run over its seeds, and each against the control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from sftkey.evaluation.decomposition import (
    CUT_OFF,
    MEASURES,
    Comparison,
    Items,
    Runs,
    compare,
    decompose,
    unshared,
)
from sftkey.evaluation.results import METRICS, Evaluation
from sftkey.evaluation.seeds import POWER, Estimate, detectable
from sftkey.stages.evaluate import EVALUATION_FOLDER, EvaluationSettings, evaluations_with
from sftkey.stages.marker import Marker
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile, number, read_json

SCHEMA = 1
ARENA_FILE = "arena.json"
GIVEN_REFERENCE_FILE = "sftkey_given_reference.json"
"""In a stage's folder of evaluations: which held-out rows it got right after the reference thinking."""
GIVEN_REFERENCE_SCHEMA = 1
SAME_COMPUTE = 0.05
"""Runs whose steps take the same time but for this share are trained for equal compute by equal steps."""


@dataclass
class ArenaRun:
    """One row of the table.

    Attributes:
        name: ``base``, ``stage1``, ``control``, an objective, or an objective with `EQUAL_COMPUTE` behind it.
        stages: The finished stages, by seed.
        evaluations: Where there is no stage, the evaluations of the untrained model.
    """

    name: str
    stages: dict[int, Stage] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def steps(self) -> list[int]:
        """The numbers of steps that its seeds were trained for; one where they agree."""
        return sorted({one.training.steps for one in self.stages.values() if one.training.steps})

    @property
    def step_seconds(self) -> float | None:
        """Seconds of training for each step: the median over the seeds; ``None`` where no marker says it."""
        found = [
            one.training.seconds / one.training.steps
            for one in self.stages.values()
            if one.training.seconds and one.training.steps
        ]
        return median(found) if found else None

    @property
    def places(self) -> dict[int, Path]:
        """The folder of the evaluations of each seed; a run without stages has them under 0."""
        if self.evaluations:
            return {0: self.evaluations[0].path}
        return {seed: stage.output_dir / EVALUATION_FOLDER for seed, stage in self.stages.items()}

    def items(self, settings: EvaluationSettings) -> dict[str, Runs]:
        """The items' figures by task and seed; a run without items has no seed."""
        found: dict[str, dict[int, Items]] = {}
        for seed, stage in self.stages.items():
            rows = given_reference(stage)
            for one in evaluations_with(stage, settings):
                if one.items is None:
                    continue
                figures = {**items_of(one), "acc_given_reference": {key: acc for key, acc, _ in rows}}
                if not figures.get("thinking_right"):  # the data set has no check of its own
                    figures["thinking_right"] = _same_thinking(one, {key: thinking for key, _, thinking in rows})
                found.setdefault(one.task, {})[seed] = {
                    measure: column for measure, column in figures.items() if column
                }
        for one in self.evaluations:
            if one.items is not None:
                found.setdefault(one.task, {})[0] = items_of(one)
        return dict(found)


def unusable_items(stage: Stage, settings: EvaluationSettings) -> str | None:
    """Why an evaluation can't count for a stage: it is another stage's, or has figures but no items; ``None`` where all can.

    Raises:
        UserError: See `evaluations_with`.
    """
    for one in evaluations_with(stage, settings):
        if _is_of_another(one, stage):
            return f"{one.path} evaluates {one.model}, not {stage.output_dir}; delete it to evaluate again"
        if not one.group and one.items is None and len(one.reported) == len(METRICS):
            skipped = [f"{file.path}: {file.skipped}" for file in one.ledger.skipped]
            reason = [*one.ledger.notes, *skipped][-1].rstrip(".")
            return f"{reason}; delete {one.path} to evaluate again"
    return None


def without_items(runs: Sequence[ArenaRun], settings: EvaluationSettings) -> list[str]:
    """A line for each run and seed that has no items of a task of which others have some, and so is in no figure of it."""
    items = {run.name: run.items(settings) for run in runs}
    tasks = dict.fromkeys(task for by_task in items.values() for task in by_task)
    return [
        f"{run.name}, seed {seed}: there are no items of {task}; delete {place} to evaluate again"
        for run in runs
        for seed, place in run.places.items()
        for task in tasks
        if seed not in items[run.name].get(task, {})
    ]


def _is_of_another(evaluation: Evaluation, stage: Stage) -> bool:
    """Whether the model that an evaluation names is a stage, and neither this one nor a copy of it."""
    if evaluation.model is None or "\0" in evaluation.model or stage.marker is None:
        return False
    try:
        other = Marker.read(evaluation.model)
    except UserError:
        return False
    same = (stage.marker.id, stage.marker.finished_at)
    return other is not None and (other.id, other.finished_at) != same


def items_of(evaluation: Evaluation) -> Items:
    """The figures of an evaluation's items, by what tells the items apart."""
    frame = evaluation.items
    assert frame is not None
    frame = frame.assign(cut_off=frame["failure"].isin(CUT_OFF).astype(float))
    return {
        measure: {
            str(key): float(value)
            for key, value in zip(frame["key"], frame[measure], strict=True)
            if not math.isnan(value)
        }
        for measure in MEASURES
        if measure in frame.columns
    }


def given_reference(stage: Stage, asked_for: int | None = None) -> list[tuple[str, float, str]]:
    """What a stage got right after the reference thinking, as far as that was measured for it as it is now.

    Args:
        stage: The stage.
        asked_for: Only where so many rows were asked for.

    Returns:
        For each held-out row what tells it from others, 1 or 0, and the reference thinking.
    """
    try:
        content = read_json(given_reference_file(stage))
    except UnreadableFile:
        return []
    own = stage.marker.id if stage.marker else None
    rows = content.get("items")
    if content.get("schema") != GIVEN_REFERENCE_SCHEMA or content.get("stage_id") != own or not isinstance(rows, list):
        return []
    if asked_for is not None and content.get("asked_for") != asked_for:
        return []
    found = []
    for row in rows:
        value = number(row.get("acc")) if isinstance(row, dict) else None
        if value is None or not 0 <= value <= 1:
            return []  # damaged, so that it is measured again
        found.append((str(row.get("key")), value, str(row.get("thinking") or "")))
    return found


def _same_thinking(evaluation: Evaluation, references: Mapping[str, str]) -> dict[str, float]:
    """Whether each thinking has the words of the reference's, which for generated problems is whether it is right."""
    frame = evaluation.items
    assert frame is not None
    return {
        str(key): float((evaluation.thinking(output, prompt) or "").split() == references[key].split())
        for key, output, prompt in zip(frame["key"], frame["output"], frame["prompt"], strict=True)
        if references.get(key)
    }


def compute_ratio(control: ArenaRun, other: ArenaRun) -> float | None:
    """How many steps of a run take as long as one of the control's; ``None`` where it isn't known."""
    own, its = control.step_seconds, other.step_seconds
    return own / its if own and its else None


def results(
    runs: Sequence[ArenaRun], control: ArenaRun, rivals: Sequence[ArenaRun], settings: EvaluationSettings
) -> dict[str, Any]:
    """Everything that is known by now, as plain JSON types.

    Args:
        runs: All rows, in the order of the table.
        control: The control among them.
        rivals: Those that are compared with it.
        settings: How they were evaluated.
    """
    items = {run.name: run.items(settings) for run in runs}
    tasks = list(dict.fromkeys(task for by_task in items.values() for task in by_task))
    return {
        "runs": [_run(run, control) for run in runs],
        "tasks": {task: _task(task, items, control.name, [one.name for one in rivals]) for task in tasks},
    }


def _run(run: ArenaRun, control: ArenaRun) -> dict[str, Any]:
    steps, seconds = run.steps, run.step_seconds
    one, its = seconds, control.step_seconds
    total = one * median(steps) if one and steps else None
    whole = its * median(control.steps) if its and control.steps else None
    return {
        "name": run.name,
        "seeds": sorted(run.stages),
        "one_seed": len(run.stages) == 1,
        "steps": steps,
        "step_seconds": seconds,
        "compute": total / whole if total and whole else None,
        "outputs": [str(run.stages[seed].output_dir) for seed in sorted(run.stages)],
    }


def _task(task: str, items: Mapping[str, Mapping[str, Runs]], control: str, rivals: Sequence[str]) -> dict[str, Any]:
    here = {name: by_task[task] for name, by_task in items.items() if by_task.get(task)}
    figures = {name: decompose(runs) for name, runs in here.items()}
    if not any(one["thinking_right"].value for one in figures.values() if "thinking_right" in one):
        # Where no thinking is the row's own, the check says nothing of right and wrong.
        for one in figures.values():
            one.pop("thinking_right", None)
    pairs = {name: (here[control], here[name]) for name in rivals if name in here and control in here}
    return {
        "figures": {name: {measure: _figure(one) for measure, one in found.items()} for name, found in figures.items()},
        "comparisons": [
            {"run": name, "control": control, **_comparison(one)}
            for name, several in compare(pairs).items()
            for one in several
            if one.measure != "thinking_right" or "thinking_right" in figures[name]
        ],
        "items_left_out": unshared([run for runs in here.values() for run in runs.values()]),
    }


def _figure(found: Estimate) -> dict[str, Any]:
    return {
        "value": found.value,
        "interval": [found.interval.low, found.interval.high],
        "over": found.over,
        "by_seed": list(found.by_seed),
        "items": found.items,
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    difference, pairs = found.difference, found.comparisons
    return {
        "measure": found.measure,
        "seeds": list(found.seeds),
        **{key if key != "value" else "difference": value for key, value in _figure(difference).items()},
        "standard_error": difference.standard_error,
        "test": difference.test,
        "p": difference.p,
        "p_holm": found.adjusted_p,
        "comparisons": pairs,
        "detectable": found.detectable,
        "detectable_with_twice_the_seeds": detectable(difference, pairs, seeds=2 * len(found.seeds)),
        "detectable_with_twice_the_items": detectable(difference, pairs, items=2 * difference.items),
        "power": POWER,
    }


def given_reference_file(stage: Stage) -> Path:
    """Where a stage's answers after the reference thinking are."""
    return stage.output_dir / EVALUATION_FOLDER / GIVEN_REFERENCE_FILE
