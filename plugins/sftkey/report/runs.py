"""From stages to the rows of the paper's tables: which model, which strategy, trained on what, evaluated where."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sftkey.datasets.registry import DATASETS, dataset
from sftkey.datasets.titles import data_title
from sftkey.evaluation.results import Evaluation
from sftkey.format.methods import METHODS, STRATEGIES, strategy_of
from sftkey.recipes.settings import Role, has_role
from sftkey.report.collect import Collection
from sftkey.report.paper import AVERAGE
from sftkey.report.stages import LoggedStage

BASE = "Base"
"""The row of the untrained model."""

BASELINE = "SFT"

ORDER = (BASE, *STRATEGIES)

_LOSS = ("sftkey_objective", "sftkey_segment_weights", "sftkey_segment_schedule")
WITHOUT_CONTEXT_GRAD = " without context gradient"
"""Behind a strategy with a stage of ``sftkey_context_grad: false``: another strategy, with no figures in the paper."""


@dataclass(frozen=True)
class Run:
    """One trained checkpoint (or the untrained model) and its evaluations.

    Attributes:
        model: The model that its first stage started from; without the organisation where that is still unique.
        strategy: A row of the paper's tables: SFT, SFT-Tag, Key-Tag, SFTKey-Tag, SFTKey; Base; or the stages' names.
        stages: The stages behind it, oldest first; empty for the untrained model.
        trained_on: Names of the training data.
        variant: What tells it from other runs of the same model, strategy and data; empty where there is none.
        evaluations: The evaluation that counts for each data set.
    """

    model: str
    strategy: str
    stages: tuple[LoggedStage, ...]
    trained_on: tuple[str, ...]
    variant: str
    evaluations: Mapping[str, Evaluation]

    @property
    def directory(self) -> Path | None:
        """The output directory; ``None`` for the untrained model."""
        return self.stages[-1].output_dir if self.stages else None

    @property
    def finished(self) -> bool:
        """Whether the stage has its completion marker."""
        return not self.stages or self.stages[-1].finished

    @property
    def tagged(self) -> bool | None:
        """Whether it was trained on tagged data; ``None`` where that isn't known."""
        method = METHODS.get(self.stages[-1].method or "") if self.stages else None
        return method.tagged if method else None

    def label(self, data_set: str | None = None) -> str:
        """The name of its row in a table, for the column `data_set`."""
        parts = [self.strategy]
        if data_set is not None and self.is_transfer(data_set):
            parts.append("trained on " + " + ".join(data_set_title(name) for name in self.trained_on))
        if self.variant:
            parts.append(self.variant)
        return ", ".join(parts)

    def is_transfer(self, data_set: str) -> bool:
        """Whether it was trained on other, or further, data sets than the one it is evaluated on.

        The user's own data and the user's own task are taken to belong together: their names don't tell.
        """
        if all(name in DATASETS for name in self.trained_on):
            return bool(self.trained_on) and self.trained_on != (data_set,)
        return data_set in DATASETS


def runs_of(collection: Collection) -> list[Run]:
    """All runs, ordered by model and strategy. Notes in the collection's ledger what the tables leave out."""
    weights = _weights_by_model(collection)
    runs = [_run(stage, collection, weights) for stage in collection.stages.values()]
    runs = _with_model_names([*_base_runs(collection, runs, weights), *_with_variants(runs, collection)])
    return sorted(runs, key=lambda run: (run.model.lower(), *order_of(run.strategy), run.variant))


def data_set_title(name: str) -> str:
    """The name that people write for a data set, or for the column `AVERAGE`; a path is none."""
    if name == AVERAGE:
        return "Average"
    if name in DATASETS:
        return dataset(name).title or name
    return data_title(name)


def item_count(evaluation: Evaluation) -> int | None:
    """How many items an evaluation is over: as lm-eval says, else as many as it logged."""
    if evaluation.count is None and evaluation.items is not None:
        return len(evaluation.items)
    return evaluation.count


def order_of(strategy: str) -> tuple[int, str]:
    """Sorts strategies in the order of the paper's tables, others after them."""
    return (ORDER.index(strategy) if strategy in ORDER else len(ORDER), strategy)


def short_model(name: str) -> str:
    """A model's name without its organisation or folder: ``Qwen3-8B-Base`` of ``Qwen/Qwen3-8B-Base``."""
    return name.rstrip("/").rpartition("/")[2] or name


def _without_context_grad(stage: LoggedStage) -> bool:
    return stage.config.get("sftkey_context_grad") is False


def _with_model_names(runs: list[Run]) -> list[Run]:
    """Shorten the models' names as far as they stay different."""
    by_short: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        by_short[short_model(run.model)].add(run.model)
    return [
        replace(run, model=short_model(run.model)) if len(by_short[short_model(run.model)]) == 1 else run
        for run in runs
    ]


def _weights_by_model(collection: Collection) -> dict[str, set[str]]:
    """The different weights that stages found in each place that a base model was read from, as far as they are recorded."""
    found: dict[str, set[str]] = defaultdict(set)
    for stage in collection.stages.values():
        if stage.after is None and stage.base_model and (weights := _start_weights(stage)):
            found[stage.base_model].add(weights)
    return found


def _start_weights(stage: LoggedStage) -> str | None:
    return stage.marker.lineage.weights if stage.marker and stage.marker.lineage else None


def _model_name(first: LoggedStage, weights: Mapping[str, set[str]]) -> str:
    """The model that a run started from; where several were in that place one after the other, with what tells them apart."""
    name = first.base_model or "unknown model"
    if len(weights.get(name, ())) < 2:
        return name
    return f"{name} ({(_start_weights(first) or 'unknown')[:8]})"


def _run(stage: LoggedStage, collection: Collection, weights: Mapping[str, set[str]]) -> Run:
    chain = stage.chain
    methods = [part.method or None for part in chain]
    first = chain[0]
    if first.after is not None:  # the stage before it isn't there, but its method is known
        methods.insert(0, first.after.method)
    evaluations = collection.evaluations.get(stage.output_dir, [])
    run = Run(
        model=_model_name(first, weights),
        strategy=strategy_of(methods) + (WITHOUT_CONTEXT_GRAD if any(map(_without_context_grad, chain)) else ""),
        stages=chain,
        trained_on=tuple(sorted({name for part in chain for name in part.data_names})),
        variant="",
        evaluations={},
    )
    if not stage.finished and evaluations:
        collection.ledger.note(
            f"{stage.output_dir} has not finished; its evaluation in {evaluations[0].path} is not in the tables."
        )
        return run
    return replace(run, evaluations=_chosen(evaluations, run.tagged, run.label(), collection))


def _chosen(
    evaluations: Iterable[Evaluation], tagged: bool | None, label: str, collection: Collection
) -> dict[str, Evaluation]:
    """One evaluation per data set: in the run's own format, with the most items, the latest. Notes the others."""
    by_data_set: dict[str, list[Evaluation]] = defaultdict(list)
    for evaluation in evaluations:
        by_data_set[evaluation.data_set].append(evaluation)
    chosen = {}
    for data_set, candidates in by_data_set.items():
        candidates.sort(
            key=lambda one: (
                tagged is None or one.plain != tagged,
                one.items is not None,
                item_count(one) or 0,
                one.date,
            )
        )
        *others, best = candidates
        chosen[data_set] = best
        for other in others:
            collection.ledger.note(
                f"{label}: {other.path} ({other.task}, {item_count(other) or 'an unknown number of'} items) is not in the "
                f"tables; {best.path} ({best.task}, {item_count(best) or 'an unknown number of'} items) is."
            )
        if tagged is not None and best.plain == tagged:
            form = "untagged" if best.plain else "tagged"
            collection.ledger.note(f"{label}: {best.path} was evaluated by {best.task}, which expects {form} outputs.")
    return chosen


def _base_runs(collection: Collection, runs: Iterable[Run], weights: Mapping[str, set[str]]) -> list[Run]:
    """Runs of the untrained models that were evaluated. Notes evaluations of any other model."""
    bases = {run.stages[0].base_model for run in runs if run.stages[0].after is None}
    by_model: dict[str, list[Evaluation]] = defaultdict(list)
    for evaluation in collection.evaluations.get(None, []):
        if (several := len(weights.get(evaluation.model or "", ()))) > 1:
            collection.ledger.note(
                f"{evaluation.path} evaluates {evaluation.model}, and the runs started from {several} models in that place; "
                "it isn't in the tables."
            )
        elif evaluation.model is not None and evaluation.model in bases:
            by_model[evaluation.model].append(evaluation)
        else:
            model = evaluation.model or "a model that it does not name"
            collection.ledger.note(
                f"{evaluation.path} evaluates {model}, the output of no stage that was found; it isn't in the tables."
            )
    return [
        Run(model, BASE, (), (), "", _chosen(found, False, f"{model}, {BASE}", collection))
        for model, found in sorted(by_model.items())
    ]


def _with_variants(runs: list[Run], collection: Collection) -> list[Run]:
    """Tell runs of the same model, strategy and data apart: by settings if few differ, else by directory.

    One that is alone is named after what it minimises where that isn't its method's cross-entropy.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[Run]] = defaultdict(list)
    named = [run for run in runs if not run.finished]
    for run in runs:
        if run.finished:
            known = all(name in DATASETS for name in run.trained_on)
            groups[(run.model, run.strategy, run.trained_on if known else ())].append(run)
    for group in groups.values():
        if len(group) == 1:
            named.append(replace(group[0], variant=_own_loss(group[0])))
            continue
        names = _setting_names(group) or [_relative(run, collection) for run in group]
        named.extend(replace(run, variant=name) for run, name in zip(group, names, strict=True))
    return named


def _own_loss(run: Run) -> str:
    config = run.stages[-1].config if run.stages else {}
    return ", ".join(f"{key} {value}" for key in _LOSS if (value := config.get(key)) and value != "ce")[:80]


def _setting_names(group: list[Run]) -> list[str] | None:
    settings = [run.stages[-1].config for run in group]
    differing = sorted(
        key
        for key in set().union(*settings)
        if not has_role(key, Role.NOT_VARIANT) and len({str(one.get(key)) for one in settings}) > 1
    )
    if not 1 <= len(differing) <= 2:
        return None
    named = lambda key, value: f"no {key}" if value is None else f"{key} {value}"  # noqa: E731
    names = [", ".join(named(key, one.get(key)) for key in differing)[:80] for one in settings]
    return names if len(set(names)) == len(names) else None


def _relative(run: Run, collection: Collection) -> str:
    assert run.directory is not None
    for root in collection.roots:
        if run.directory.is_relative_to(root):
            inside = run.directory.relative_to(root)
            return str(inside) if len(collection.roots) == 1 else os.path.join(root.name, inside)
    return str(run.directory)
