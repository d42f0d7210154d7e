"""Judging later: the judge's verdicts for the logged samples of an earlier evaluation.

So that a judge of 70 B parameters needn't share the GPUs with the model. `lm_eval --log_samples` logs for every item
what the rules saw; from that and the judge's verdict the samples and the results are computed anew, by the code that
judges at once (`sftkey.evaluation.judge.decide`, `sftkey.evaluation.verdicts`), hence with the same numbers.

The files are replaced in place, each atomically and the results last, so that whatever reads a folder of evaluations
finds every evaluation once. What was there before stays beside them, as ``<name>.before-judge``. Judging again starts
from the rules' verdicts again: after an interruption, or to ask about unresolved items, run it once more. The results
get one new entry, ``sftkey_judged_later``: when, by which model and in which mode.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sftkey.evaluation.judge.client import JudgeItem, JudgeMode, JudgeSettings, in_cache
from sftkey.evaluation.judge.decide import judged
from sftkey.evaluation.verdicts import Item, Record, aggregate, item_of, needs_judge, scores

logger = logging.getLogger(__name__)

BACKUP_SUFFIX = ".before-judge"
"""What the name of an untouched original ends in."""

_HEADLINE = ("acc", "fmt", "score")
_OURS = frozenset({"rule_verdict", "format_failure", "extraction"})  # a sample with any of these fields is sftkey's


class NotJudgeable(ValueError):
    """Files that can't be judged later. The message says which, why, and what to do."""


@dataclass(frozen=True)
class TaskPlan:
    """What there is to judge in one task of one evaluation.

    Attributes:
        results: The results file of the evaluation.
        task: Name of the task.
        items: Number of items.
        needed: How many of them the mode asks the judge about.
        distinct: How many different comparisons these are; duplicates are asked once.
        cached: How many of the different ones need no asking: their verdicts are in the cache.
    """

    results: Path
    task: str
    items: int
    needed: int
    distinct: int
    cached: int


@dataclass(frozen=True)
class TaskJudgement:
    """What judging did to one task of one evaluation.

    Attributes:
        results: The results file of the evaluation.
        task: Name of the task.
        items: Number of items.
        sources: How many items got a verdict from the ``judge`` or the ``cache``, or are ``unresolved``.
        before: Acc, fmt and score as they were.
        after: The same with the judge's verdicts.
    """

    results: Path
    task: str
    items: int
    sources: Mapping[str, int]
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class _Samples:
    """The samples of one task and filter, lines of one file."""

    path: Path
    task: str
    filter: str
    lines: tuple[int, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class _Run:
    """One evaluation: a results file and the samples beside it."""

    path: Path
    content: dict[str, Any]
    samples: tuple[_Samples, ...]


def plan(results_dir: Path, mode: JudgeMode, settings: JudgeSettings | None = None) -> list[TaskPlan]:
    """Count what `rejudge` would ask about, without asking or writing anything.

    Args:
        results_dir: As for `rejudge`.
        mode: Which items the judge would be asked about.
        settings: The judge, to look into its cache; ``None`` counts nothing as cached.

    Returns:
        One plan per task.

    Raises:
        NotJudgeable: As for `rejudge`.
        OSError: A file can't be read.
    """
    plans = []
    for run in _runs(results_dir):
        for samples in run.samples:
            needed = [
                JudgeItem(item.question, item.reference, item.extracted)
                for item in samples.items
                if needs_judge(item, mode.value) and item.extracted is not None
            ]
            distinct = list(dict.fromkeys(needed))
            cached = sum(in_cache(distinct, settings)) if settings is not None else 0
            plans.append(TaskPlan(run.path, samples.task, len(samples.items), len(needed), len(distinct), cached))
    return plans


def rejudge(results_dir: Path, settings: JudgeSettings) -> list[TaskJudgement]:
    """Add the judge's verdicts to the evaluations in a folder.

    Args:
        results_dir: A folder with ``results_*.json`` and ``samples_*.jsonl``, in it or in folders below it, such as
            what was given to ``lm_eval --output_path``.
        settings: The judge; its mode says which items it is asked about.

    Returns:
        What was done, task by task.

    Raises:
        NotJudgeable: There is nothing to judge, a file isn't as lm-eval and the tasks of sftkey wrote it, or the judge
            gave no verdict at all. Nothing has been written then.
        OSError: A file can't be read or written.
    """
    runs = _runs(results_dir)
    # All at once, so that the tail of one task doesn't leave the judge idle.
    found = judged([item for run in runs for samples in run.samples for item in samples.items], settings)
    sources = Counter(record["judge_source"] for record in found)
    if sources.keys() <= {None, "unresolved"} and sources["unresolved"]:
        reasons = Counter(record["judge_detail"] for record in found if record["judge_source"] == "unresolved")
        raise NotJudgeable(
            f"the judge {settings.model} at {settings.base_url} gave no verdict on any of {sources['unresolved']} "
            f"items, nothing was written: {reasons.most_common(1)[0][0]}"
        )
    records = iter(found)
    report = []
    for run in runs:
        judgements = {samples: [next(records) for _ in samples.items] for samples in run.samples}
        _write(run, judgements, settings)
        report += [_outcome(run, samples, judgement) for samples, judgement in judgements.items()]
    return report


def _runs(results_dir: Path) -> list[_Run]:
    runs = [run for path, samples in _find(results_dir) if (run := _read(path, samples)) is not None]
    if not runs:
        raise NotJudgeable(f"{results_dir}: no samples of sftkey's tasks in it; run lm_eval with --log_samples")
    return runs


def _find(results_dir: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each results file with the samples files that have the same date in their names and stand beside it."""
    if not results_dir.is_dir():
        raise NotJudgeable(f"{results_dir} is no folder; give the folder with results_*.json in it")
    found: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(results_dir.rglob("samples_*.jsonl")):
        found.setdefault((path.parent, path.stem.rpartition("_")[2]), []).append(path)
    for (folder, date), samples in found.items():
        candidates = sorted(path for path in folder.glob("*.json") if path.stem.endswith(f"_{date}"))
        if len(candidates) != 1:
            raise NotJudgeable(
                f"{samples[0]}: {len(candidates)} results files beside it that end in _{date}.json, expected 1"
            )
        yield candidates[0], samples


def _read(path: Path, sample_files: Sequence[Path]) -> _Run | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise NotJudgeable(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise NotJudgeable(f"{path} has no results; it is not a results file of lm-eval")
    samples: list[_Samples] = []
    date = path.stem.rpartition("_")[2]
    for file in sample_files:
        task = file.name.removeprefix("samples_").removesuffix(f"_{date}.jsonl")
        by_filter: dict[str, tuple[list[int], list[Item]]] = {}
        for number, sample in _lines(file):
            if not _OURS & sample.keys() and not by_filter:
                break  # the task is somebody else's
            lines, items = by_filter.setdefault(str(sample.get("filter")), ([], []))
            lines.append(number)
            items.append(_item(file, number, sample))
        for name, (lines, items) in by_filter.items():
            found = _Samples(file, task, name, tuple(lines), tuple(items))
            _check(path, content, found)
            samples.append(found)
    return _Run(path, content, tuple(samples)) if samples else None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                sample = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise NotJudgeable(f"{path}, line {number}: not JSON ({error}); was the run interrupted?") from None
            if not isinstance(sample, dict):
                raise NotJudgeable(f"{path}, line {number}: {type(sample).__name__} where an object is expected")
            yield number, sample


def _item(path: Path, number: int, sample: Mapping[str, Any]) -> Item:
    try:
        return item_of(sample)
    except (KeyError, ValueError, TypeError) as error:
        raise NotJudgeable(
            f"{path}, line {number}: {type(error).__name__} {error}; not logged by this version of sftkey, "
            "run the evaluation again"
        ) from None


def _check(path: Path, content: Mapping[str, Any], samples: _Samples) -> None:
    """Whether samples and results belong together, by a figure that no judge changes."""
    row = content["results"].get(samples.task)
    if not isinstance(row, dict):
        raise NotJudgeable(f"{path} has no results of {samples.task}, but samples of it are in {samples.path}")
    reported = row.get(f"fmt,{samples.filter}")
    counted = sum(item.format_failure is None for item in samples.items) / len(samples.items)
    if not isinstance(reported, (int, float)) or abs(reported - counted) > 1e-9:
        raise NotJudgeable(
            f"{path} reports fmt {reported} for {samples.task}, the {len(samples.items)} samples in {samples.path} "
            f"give {counted}: they don't belong together, or some are missing"
        )


def _outcome(run: _Run, samples: _Samples, records: Sequence[Record]) -> TaskJudgement:
    row = run.content["results"][samples.task]
    figures = aggregate(records)
    return TaskJudgement(
        run.path,
        samples.task,
        len(samples.items),
        sources=Counter(source for record in records if (source := record["judge_source"]) is not None),
        before={name: row[key] for name in _HEADLINE if (key := f"{name},{samples.filter}") in row},
        after={name: figures[name][0] for name in _HEADLINE},
    )


def _write(run: _Run, judgements: Mapping[_Samples, Sequence[Record]], settings: JudgeSettings) -> None:
    content = dict(run.content)
    content["results"] = results = {name: dict(row) for name, row in content["results"].items()}
    standard_errors = (content.get("config") or {}).get("bootstrap_iters", 1) > 0
    for samples, records in judgements.items():
        _update_row(results[samples.task], samples.filter, records, standard_errors)
    sizes = {task: counts.get("effective") for task, counts in (content.get("n-samples") or {}).items()}
    sizes |= {samples.task: len(samples.items) for samples in judgements}
    _update_groups(run, content, sizes)
    content["sftkey_judged_later"] = {
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "judge": settings.model,
        "mode": settings.mode.value,
    }

    replacements: list[tuple[Path, Path]] = []
    try:
        for path in dict.fromkeys(samples.path for samples in judgements):
            by_line = {
                number: record
                for samples, records in judgements.items()
                if samples.path == path
                for number, record in zip(samples.lines, records, strict=True)
            }
            lines = (_updated(sample, by_line[number]) for number, sample in _lines(path))
            replacements.append((_write_beside(path, (_dump(sample) + "\n" for sample in lines)), path))
        text = json.dumps(content, indent=2, ensure_ascii=False)
        replacements.append((_write_beside(run.path, [text]), run.path))
        for _, path in replacements:
            _back_up(path)
        for new, path in replacements:
            os.replace(new, path)
    finally:
        for new, _ in replacements:
            new.unlink(missing_ok=True)


def _update_row(row: dict[str, Any], filter_name: str, records: Sequence[Record], standard_errors: bool) -> None:
    figures = aggregate(records)
    for name in (*figures, "judge_cached", "judge_unresolved", "judge_agreement", "judge_kappa"):
        row.pop(f"{name},{filter_name}", None)
        row.pop(f"{name}_stderr,{filter_name}", None)
    for name, (value, error) in figures.items():
        row[f"{name},{filter_name}"] = value
        row[f"{name}_stderr,{filter_name}"] = error if error is not None and standard_errors else "N/A"


def _update_groups(run: _Run, content: dict[str, Any], sizes: Mapping[str, int | None]) -> None:
    """Aggregate the groups anew as lm-eval does, with the weights that gave their present figures."""
    from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr

    old, new = run.content["results"], content["results"]
    judged_tasks = {samples.task for samples in run.samples}
    groups = {name: dict(row) for name, row in (content.get("groups") or {}).items()}
    for group, row in groups.items():
        tasks = _members(content.get("group_subtasks") or {}, group)
        if not judged_tasks.intersection(tasks):
            continue
        for key in [key for key in row if "," in key and "_stderr," not in key]:
            members = [task for task in tasks if key in old.get(task, {})]
            counts = [sizes.get(task) for task in members]
            values = [old[task][key] for task in members]
            weights = next(
                (
                    by_size
                    for by_size in (False, True)
                    if members
                    and None not in counts
                    and abs(aggregate_subtask_metrics(values, counts, by_size) - row[key]) < 1e-9
                ),
                None,
            )
            error_key = "_stderr,".join(key.split(","))
            if weights is None:
                logger.warning(
                    "%s: %s of the group %s is no mean over its tasks and is left out; evaluate the group with the "
                    "judge at once to get it",
                    run.path,
                    key,
                    group,
                )
                row.pop(key)
                row.pop(error_key, None)
                continue
            row[key] = aggregate_subtask_metrics([new[task][key] for task in members], counts, weights)
            errors = [new[task].get(error_key) for task in members]
            if error_key in row:
                row[error_key] = "N/A" if "N/A" in errors else float(pooled_sample_stderr(errors, counts))
        if group in new:
            new[group] = {key: value for key, value in new[group].items() if "," not in key} | {
                key: value for key, value in row.items() if "," in key
            }
    if groups:
        content["groups"] = groups


def _members(subtasks: Mapping[str, Sequence[str]], group: str, depth: int = 0) -> list[str]:
    """The tasks in a group and in the groups in it."""
    members: list[str] = []
    for name in subtasks.get(group, []):
        if subtasks.get(name) and depth < 20:
            members += _members(subtasks, name, depth + 1)
        else:
            members.append(name)
    return members


def _updated(sample: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """A logged sample with another record and its metrics, as lm-eval writes them."""
    metrics = scores(record)
    stale = {*record, *sample.get("metrics", [])}
    kept = {key: value for key, value in sample.items() if key not in stale}
    return kept | {"metrics": list(metrics)} | record | metrics


def _dump(sample: Mapping[str, Any]) -> str:
    text = json.dumps(sample, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: kept as the escape that it was
        return json.dumps(sample)
    return text


def _write_beside(path: Path, parts: Iterator[str] | Sequence[str]) -> Path:
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return new


def _back_up(path: Path) -> None:
    """Keep the original, once: what later judging replaces is no original."""
    backup = path.with_name(path.name + BACKUP_SUFFIX)
    if backup.exists():
        return
    copy = path.with_name(f".{path.name}.{os.getpid()}.copy")
    try:
        shutil.copy2(path, copy)
        os.replace(copy, backup)
    finally:
        copy.unlink(missing_ok=True)
