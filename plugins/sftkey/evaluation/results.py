"""One evaluation: what lm-eval wrote about one task and one model, items included.

lm-eval 0.4.11 writes ``<output path>/<model name>/results_<date>.json`` and, with ``--log_samples``, beside it
``samples_<task>_<date>.jsonl`` with the same date.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sftkey.evaluation.verdicts import composite
from sftkey.format.tags import FormatFailure
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json, read_json_lines
from sftkey.util.text import shorten

METRICS = ("score", "acc", "fmt")
"""Score, Acc and Fmt of section 4, in the order of the report."""

MAX_TEXT = 12_000
"""Characters of a text that are kept; the middle of a longer one is left out."""

TASK_PREFIX, PLAIN_SUFFIX = "sftkey_", "_plain"

ITEM_COLUMNS = (
    "key", "doc_id", "question", "reference", "output", "extracted", "extraction", "failure", "verdict", "decided_by",
    "acc", "fmt", "score",
)  # fmt: skip

_RESULTS_NAME = re.compile(r"results_(\d{4}-\d{2}-\d{2}T[\d.-]+)\.json$")
_MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path")
_MAX_NAME = 1024
_QUESTION_FIELDS = ("question", "problem", "question_stem", "source", "prompt")


@dataclass(frozen=True)
class Evaluation:
    """One task on one model.

    Attributes:
        path: The results file.
        task: The task's name.
        data_set: The data set that it evaluates: the task's name without ``sftkey_`` and ``_plain``.
        plain: Whether the task expects the untagged form.
        model: The model as it was named to lm-eval; ``None`` where the file doesn't say.
        date: Seconds since the epoch, 0 where unknown.
        settings: What two evaluations must share for their figures to be comparable, by name.
        reported: Score, Acc and Fmt as lm-eval aggregated them.
        count: How many items lm-eval evaluated, where it says so.
        available: How many items the task has, where lm-eval says so; more than `count` with ``--limit``.
        items: One row per item, columns `ITEM_COLUMNS`; ``None`` where there are no samples that agree with `reported`.
    """

    path: Path
    task: str
    data_set: str
    plain: bool
    model: str | None
    date: float
    settings: Mapping[str, str]
    reported: Mapping[str, float]
    count: int | None
    available: int | None
    items: pd.DataFrame | None


def is_results_file(path: Path) -> bool:
    """Whether a file's name is one that lm-eval gives to aggregated results."""
    return path.name.startswith("results_") and path.suffix == ".json"


def read_evaluations(path: Path, ledger: Ledger) -> list[Evaluation]:
    """Read a results file and the samples beside it.

    Args:
        path: A ``results_<date>.json``.
        ledger: Takes what was read, skipped and noted.

    Returns:
        One evaluation for each task that has acc, fmt and score; groups are left out, their parts are in.
    """
    try:
        content = read_json(path)
        results = content.get("results")
        if not isinstance(results, dict):
            raise UnreadableFile("no results in it")
    except UnreadableFile as error:
        ledger.skip(path, "results", str(error))
        return []
    ledger.used(path, "results")
    groups = _mapping(content.get("group_subtasks"))
    evaluations, ignored = [], []
    for task, aggregated in results.items():
        if groups.get(task):
            continue
        reported = _reported(_mapping(aggregated))
        if reported is None or len(task) > _MAX_NAME:
            ignored.append(str(task)[:80])
        else:
            evaluations.append(_evaluation(path, task, content, reported, ledger))
    if ignored:
        ledger.note(f"{path}: no acc, fmt and score for {', '.join(ignored[:10])}; not a task of sftkey, left out.")
    return evaluations


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _reported(aggregated: Mapping[str, Any]) -> dict[str, float] | None:
    """The three metrics, whatever filter they were computed behind (``acc,none``)."""
    found: dict[str, float] = {}
    for key, value in aggregated.items():
        metric, _, kind = key.partition(",")
        figure = number(value)
        if metric in METRICS and not kind.endswith("_stderr") and figure is not None:
            found.setdefault(metric, figure)
    return found if len(found) == len(METRICS) else None


def _evaluation(
    path: Path, task: str, content: Mapping[str, Any], reported: dict[str, float], ledger: Ledger
) -> Evaluation:
    plain = task.endswith(PLAIN_SUFFIX)
    data_set = task.removeprefix(TASK_PREFIX).removesuffix(PLAIN_SUFFIX) or task
    config = _mapping(content.get("config"))
    samples = _mapping(_mapping(content.get("n-samples")).get(task))
    count, available = number(samples.get("effective")), number(samples.get("original"))
    items = _read_items(path, task, ledger)
    if items is not None:
        difference = max(abs(float(items[metric].mean()) - reported[metric]) for metric in METRICS)
        if difference > 1e-6 or (count is not None and int(count) != len(items)):
            ledger.note(
                f"{path}: {task} reports acc {reported['acc']:.4f} over {_whole(count)} items, its samples give "
                f"{items['acc'].mean():.4f} over {len(items)}; shown is what it reports, without intervals and tests."
            )
            items = None
    return Evaluation(
        path=path,
        task=task,
        data_set=data_set,
        plain=plain,
        model=_model(config, content),
        date=number(content.get("date")) or 0.0,
        settings=_settings(task, content, config, items),
        reported=reported,
        count=int(count) if count is not None else (len(items) if items is not None else None),
        available=int(available) if available is not None else None,
        items=items,
    )


def _whole(count: float | None) -> str:
    return "an unknown number of" if count is None else str(int(count))


def _model(config: Mapping[str, Any], content: Mapping[str, Any]) -> str | None:
    """The checkpoint that was evaluated, from ``model_args``, which is a string or a mapping."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        pairs = (part.partition("=") for part in arguments.split(","))
        arguments = {key.strip(): value.strip() for key, _, value in pairs}
    for key in _MODEL_ARGUMENTS:
        value = _mapping(arguments).get(key)
        if isinstance(value, str) and 0 < len(value) <= _MAX_NAME:
            return value
    name = content.get("model_name")
    return name if isinstance(name, str) and 0 < len(name) <= _MAX_NAME else None


def _settings(
    task: str, content: Mapping[str, Any], config: Mapping[str, Any], items: pd.DataFrame | None
) -> dict[str, str]:
    """What makes figures comparable. The chat template itself differs between methods by design and is not among it."""
    settings = {
        "lm-eval": content.get("lm_eval_version"),
        "task version": _mapping(content.get("versions")).get(task),
        "shots": _mapping(content.get("n-shot")).get(task),
        "chat template": "applied" if content.get("chat_template") else "not applied",
        "generation": config.get("gen_kwargs") or None,
    }
    if items is not None:
        modes = sorted(set(items.attrs.get("judge_modes", ())))
        if modes:
            settings["judge"] = " and ".join(modes)
    return {name: str(value)[:200] for name, value in settings.items() if value is not None}


def _read_items(path: Path, task: str, ledger: Ledger) -> pd.DataFrame | None:
    match = _RESULTS_NAME.match(path.name)
    samples = path.with_name(f"samples_{task}_{match.group(1)}.jsonl") if match else None
    if samples is None or samples.parent != path.parent or not samples.exists():
        ledger.note(f"{path}: no samples of {task} beside it; run lm_eval with --log_samples for intervals and tests.")
        return None
    records: list[dict[str, Any]] = []
    bad: list[str] = []
    modes: set[str] = set()
    seen: Counter[str] = Counter()
    first_filter: Any = None
    try:
        for line, sample in read_json_lines(samples):
            if isinstance(sample, UnreadableFile):
                bad.append(f"line {line}: {sample}")
                continue
            behind = sample.get("filter", first_filter)
            first_filter = behind if first_filter is None else first_filter
            if behind != first_filter:
                continue  # the same items once more, behind another filter
            item = _item(sample)
            if item is None:
                bad.append(f"line {line}: acc or fmt is missing or not a number between 0 and 1")
                continue
            # Two rows of a data set may hold the same question: the n-th in one run is the n-th in another.
            identity = item["key"]
            item["key"] = f"{identity}-{seen[identity]}"
            seen[identity] += 1
            modes.add(item.pop("judge_mode"))
            records.append(item)
    except UnreadableFile as error:
        ledger.skip(samples, "samples", str(error))
        return None
    if bad:
        shown = "; ".join(bad[:3]) + ("; ..." if len(bad) > 3 else "")
        ledger.note(f"{samples}: lines that can't be used: {len(bad)} ({shown}).")
    if not records:
        ledger.skip(samples, "samples", "no item in it can be used")
        return None
    ledger.used(samples, "samples")
    items = pd.DataFrame(records, columns=list(ITEM_COLUMNS))
    items.attrs["judge_modes"] = tuple(sorted(mode for mode in modes if mode))
    return items


def _item(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """One line of the samples: its metrics and the fields of `sftkey.evaluation.verdicts.Record` beside them."""
    acc, fmt = number(sample.get("acc")), number(sample.get("fmt"))
    if acc is None or fmt is None or not (0 <= acc <= 1 and 0 <= fmt <= 1):
        return None
    score = number(sample.get("score"))
    question = _string(sample.get("question")) or _question(sample.get("doc"))
    reference = _string(sample.get("reference")) or _string(sample.get("target"))
    return {
        "key": hashlib.blake2b(f"{question}\0{reference}".encode(), digest_size=16).hexdigest(),
        "doc_id": _string(sample.get("doc_id"))[:40],
        "question": shorten(question, MAX_TEXT),
        "reference": shorten(reference, MAX_TEXT),
        "output": shorten(_first_text(sample.get("resps")), MAX_TEXT),
        "extracted": shorten(_string(sample.get("extracted")), MAX_TEXT),
        "extraction": _string(sample.get("extraction"))[:80],
        "failure": _failure(sample),
        "verdict": _string(sample.get("verdict"))[:40],
        "decided_by": _string(sample.get("decided_by"))[:40],
        "judge_mode": _string(sample.get("judge_mode"))[:40],
        "acc": acc,
        "fmt": fmt,
        "score": composite(acc, fmt) if score is None else score,
    }


def _failure(sample: Mapping[str, Any]) -> str:
    """Why an output is not in the expected format: as recorded, else the one failure metric that is 1."""
    if "format_failure" in sample:
        return _string(sample["format_failure"])[:80]
    return next((kind.value for kind in FormatFailure if number(sample.get(f"fmt_{kind.name.lower()}")) == 1), "")


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) else ""


def _question(doc: Any) -> str:
    texts = {name: value for name, value in _mapping(doc).items() if isinstance(value, str)}
    named = [texts[name] for name in _QUESTION_FIELDS if name in texts]
    return named[0] if named else max(texts.values(), key=len, default="")


def _first_text(responses: Any) -> str:
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return _string(responses)


def values_of(items: pd.DataFrame, metric: str) -> np.ndarray:
    """One number per item, in the order of `items`."""
    return items[metric].to_numpy(dtype=np.float64)
