"""A user's own rows as a benchmark: what the four published data sets have in `sftkey.evaluation.assess`."""

from __future__ import annotations

from dataclasses import replace

from sftkey.datasets.base import ReasoningDataset
from sftkey.evaluation.assess import Benchmark, benchmark
from sftkey.evaluation.rules.answers import AnswerKind


def benchmark_of(dataset: ReasoningDataset, kind: AnswerKind | None = None) -> Benchmark:
    """A data set as it is evaluated, published or the user's own.

    Args:
        dataset: Where the rows come from.
        kind: What the answers of the user's own rows are. Default: free text, which knows numbers and lone letters,
            too. Of a published data set the kind is known.

    Raises:
        ValueError: A kind for a published data set, or multiple choice, for which own rows have no options column.
    """
    try:
        published = benchmark(dataset.name)
    except KeyError:
        published = None
    if published is not None:
        if kind not in (None, published.kind):
            raise ValueError(f"the answers of {dataset.name} are of the kind {published.kind.value}")
        return published
    if kind is AnswerKind.OPTION:
        raise ValueError("own rows have no options; their answers are number, maths or text")
    own = replace(
        dataset,
        # Rows to ask need no thinking.
        question=dataset.question or (lambda row: dataset.to_example(row).question),
        reference=dataset.reference or (lambda row: dataset.to_example(row).answer),
    )
    return Benchmark(own, kind or AnswerKind.TEXT, ())
