"""Add the judge's verdicts to the logged samples of an earlier evaluation, with the numbers of judging at once.

A judge of 70 B parameters then needn't share the GPUs with the model. `lm_eval --log_samples` logs for every item what
the rules saw; from that and the judge's verdict, samples and results are computed anew by the code that judges at once
(`sftkey.evaluation.judge.decide`, `sftkey.evaluation.verdicts`).

The files of an evaluation are replaced in place when all are written, each atomically and the results last. The
originals stay beside them, as ``<name>.before-judge``. Judging again starts from the rules' verdicts again: after an
interruption, or to ask about unresolved items, run it once more. The results get one new entry,
``sftkey_judged_later``: when, by which model and in which mode.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sftkey.evaluation.judge.client import in_cache
from sftkey.evaluation.judge.decide import judge_item, judged
from sftkey.evaluation.judge.settings import JudgeMode, JudgeSettings
from sftkey.evaluation.results import read_content, results_of, samples_of
from sftkey.evaluation.verdicts import METRICS, Item, Record, aggregate, item_of, needs_judge, scores
from sftkey.util.errors import UserError
from sftkey.util.files import replace_files
from sftkey.util.sources import UnreadableFile, read_json_lines

BACKUP_SUFFIX = ".before-judge"
"""What the name of an untouched original ends in."""

UpdateGroups = Callable[[Path, Mapping[str, Any], dict[str, Any], Mapping[str, int]], None]
"""`sftkey.evaluation.lm_eval_tasks.update_groups`, which is passed in because it imports lm-eval."""

_HEADLINE = ("acc", "fmt", "score")
_OURS = frozenset({"rule_verdict", "format_failure", "extraction"})  # a sample with any of these fields is sftkey's


class NotJudgeable(UserError):
    """Files that can't be judged. The message says which, why, and what to do."""


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
    lines: list[int]
    items: list[Item]


@dataclass(frozen=True, eq=False)
class _Results:
    """A results file and the samples beside it."""

    path: Path
    content: dict[str, Any]
    samples: list[_Samples]


def plan(results_dir: Path, mode: JudgeMode, settings: JudgeSettings | None = None) -> list[TaskPlan]:
    """Count what `rejudge` would ask about, without asking or writing anything.

    Args:
        results_dir: As for `rejudge`.
        mode: Which items the judge would be asked about.
        settings: The judge, to look into its cache; ``None`` counts nothing as cached.

    Raises:
        NotJudgeable: See `rejudge`.
    """
    plans = []
    for results in _read_all(results_dir):
        for samples in results.samples:
            needed = [judge_item(item) for item in samples.items if needs_judge(item, mode.value)]
            distinct = list(dict.fromkeys(needed))
            cached = sum(in_cache(distinct, settings)) if settings is not None else 0
            plans.append(TaskPlan(results.path, samples.task, len(samples.items), len(needed), len(distinct), cached))
    return plans


def rejudge(results_dir: Path, settings: JudgeSettings, update_groups: UpdateGroups) -> list[TaskJudgement]:
    """Add the judge's verdicts to the evaluations in a folder.

    Args:
        results_dir: A folder with ``results_*.json`` and ``samples_*.jsonl``, in it or in folders below it, such as
            what was given to ``lm_eval --output_path``.
        settings: The judge; its mode says which items it is asked about.
        update_groups: Aggregates the groups of tasks in a results file anew.

    Returns:
        What was done, task by task.

    Raises:
        NotJudgeable: There is nothing to judge, a file isn't as lm-eval and the tasks of sftkey wrote it, or the judge
            gave no verdict at all. Nothing has been written then.
    """
    found = _read_all(results_dir)
    # All at once, so that the tail of one task doesn't leave the judge idle.
    records = judged([item for results in found for samples in results.samples for item in samples.items], settings)
    sources = Counter(record["judge_source"] for record in records)
    if sources.keys() <= {None, "unresolved"} and sources["unresolved"]:
        reasons = Counter(record["judge_detail"] for record in records if record["judge_source"] == "unresolved")
        raise NotJudgeable(
            f"the judge {settings.model} at {settings.base_url} gave no verdict on any of {sources['unresolved']} "
            f"items, nothing was written: {reasons.most_common(1)[0][0]}"
        )
    remaining = iter(records)
    judgements = []
    for results in found:
        by_samples = [(samples, [next(remaining) for _ in samples.items]) for samples in results.samples]
        _write(results, by_samples, settings, update_groups)
        judgements += [_outcome(results, samples, records) for samples, records in by_samples]
    return judgements


def _read_all(results_dir: Path) -> list[_Results]:
    if not results_dir.is_dir():
        raise NotJudgeable(f"{results_dir} is no folder; give the folder with results_*.json in it")
    paths: dict[Path, None] = {}
    for samples in sorted(results_dir.rglob("samples_*.jsonl")):
        candidates = results_of(samples)
        if len(candidates) != 1:
            raise NotJudgeable(
                f"{samples}: {len(candidates)} results files beside it with the same date in their names, expected 1"
            )
        paths[candidates[0]] = None
    found = [results for path in paths if (results := _read(path)).samples]
    if not found:
        raise NotJudgeable(f"{results_dir}: no samples of sftkey's tasks in it; run lm_eval with --log_samples")
    return found


def _read(path: Path) -> _Results:
    try:
        results = _Results(path, read_content(path), [])
    except UnreadableFile as error:
        raise NotJudgeable(f"{path} is not JSON with results of lm-eval: {error}") from None
    for task, file in samples_of(path).items():
        by_filter: dict[str, _Samples] = {}
        for number, sample in _lines(file):
            if not _OURS & sample.keys() and not by_filter:
                break  # the task is somebody else's
            name = str(sample.get("filter"))
            samples = by_filter.setdefault(name, _Samples(file, task, name, [], []))
            samples.lines.append(number)
            samples.items.append(_item(file, number, sample))
        for samples in by_filter.values():
            _check(results, samples)
            results.samples.append(samples)
    return results


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for number, sample in read_json_lines(path, keep_surrogates=True):
            if isinstance(sample, UnreadableFile):
                raise NotJudgeable(
                    f"{path}, line {number}: not JSON as lm-eval writes it ({sample}); was the run interrupted?"
                )
            yield number, sample
    except UnreadableFile as error:
        raise NotJudgeable(f"{path} {error}") from None


def _item(path: Path, number: int, sample: Mapping[str, Any]) -> Item:
    try:
        return item_of(sample)
    except (KeyError, ValueError, TypeError) as error:
        raise NotJudgeable(
            f"{path}, line {number}: {type(error).__name__} {error}; not logged by this version of sftkey, "
            "run the evaluation again"
        ) from None


def _check(results: _Results, samples: _Samples) -> None:
    """Check that samples and results belong together, by a figure that no judge changes."""
    row = results.content["results"].get(samples.task)
    if not isinstance(row, dict):
        raise NotJudgeable(f"{results.path} has no results of {samples.task}, but samples of it are in {samples.path}")
    reported = row.get(f"fmt,{samples.filter}")
    counted = sum(item.format_failure is None for item in samples.items) / len(samples.items)
    if not isinstance(reported, (int, float)) or abs(reported - counted) > 1e-9:
        raise NotJudgeable(
            f"{results.path} reports fmt {reported} for {samples.task}, the {len(samples.items)} samples in "
            f"{samples.path} give {counted}: they don't belong together, or some are missing"
        )


def _outcome(results: _Results, samples: _Samples, records: Sequence[Record]) -> TaskJudgement:
    row, figures = results.content["results"][samples.task], aggregate(records)
    return TaskJudgement(
        results.path,
        samples.task,
        len(samples.items),
        sources=Counter(source for record in records if (source := record["judge_source"]) is not None),
        before={name: row[key] for name in _HEADLINE if (key := f"{name},{samples.filter}") in row},
        after={name: figures[name][0] for name in _HEADLINE},
    )


def _write(
    results: _Results,
    judgements: Sequence[tuple[_Samples, Sequence[Record]]],
    settings: JudgeSettings,
    update_groups: UpdateGroups,
) -> None:
    content = copy.deepcopy(results.content)
    standard_errors = (content.get("config") or {}).get("bootstrap_iters", 1) > 0
    by_line: dict[Path, dict[int, Record]] = {}
    for samples, records in judgements:
        _update_row(content["results"][samples.task], samples.filter, records, standard_errors)
        by_line.setdefault(samples.path, {}).update(zip(samples.lines, records, strict=True))
    if content.get("groups"):
        items = {samples.task: len(samples.items) for samples in results.samples}
        update_groups(results.path, results.content, content, items)
    content["sftkey_judged_later"] = {
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **settings.described,
    }
    new: dict[Path, Iterable[bytes]] = {path: _updated(path, of_line) for path, of_line in by_line.items()}
    new[results.path] = [json.dumps(content, indent=2, ensure_ascii=False).encode()]
    # The original is kept once: what later judging replaces is no original.
    backups = {backup: path for path in new if not (backup := path.with_name(path.name + BACKUP_SUFFIX)).exists()}
    replace_files({backup: _bytes(path) for backup, path in backups.items()} | new)


def _update_row(row: dict[str, Any], filter_name: str, records: Sequence[Record], standard_errors: bool) -> None:
    for name in METRICS:
        row.pop(f"{name},{filter_name}", None)
        row.pop(f"{name}_stderr,{filter_name}", None)
    for name, (value, error) in aggregate(records).items():
        row[f"{name},{filter_name}"] = value
        row[f"{name}_stderr,{filter_name}"] = error if error is not None and standard_errors else "N/A"


def _updated(path: Path, records: Mapping[int, Record]) -> Iterator[bytes]:
    """The logged samples with other records and their metrics, as lm-eval writes them."""
    for number, sample in _lines(path):
        record, metrics = records[number], scores(records[number])
        stale = {*record, *sample.get("metrics", [])}
        kept = {key: value for key, value in sample.items() if key not in stale}
        line = json.dumps(kept | {"metrics": list(metrics)} | record | metrics, ensure_ascii=False)
        yield line.encode("utf-8", "backslashreplace") + b"\n"  # a lone surrogate stays the JSON escape that it was


def _bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
