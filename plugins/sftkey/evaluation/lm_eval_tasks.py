"""The seam to lm-evaluation-harness: what the YAML files in ``tasks`` name by ``!function``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import lm_eval.evaluator
from lm_eval.api.filter import Filter
from lm_eval.api.task import ConfigurableTask

from sftkey.datasets.base import ReasoningDataset, Row
from sftkey.datasets.holdout import problem_key
from sftkey.datasets.registry import find_dataset
from sftkey.evaluation.assess import assess
from sftkey.evaluation.judge.client import JudgeSettings
from sftkey.evaluation.judge.decide import judged
from sftkey.evaluation.verdicts import DecidedBy, Record, RuleVerdict, scores
from sftkey.format.example import SkippedRow
from sftkey.format.tags import FormatFailure

# lm-eval shows what is logged below its own name; what the judge reports belongs there too.
logger = logging.getLogger("lm_eval.tasks.sftkey")
logging.getLogger("sftkey.evaluation").parent = logger

_warned_without_chat_template = False


class SFTKeyTask(ConfigurableTask):
    """A task that notices when it is run without the chat template, and reads its documents once."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Create the task from its YAML file, whose ``class`` key brought lm-eval here."""
        _keep_score_of_group_members()
        # A mistake in the judge's settings has to show now, not when hours of generation are over.
        JudgeSettings.from_environment()
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def test_docs(self) -> Any:
        """The documents, as chosen by ``process_docs``; lm-eval asks for them again and again."""
        if not hasattr(self, "_chosen_docs"):
            self._chosen_docs = super().test_docs()
        return self._chosen_docs

    def build_all_requests(self, *, apply_chat_template: bool = False, **kwargs: Any) -> None:
        """Build the requests; see lm-eval."""
        global _warned_without_chat_template
        if not apply_chat_template and not _warned_without_chat_template:
            _warned_without_chat_template = True
            logger.warning(
                "%s is run without --apply_chat_template: the model gets the bare question, without the prompt that it "
                "was trained with. Add --apply_chat_template, or the scores say nothing about the training.",
                self.config.task,
            )
        super().build_all_requests(apply_chat_template=apply_chat_template, **kwargs)


def _keep_score_of_group_members() -> None:
    """Keep lm-eval from dropping ``score`` of a task that is run as part of a group.

    While it aggregates a group, lm-eval 0.4.11 removes the metric called ``score`` from each member that has others, a
    rule made for LongBench (its pull request 3359). Ours is put back, for our tasks only.
    """
    original = getattr(lm_eval.evaluator, "consolidate_group_results", None)
    if original is None or getattr(original, "keeps_sftkey_score", False):
        return

    def consolidate(results: Any, *args: Any, **kwargs: Any) -> Any:
        kept = {
            task: {metric: value for metric, value in metrics.items() if metric.startswith(("score,", "score_stderr,"))}
            for task, metrics in results.items()
            if task.startswith("sftkey_")
        }
        consolidated = original(results, *args, **kwargs)
        for task, metrics in kept.items():
            consolidated[0][task].update(metrics)
        return consolidated

    consolidate.keeps_sftkey_score = True  # type: ignore[attr-defined]
    lm_eval.evaluator.consolidate_group_results = consolidate


def documents(docs: Any, dataset: str) -> Any:
    """The rows that a task asks about: of data without a test split the held-out ones, each distinct problem once.

    Args:
        docs: A split, as ``datasets.Dataset``.
        dataset: What `find_dataset` knows it by.

    Returns:
        The chosen rows with the columns that evaluation needs. Rows without question or reference are left out, counted
        and logged by reason.

    Raises:
        ValueError: No row is left.
    """
    on = find_dataset(dataset)
    published = len(docs)
    if on.columns:
        docs = docs.select_columns([column for column in on.columns if column in docs.column_names])
    if on.held_out is not None:
        docs = docs.filter(on.held_out, desc=f"{dataset}: held-out rows")
    chosen, left_out = _choose(docs, on)
    if not chosen:
        raise ValueError(
            f"{dataset}: no row to evaluate among {published}: "
            + (", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none is held out")
        )
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        logger.info("%s: %d rows are evaluated, left out: %s", dataset, len(chosen), reasons)
    return docs.select(chosen)


def _choose(docs: Iterable[Row], on: ReasoningDataset) -> tuple[list[int], Counter[str]]:
    chosen: list[int] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for index, row in enumerate(docs):
        try:
            question = on.question_of(row)
            on.reference_of(row)
        except SkippedRow as skipped:
            left_out[skipped.reason] += 1
            continue
        if on.held_out is not None:
            problem = problem_key(question)
            if problem in seen:
                left_out["duplicate"] += 1
                continue
            seen.add(problem)
        chosen.append(index)
    return chosen, left_out


class JudgedAnswer(str):
    """The extracted answer of an output, as lm-eval logs a filtered response, with the record of its verdict.

    Attributes:
        record: What `sftkey.evaluation.verdicts.decide` returned.
    """

    record: Record

    @classmethod
    def of(cls, record: Record) -> JudgedAnswer:
        """Wrap a record."""
        answer = cls(record["extracted"] or "")
        answer.record = record
        return answer


class Verdicts(Filter):
    """Turns every output of a task into an answer with its verdict. The judge is asked about all of them at once."""

    def __init__(self, dataset: str, plain: bool = False, **kwargs: Any) -> None:
        """Take the filter's settings from the YAML file.

        Args:
            dataset: What `find_dataset` knows it by.
            plain: Whether the expected format is the data set's untagged form.
            **kwargs: For lm-eval.
        """
        super().__init__(**kwargs)
        self.dataset = dataset
        self.plain = plain

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[Row]) -> list[JudgedAnswer]:
        """Assess the first output to each document.

        Args:
            resps: For each document the model's outputs, of which the first counts.
            docs: The documents.

        Returns:
            One answer for each document, in their order.
        """
        on = find_dataset(self.dataset)
        items = [
            assess(outputs[0] if outputs else None, row, on, plain=self.plain)
            for outputs, row in zip(resps, docs, strict=True)
        ]
        records = judged(items, JudgeSettings.from_environment())
        _report(f"sftkey_{self.dataset}{'_plain' if self.plain else ''}", records)
        return [JudgedAnswer.of(record) for record in records]


def _report(task: str, records: Sequence[Record]) -> None:
    by = Counter(record["decided_by"] for record in records)
    undecided = sum(record["verdict"] == RuleVerdict.CANT_TELL.value for record in records)
    over_limit = sum(record["over_limit"] for record in records)
    mode = records[0]["judge_mode"] if records else "off"
    logger.info(
        "%s: %d items, decided by rules %d, judge %d, cached verdicts of the judge %d; "
        "undecided, counted as not correct: %d; over the limits of the rules: %d%s",
        task,
        len(records),
        by[DecidedBy.RULE.value] - undecided,
        by[DecidedBy.JUDGE.value],
        by[DecidedBy.CACHE.value],
        undecided,
        over_limit,
        "; rules only, no judge (set SFTKEY_JUDGE_BASE_URL for one)" if mode == "off" else "",
    )
    cut_off = sum(record["format_failure"] == FormatFailure.THINKING_CUT_OFF.value for record in records)
    if cut_off:
        logger.warning(
            "%s: in %d of %d outputs the thinking is opened and never closed, usually because the token limit cut it "
            "off; raise it with --gen_kwargs max_gen_toks=N",
            task,
            cut_off,
            len(records),
        )
    no_thinking = sum(not record["thinking_valid"] for record in records) - cut_off
    if no_thinking > len(records) / 10:
        logger.warning(
            "%s: %d of %d outputs have no thinking, or an empty one (metrics thinking_valid, fmt_no_thinking, "
            "fmt_empty_thinking)",
            task,
            no_thinking,
            len(records),
        )


class ItemMetrics(dict[str, Any]):
    """The metrics of one item, with the fields of its record beside them for the log.

    lm-eval writes to its sample log all that `process_results` returned, and aggregates the same, which texts can't be.
    Here the log gets everything, and who goes through the entries gets the metrics only.
    """

    def __init__(self, record: Record) -> None:
        """Compute the metrics of a record."""
        self._metrics = scores(record)
        super().__init__(record | self._metrics)

    def keys(self) -> Any:
        """The names of the metrics."""
        return self._metrics.keys()

    def items(self) -> Any:
        """The metrics."""
        return self._metrics.items()


def metrics(doc: Row, results: Sequence[JudgedAnswer]) -> ItemMetrics:
    """The metrics of one item, for ``process_results``.

    Args:
        doc: The document; not needed, the record has everything.
        results: The one answer that `Verdicts` made of the output.
    """
    return ItemMetrics(results[0].record)
