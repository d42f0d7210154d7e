"""The adapter to lm-evaluation-harness, the only file that imports it: the tasks' class, documents, filter and metrics.

A task is three lines of YAML; `SFTKeyTask` derives the rest, and a key that is given wins::

    class: !function utils.SFTKeyTask
    task: my_svamp
    dataset: my_lab.svamp
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftkey.datasets.base import ReasoningDataset, Row
from sftkey.datasets.registry import find_dataset
from sftkey.evaluation.assess import assess
from sftkey.evaluation.conversations import AsksWithHistory
from sftkey.evaluation.documents import documents
from sftkey.evaluation.judge.decide import judged
from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.evaluation.own_rows import OWN, data_of_task, model_arguments, rows_of_model
from sftkey.evaluation.sample_log import JudgedAnswer, metrics
from sftkey.evaluation.task_files import members_of
from sftkey.evaluation.task_log import log_summary
from sftkey.evaluation.trained_model import Expected, named_format
from sftkey.evaluation.training_prompt import system_message
from sftkey.evaluation.verdicts import AGGREGATIONS, METRICS
from sftkey.format.formats import THINKING_ANSWER
from sftkey.util.errors import UserError
from sftkey.util.extras import extra

with extra("eval"):
    import lm_eval.evaluator
    from lm_eval.api.filter import Filter
    from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

# Below lm-eval's own logger, whose messages it shows.
logger = logging.getLogger("lm_eval.tasks.sftkey")


class SFTKeyTask(AsksWithHistory, ConfigurableTask):
    """A task on a `ReasoningDataset`.

    Its YAML file has ``class``, ``task`` and ``dataset``: the name of a shipped data set, ``own`` for that of the evaluated
    stage's recipe, ``columns`` (with ``columns`` and ``answers``, as ``sftkey_columns`` and ``sftkey_answers`` in recipes) or
    ``messages`` for other own rows, or a dotted module with a `ReasoningDataset`. With ``plain: true`` the expected format is
    the data set's own form in place of the tags, otherwise ``format`` says what it is, as ``sftkey_format`` in a recipe does,
    by default that of the model; with ``training_prompt: true`` the prompt of the training is sent as system message. Rows
    that are not published need ``dataset_path`` and ``dataset_kwargs``; any other key of lm-eval's wins.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Create the task from its YAML file, whose ``class`` key brought lm-eval here.

        Raises:
            UserError: There is no such data set, or it's unknown where its rows are or which of them are for evaluation.
        """
        _adapt_lm_eval()
        # A mistake in the judge's settings has to show now, not when hours of generation are over.
        judge = JudgeSettings.from_environment()
        self._dataset: str | None = config.get("dataset")
        self._own = rows_of_model(model_arguments(TaskManager)) if self._dataset == OWN else None
        self._on = self._own.on if self._own else data_of_task(config, find_dataset) if self._dataset else None
        self._plain, self._training_prompt = (bool(config.get(key)) for key in ("plain", "training_prompt"))
        self._expected = Expected()
        if config.get("format") is not None:
            self._expected.response_format = named_format(config["format"], f"task {config.get('task')}: format")
        derived = _derived(config, self._on, self._expected, judge) if self._on else _without(config, "class")
        if self._own:
            derived["metadata"] |= {"sftkey_data": self._own.name, "sftkey_answers": self._own.on.kind.value}
        super().__init__(config=derived)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the rows; those of a stage's own data are there already."""
        if self._own is None:
            super().download(dataset_kwargs, **kwargs)
        else:
            self.dataset = {self.config.test_split: self._own.rows}

    def test_docs(self) -> Any:
        """The documents, chosen once."""
        if not hasattr(self, "_chosen_docs"):
            docs = super().test_docs()
            chosen = self._own is not None or self.config.process_docs is not None
            self._chosen_docs = docs if chosen or self._on is None else documents(docs, self._on)
        return self._chosen_docs

    def build_all_requests(
        self,
        *,
        apply_chat_template: bool = False,
        system_instruction: str | None = None,
        chat_template: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the requests, with the training prompt where it was asked for; see lm-eval."""
        if apply_chat_template and chat_template is not None and not self._plain:
            self._expected.look_at(chat_template)
        super().build_all_requests(
            apply_chat_template=apply_chat_template,
            system_instruction=system_message(
                str(self.config.task),
                plain=self._plain,
                wanted=self._training_prompt,
                given=system_instruction,
                response_format=self._expected.response_format or THINKING_ANSWER,
                render=chat_template if apply_chat_template else None,
            ),
            chat_template=chat_template,
            **kwargs,
        )


def _derived(
    config: Mapping[str, Any], data: ReasoningDataset, expected: Expected, judge: JudgeSettings | None
) -> dict[str, Any]:
    """The whole configuration of a task that names its data set."""
    name = str(config["dataset"])
    if data.path is None and name != OWN and not config.get("dataset_path"):
        raise UserError(
            f"task {config.get('task')}: the rows of data set {name} are not published; say where they are, as in "
            "`dataset_path: json` and `dataset_kwargs: {data_files: {test: my_rows.jsonl}}`"
        )
    if data.evaluation_split is None and not config.get("test_split"):
        raise UserError(
            f"task {config.get('task')}: data set {name} has no test split and holds no rows out, so its training rows "
            "would be evaluated; say which split to evaluate, as in `test_split: test`"
        )
    own = _without(config, "class", "dataset", "plain", "format", "training_prompt", "columns", "answers")
    plain = {"plain": True} if config.get("plain") else {"expected": expected}
    # A results file holds it, and a name says more there than a data set's functions.
    named = name if not {"columns", "answers"} & config.keys() and name != OWN else lambda: data
    filter_of = {"function": Verdicts, "dataset": named, "task": config.get("task", ""), **plain}
    published: dict[str, Any] = (
        {} if "dataset_path" in own or name == OWN else {"dataset_path": data.path, "dataset_name": data.config}
    )
    if published and data.revision:
        published["dataset_kwargs"] = {"revision": data.revision}
    return {
        **published,
        "output_type": "generate_until",
        "num_fewshot": 0,
        "test_split": data.evaluation_split,
        "doc_to_text": data.question or data.question_of,
        "doc_to_target": data.reference or data.reference_of,
        "filter_list": [{"name": "none", "filter": [filter_of]}],
        "process_results": metrics,
        "metric_list": [
            {"metric": metric, "aggregation": AGGREGATIONS.get(metric, "mean"), "higher_is_better": higher}
            for metric, higher in METRICS.items()
        ],
        **own,
        # Results hold it, so they say who judged; lm-eval adds its own arguments to the file's.
        "metadata": {"version": 1, **({"judge": judge.described} if judge else {}), **(own.get("metadata") or {})},
        "generation_kwargs": {
            # No stop string: lm-eval drops it from the output, and the end of the turn ends a trained model's answer.
            "until": [],
            "do_sample": False,
            "max_gen_toks": data.response_len,
            **(own.get("generation_kwargs") or {}),
        },
    }


def _without(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def _adapt_lm_eval() -> None:
    """Change in lm-eval, once, what no setting of it changes.

    - It shows what is logged below its own logger, so what the judge reports goes there.
    - While it aggregates a group, lm-eval 0.4.11 (not 0.4.12 and later) removes the metric called ``score`` from each
      member that has others, a rule made for LongBench (its pull request 3359). Ours is put back, for our tasks only:
      they have `thinking_valid`.
    """
    logging.getLogger("sftkey.evaluation").parent = logger
    original = getattr(lm_eval.evaluator, "consolidate_group_results", None)
    if original is None or getattr(original, "keeps_sftkey_score", False):
        return

    def consolidate(results: Any, *args: Any, **kwargs: Any) -> Any:
        kept = {
            task: {metric: value for metric, value in row.items() if metric.startswith(("score,", "score_stderr,"))}
            for task, row in results.items()
            if any(metric.startswith("thinking_valid,") for metric in row)
        }
        consolidated = original(results, *args, **kwargs)
        for task, figures in kept.items():
            consolidated[0][task].update(figures)
        return consolidated

    consolidate.keeps_sftkey_score = True  # type: ignore[attr-defined]
    lm_eval.evaluator.consolidate_group_results = consolidate


class Verdicts(Filter):
    """Turns every output of a task into an answer with its verdict. The judge is asked about all of them at once."""

    def __init__(
        self, dataset: Any, plain: bool = False, expected: Expected | None = None, task: str = "", **kwargs: Any
    ) -> None:
        """Take the filter's settings from the YAML file.

        Args:
            dataset: A name or module that `find_dataset` knows, or a function that gives the data set.
            plain: Whether the expected format is the data set's untagged form.
            expected: The format where it isn't, shared with the task, which learns it from the model.
            task: The task's name, for the log; by default after the data set.
            **kwargs: For lm-eval.
        """
        super().__init__(**kwargs)
        self.dataset: str | Callable[[], ReasoningDataset] = dataset
        self.task, self.plain = task, plain
        self.expected = expected or Expected()

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[Row]) -> list[JudgedAnswer]:
        """Assess the first output to each document.

        Args:
            resps: For each document the model's outputs, of which the first counts.
            docs: The documents; each gets an answer, in their order.
        """
        on = find_dataset(self.dataset) if isinstance(self.dataset, str) else self.dataset()
        items = [
            assess(
                outputs[0] if outputs else None,
                row,
                on,
                plain=self.plain,
                response_format=self.expected.response_format or THINKING_ANSWER,
                opened=self.expected.opened,
            )
            for outputs, row in zip(resps, docs, strict=True)
        ]
        records = judged(items, JudgeSettings.from_environment())
        log_summary(self.task or f"sftkey_{on.name}{'_plain' if self.plain else ''}", records)
        return [JudgedAnswer.of(record) for record in records]


def task_manager(include_path: str | None, defaults: bool) -> TaskManager:
    """The tasks of a folder and, with `defaults`, all of lm-eval's."""
    return TaskManager(include_path=include_path, include_defaults=defaults)


def update_groups(path: Path, old: Mapping[str, Any], new: dict[str, Any], items: Mapping[str, int]) -> None:
    """Aggregate the groups of a results file anew, as lm-eval does, with the weights that gave their figures before.

    A figure of a group that is no mean over its tasks is left out, with a warning.

    Args:
        path: The results file, for the warning.
        old: Its content.
        new: Its content with other figures of tasks. Changed in place.
        items: Number of items of each judged task; the file may not give it.
    """
    before, after = old["results"], new["results"]
    sizes = {task: counts.get("effective") for task, counts in (new.get("n-samples") or {}).items()}
    sizes.update(items)
    for group, row in new.get("groups", {}).items():
        tasks = members_of(new.get("group_subtasks") or {}, group)
        if all(before.get(task) == after.get(task) for task in tasks):
            continue
        for key in [key for key in row if "," in key and "_stderr," not in key]:
            members = [task for task in tasks if key in before.get(task, {})]
            counts = [sizes.get(task) for task in members]
            by_size = _weighted(row[key], [before[task][key] for task in members], counts)
            error_key = key.replace(",", "_stderr,", 1)
            if by_size is None:
                logger.warning(
                    "%s: %s of the group %s is no mean over its tasks and is left out; evaluate the group with the judge "
                    "at once to get it",
                    path,
                    key,
                    group,
                )
                del row[key]
                row.pop(error_key, None)
                continue
            row[key] = aggregate_subtask_metrics([after[task][key] for task in members], counts, by_size)
            errors = [after[task].get(error_key) for task in members]
            if error_key in row:
                row[error_key] = "N/A" if "N/A" in errors else float(pooled_sample_stderr(errors, counts))
        if group in after:
            after[group] = {key: value for key, value in after[group].items() if "," not in key} | {
                key: value for key, value in row.items() if "," in key
            }


def _weighted(figure: float, values: list[float], counts: list[int | None]) -> bool | None:
    """Whether a group's figure is the mean of its tasks' weighted by size; ``None`` where it is no mean of them."""
    if not values or None in counts:
        return None
    means = {by_size: aggregate_subtask_metrics(values, counts, by_size) for by_size in (False, True)}
    return next((by_size for by_size, mean in means.items() if abs(mean - figure) < 1e-9), None)
