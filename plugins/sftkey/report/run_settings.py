"""How each run was trained, how the runs differ, what each is for, and what several seeds give."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sftkey.evaluation.results import METRICS
from sftkey.recipes.settings import Role, has_role, keys_with, plain, training_settings
from sftkey.report.runs import BASE, BASELINE, Run, data_set_title
from sftkey.report.score_tables import METRIC_TITLES
from sftkey.report.stages import LoggedStage
from sftkey.report.tables import NOTHING, Table, TableCell, figure, number, texts
from sftkey.util.text import shorten

ONE_SEED = "one seed: intervals and tests are over its items, another seed may give another figure"
_NAMED = ("method", "first", "second", "stage 1", "stage 2")
"""The columns of the CSV that name a row of the tables of figures."""
_OWN_COLUMN = ("sftkey_method", "seed")
_MAX_OTHERS, _MAX_VALUE = 8, 60


def settings_table(runs: Sequence[Run]) -> Table:
    """Every run with what it is for, its steps and seed, and the settings in which the runs differ."""
    trained = [run for run in runs if run.stages]
    settings = [_settings(run.stages[-1]) for run in trained]
    differing = [
        key
        for key in dict.fromkeys((*keys_with(Role.SHOWN), *sorted({key for one in settings for key in one})))
        if key not in _OWN_COLUMN and len({one.get(key) for one in settings}) > 1
    ]
    columns = [key for key in differing if has_role(key, Role.SHOWN)]
    others = [key for key in differing if key not in columns]
    usual = {key: Counter(one.get(key) for one in settings).most_common(1)[0][0] for key in differing}
    table = Table(
        name="settings",
        title="Settings of the runs",
        caption="How each stage was trained. Settings in which the runs differ have a column, bold where a run is not like "
        "most." + _same(settings, differing),
        columns=(
            "Model", "Strategy", "Role", "Started from", "Trained on", "Rows", "Steps", "Epochs", "Seed", *columns,
            *(["Other settings"] if others else []),
        ),
    )  # fmt: skip
    evaluated = {run.model for run in runs if not run.stages}
    for run, own in zip(trained, settings, strict=True):
        stage = run.stages[-1]
        footnotes = []
        if run.model not in evaluated and len(run.stages) == 1:
            footnotes.append(f"the untrained model was not evaluated: there is no row {BASE} to compare with")
        start = run.model if len(run.stages) == 1 else run.stages[-2].output_dir.name
        rows = [record.rows_used for record in stage.data]
        cells = [
            *texts({"model": run.model, "method": run.label(), "role": _role(run, trained)}),
            TableCell(start, values={"started from": start}, footnotes=table.footnote(footnotes)),
            TableCell(
                " + ".join(map(data_set_title, stage.data_names)), values={"trained on": ", ".join(stage.data_names)}
            ),
            number({"rows": sum(row or 0 for row in rows) if rows and None not in rows else None}, "{:,}".format),
            number({"steps": stage.steps}, "{:,}".format),
            number({"epochs": stage.training.epochs}, "{:.3g}".format),
            TableCell(own.get("seed", "not set"), numeric=True, values={"seed": own.get("seed")}),
        ]
        for key in columns:
            value = own.get(key)
            cells.append(TableCell(value or NOTHING, value != usual[key], numeric=True, values={key: value}))
        if others:
            found = [f"{key} {own.get(key, 'not set')}" for key in others if own.get(key) != usual[key]]
            more = f"; and {len(found) - _MAX_OTHERS} more" if len(found) > _MAX_OTHERS else ""
            text = "; ".join(found[:_MAX_OTHERS]) + more
            cells.append(TableCell(text or NOTHING, values={"other settings": text}))
        table.add(cells, grouped=True)
    return table


def _settings(stage: LoggedStage) -> dict[str, str]:
    """The settings that decide the weights, as short texts; not what names the data and the model."""
    return {
        key[:_MAX_VALUE]: _short(value)
        for key, value in training_settings(stage.config).items()
        if not has_role(key, Role.NOT_VARIANT)
    }


def _short(value: Any) -> str:
    return shorten(value if isinstance(value, str) else json.dumps(plain(value)), _MAX_VALUE)


def _same(settings: Sequence[dict[str, str]], differing: Iterable[str]) -> str:
    if len(settings) < 2:
        return ""
    same = [key for key in keys_with(Role.SHOWN) if key in settings[0] and key not in differing]
    shown = [f"{key} {settings[0][key]}" for key in same if key not in _OWN_COLUMN]
    return f" The same in all: {', '.join(shown)}." if shown else ""


def _role(run: Run, runs: Iterable[Run]) -> str:
    """What a run is for, beside the others: baseline, Stage 1, or the control of a two-stage strategy."""
    if run.strategy == BASELINE:
        return "baseline"
    later = [one for one in runs if one.directory != run.directory and len(one.stages) > 1]
    after = [one for one in later if one.stages[-2].output_dir == run.directory]
    if after:
        return "Stage 1 of " + ", ".join(dict.fromkeys(one.strategy for one in after))
    methods = {stage.method for stage in run.stages}
    if len(run.stages) > 1 and len(methods) == 1:
        beside = [one for one in later if one.stages[-2].output_dir == run.stages[-2].output_dir]
        compared = [one for one in beside if one.stages[-1].method not in methods]
        if compared:
            return "control of " + ", ".join(f"{one.strategy} ({_steps(run, one)})" for one in compared)
    return ""


def _steps(run: Run, other: Run) -> str:
    own, theirs = run.stages[-1].steps, other.stages[-1].steps
    if own is not None and own == theirs:
        return "as many steps"
    return f"{own if own is not None else '?'} steps against {theirs if theirs is not None else '?'}"


def _by_settings(runs: Iterable[Run]) -> dict[tuple[str, str, str, str], list[tuple[str, Run]]]:
    """The evaluated runs with their seeds, by model, strategy, data set and all settings but the seed."""
    groups: dict[tuple[str, str, str, str], list[tuple[str, Run]]] = defaultdict(list)
    for run in runs:
        if run.stages:
            settings = [_settings(stage) for stage in run.stages]
            seed = " then ".join(dict.fromkeys(one.pop("seed", "not set") for one in settings))
            for data_set in run.evaluations:
                label = run.label(data_set).removesuffix(f", {run.variant}")
                groups[(run.model, label, data_set, json.dumps(settings, sort_keys=True))].append((seed, run))
    return groups


def label_single_seeds(tables: Iterable[Table], runs: Iterable[Run]) -> None:
    """Say of every row with the figures of one run that it is one seed, where no other seed of it was run, in place."""
    single = {
        (model, run.label(data_set))
        for (model, _, data_set, _), found in _by_settings(runs).items()
        if len({seed for seed, _ in found}) == 1
        for _, run in found
    }
    for table in tables:
        for row in table.rows:
            model = next((cell.values["model"] for cell in row if "model" in cell.values), None)
            for place, cell in enumerate(row):
                if any((model, cell.values.get(column)) in single for column in _NAMED):
                    row[place] = replace(cell, footnotes=(*cell.footnotes, *table.footnote([ONE_SEED])))


def seed_tables(runs: Iterable[Run]) -> list[Table]:
    """The table of means over the runs that differ only in their seed; none where there are no such runs."""
    table = Table(
        name="seeds",
        title="Several seeds",
        caption="Runs that differ only in the seed: mean, and below it the standard deviation over the seeds and the lowest "
        "and highest figure. The intervals of the other tables are over items and don't hold what another seed would give.",
        columns=("Model", "Strategy", "Data set", "Seeds", *METRIC_TITLES.values()),
    )
    for (model, label, data_set, _), found in _by_settings(runs).items():
        seeds = [seed for seed, _ in found]
        if len(set(seeds)) < 2:
            continue
        cells = [*texts({"model": model, "method": label, "data set": data_set_title(data_set)})]
        cells.append(TableCell(f"{len(seeds)}: {', '.join(seeds)}", values={"seeds": ", ".join(seeds)}))
        for metric in METRICS:
            values = np.array([run.evaluations[data_set].reported[metric] for _, run in found])
            spread = float(values.std(ddof=1))
            shown = (
                ("interval", f"\u00b1 {figure(spread)}"),
                ("interval", f"{figure(values.min())} to {figure(values.max())}"),
            )
            kept = {f"{metric} mean": float(values.mean()), f"{metric} sd": spread}
            cells.append(TableCell(figure(float(values.mean())), details=shown, numeric=True, values=kept))
        table.add(cells, grouped=True)
    return [table] if table.rows else []
