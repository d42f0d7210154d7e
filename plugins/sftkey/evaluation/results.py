"""The reader of lm-eval's results: figures from ``results_*.json`` at once, items from ``samples_*.jsonl`` on demand.

lm-eval 0.4.11 writes ``<output path>/<model name>/results_<date>.json`` and, with ``--log_samples``, beside it
``samples_<task>_<date>.jsonl`` with the same date. Nothing else keeps a copy of a metric.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkey.datasets.registry import DATASETS, dataset
from sftkey.evaluation.trained_model import opened_by
from sftkey.format import untagged
from sftkey.format.formats import FORMATS, THINK, THINKING_ANSWER
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json
from sftkey.util.text import is_plain_name, one_line, visible

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("score", "acc", "fmt")
"""Score, Acc and Fmt of section 4, in the order of the report."""

TASK_PREFIX, PLAIN_SUFFIX = "sftkey_", "_plain"

_OF_THE_JUDGE = (
    *("judged", "judge_fitness_kappa", "judge_sensitivity", "judge_specificity"),
    *("acc_corrected", "acc_corrected_low", "acc_corrected_high"),
)
_MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path")
_MAX_NAME = 1024


@dataclass(frozen=True)
class Evaluation:
    """One task, or group of tasks, on one model.

    Attributes:
        path: The results file.
        task: The task's name.
        group: Whether it is a group of tasks.
        model: The model as it was named to lm-eval; ``None`` where the file doesn't say.
        date: Seconds since the epoch, 0 where unknown.
        settings: What two evaluations must share for their figures to be comparable, by name.
        reported: Score, Acc and Fmt as lm-eval aggregated them, those of them that it has.
        count: How many items lm-eval evaluated, where it says so.
        available: How many items the task has, where lm-eval says so; more than `count` with ``--limit``.
        ledger: Takes what is found out when the items are read.
        data: What a stage's own data are called, where the task is that of own data; empty for all others.
        judge: The share of items that the judge decided, what was measured of it, and Acc corrected for its errors, by the
            metrics' names.
    """

    path: Path
    task: str
    group: bool
    model: str | None
    date: float
    settings: Mapping[str, str]
    reported: Mapping[str, float]
    count: int | None
    available: int | None
    ledger: Ledger = field(repr=False, compare=False)
    judge: Mapping[str, float] = field(default_factory=dict)
    data: str = ""

    @property
    def data_set(self) -> str:
        """The data set that it evaluates: the stage's own, or the task's name without ``sftkey_`` and ``_plain``."""
        return self.data or self.task.removeprefix(TASK_PREFIX).removesuffix(PLAIN_SUFFIX) or self.task

    @property
    def plain(self) -> bool:
        """Whether the task expects the untagged form."""
        return self.task.endswith(PLAIN_SUFFIX)

    @cached_property
    def items(self) -> pd.DataFrame | None:
        """One row per item, columns `sftkey.evaluation.samples.ITEM_COLUMNS`, read at the first access.

        ``None`` where there are no samples that agree with `reported`, which has all of `METRICS` then.
        """
        from sftkey.evaluation.samples import read_items

        samples = samples_of(self.path).get(self.task)
        if samples is None:
            self.ledger.note(
                f"{self.path}: no samples of {self.task} beside it; run lm_eval with --log_samples for intervals and tests."
            )
        items = read_items(samples, self.ledger, self.thinking) if samples is not None else None
        if items is None or len(self.reported) < len(METRICS):
            return None
        difference = max(abs(float(items[metric].mean()) - value) for metric, value in self.reported.items())
        if difference <= 1e-6 and self.count in (None, len(items)):
            return items
        count = "an unknown number of" if self.count is None else self.count
        self.ledger.note(
            f"{self.path}: {self.task} reports acc {self.reported['acc']:.4f} over {count} items, its samples give "
            f"{items['acc'].mean():.4f} over {len(items)}; shown is what it reports, without intervals and tests."
        )
        return None

    def answer(self, output: str, prompt: str = "") -> str | None:
        """The answer in an output, in a format that has a name; ``None`` where there is none."""
        if not self.plain:
            block = THINKING_ANSWER.find_answer_block(output)
            return block.text.strip() if block else THINK.parse(opened_by(prompt, THINK) + output).answer
        return untagged.parse(output, dataset(self.data_set).untagged).answer if self.data_set in DATASETS else None

    def thinking(self, output: str, prompt: str) -> str | None:
        """The thinking in an output; of an untagged one that is in the form of a data set that we know."""
        if not self.plain:
            found = (form.thinking_in(opened_by(prompt, form) + output) for form in FORMATS.values())
            return next((one for one in found if one is not None), None)
        return untagged.parse(output, dataset(self.data_set).untagged).thinking if self.data_set in DATASETS else None


def is_results_file(path: Path) -> bool:
    """Whether a file's name is one that lm-eval gives to aggregated results."""
    return path.name.startswith("results_") and path.suffix == ".json"


def results_of(samples: Path) -> list[Path]:
    """The results files that a file of samples may belong to: those beside it with the same date in their names."""
    date = samples.stem.rpartition("_")[2]
    return sorted(samples.parent.glob(f"*_{glob.escape(date)}.json"))


def samples_of(results: Path) -> dict[str, Path]:
    """The files of samples that belong to a results file, by task."""
    ending = f"_{results.stem.rpartition('_')[2]}.jsonl"
    found = sorted(results.parent.glob(f"samples_*{glob.escape(ending)}"))
    return {path.name.removeprefix("samples_").removesuffix(ending): path for path in found}


def read_content(path: Path) -> dict[str, Any]:
    """Read a results file as it is.

    Raises:
        UnreadableFile: It can't be read, isn't JSON, or has no results.
    """
    content = read_json(path)
    if not isinstance(content.get("results"), dict):
        raise UnreadableFile("no results in it")
    return content


def read_results(path: Path, ledger: Ledger | None = None) -> dict[str, Evaluation]:
    """Read the figures of a results file.

    Args:
        path: The file.
        ledger: For `Evaluation.ledger`.

    Returns:
        Every task and group in it, by name.

    Raises:
        UnreadableFile: See `read_content`.
    """
    content = read_content(path)
    ledger = ledger or Ledger()
    bad = [task for task in content["results"] if not is_plain_name(task)]
    if bad:
        shown = ", ".join(visible(repr(task[:60])) for task in bad[:5])
        ledger.note(f"{path}: {len(bad)} tasks with a name that no task can have are left out ({shown}).")
    return {task: _evaluation(path, task, content, ledger) for task in content["results"] if task not in bad}


def read_evaluations(path: Path, ledger: Ledger) -> list[Evaluation]:
    """Read the tasks of a results file that have Acc, Fmt and Score. Never raises because of what the file holds.

    Args:
        path: A ``results_<date>.json``.
        ledger: Takes what was read, skipped and noted.

    Returns:
        One evaluation per task; groups are left out, their parts are in.
    """
    try:
        tasks = [one for one in read_results(path, ledger).values() if not one.group]
    except UnreadableFile as error:
        ledger.skip(path, "results", str(error))
        return []
    ledger.used(path, "results")
    found = [one for one in tasks if len(one.reported) == len(METRICS)]
    ignored = [one.task[:80] for one in tasks if one not in found]
    if ignored:
        ledger.note(f"{path}: no acc, fmt and score for {', '.join(ignored[:10])}; not a task of sftkey, left out.")
    return found


def newest_evaluations(folder: Path, ledger: Ledger) -> list[Evaluation]:
    """Read the newest evaluation of each task below an output directory, but for those of its checkpoints.

    Args:
        folder: The output directory.
        ledger: As for `read_evaluations`.

    Returns:
        One evaluation per task, by the tasks' names.
    """
    found: list[Evaluation] = []
    for path in sorted(folder.rglob("results_*.json")):
        if not any(part.startswith("checkpoint-") for part in path.relative_to(folder).parts):
            found += read_evaluations(path, ledger)
    newest = {one.task: one for one in sorted(found, key=lambda one: one.date)}
    return [newest[task] for task in sorted(newest)]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _evaluation(path: Path, task: str, content: Mapping[str, Any], ledger: Ledger) -> Evaluation:
    row, config = _mapping(content["results"][task]), _mapping(content.get("config"))
    samples = _mapping(_mapping(content.get("n-samples")).get(task))
    count, available = number(samples.get("effective")), number(samples.get("original"))
    settings = {
        "lm-eval": content.get("lm_eval_version"),
        "task version": _mapping(content.get("versions")).get(task),
        "shots": _mapping(content.get("n-shot")).get(task),
        # The template itself differs between methods by design.
        "chat template": "applied" if content.get("chat_template") else "not applied",
        "generation": config.get("gen_kwargs") or None,
        "judge": _judge_mode(row),
        "judge model": _judge_model(task, content),
    }
    return Evaluation(
        path=path,
        task=task,
        group=bool(_mapping(content.get("group_subtasks")).get(task)),
        model=_model(config, content),
        date=number(content.get("date")) or 0.0,
        settings={name: one_line(str(value)[:200]) for name, value in settings.items() if value is not None},
        reported=_reported(row),
        count=int(count) if count is not None else None,
        available=int(available) if available is not None else None,
        ledger=ledger,
        judge=_reported(row, _OF_THE_JUDGE),
        data=_own_data(_mapping(_mapping(content.get("configs")).get(task)).get("metadata")),
    )


def _own_data(metadata: Any) -> str:
    """The path of own data as their task noted it."""
    named = _mapping(metadata).get("sftkey_data")
    return one_line(named[:_MAX_NAME]) if isinstance(named, str) else ""


def _reported(row: Mapping[str, Any], metrics: Collection[str] = METRICS) -> dict[str, float]:
    """Acc, Fmt and Score, or other metrics, whatever filter they were computed behind (``acc,none``)."""
    found: dict[str, float] = {}
    for key, value in row.items():
        metric, _, kind = key.partition(",")
        figure = number(value)
        if metric in metrics and not kind.endswith("_stderr") and figure is not None:
            found.setdefault(metric, figure)
    return found


def _judge_mode(row: Mapping[str, Any]) -> str | None:
    """The judge's mode, by the metrics that `sftkey.evaluation.verdicts.scores` has in it only."""
    metrics = {key.partition(",")[0] for key in row}
    modes = {"judge_agreement": "always", "judge_unresolved": "fallback", "judged": "off"}
    return next((mode for metric, mode in modes.items() if metric in metrics), None)


def _judge_model(task: str, content: Mapping[str, Any]) -> Any:
    """Who judged, while it was evaluated or later."""
    of_task = _mapping(_mapping(_mapping(content.get("configs")).get(task)).get("metadata")).get("judge")
    return {**_mapping(of_task), **_mapping(content.get("sftkey_judged_later"))}.get("judge")


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
