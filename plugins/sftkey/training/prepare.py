"""Rows -> an Arrow data set of tokens, labels and segments: what a trainer reads, whichever front end it has."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Sequence, Value
from datasets.fingerprint import Hasher

from sftkey.datasets.registry import source_of
from sftkey.training.rows import RowTokenizer
from sftkey.training.tokenization import TokenizedBatch
from sftkey.util.version import __version__

BATCH_ROWS = 1_000
BATCH_BYTES = 256 * 2**20

ROWS_PER_WORKER = 25_000
"""From this many rows on for each of them, worker processes pay for their start (a copy of the tokenizer each).

Below, one process with the tokenizer's own threads is faster.
"""

FEATURES = Features(
    {
        "input_ids": Sequence(Value("int32")),
        "attention_mask": Sequence(Value("int8")),
        "labels": Sequence(Value("int64")),
        "segments": Sequence(Value("int8")),
    }
)
"""The columns of prepared data."""

# `hf://datasets/openai/gsm8k@<commit>/main/...`, and in the Hub's cache `.../snapshots/<commit>/...`.
_COMMIT = re.compile(r"^hf://datasets/[^@]+@([0-9a-f]{40})/|/snapshots/([0-9a-f]{40})/")


def prepare(
    rows: Dataset, tokenize: RowTokenizer, *, workers: int | None = None, keep_in_memory: bool = False
) -> tuple[Dataset, Counter[str]]:
    """Tokenise a data set.

    Args:
        rows: The rows as published.
        tokenize: How a row becomes tokens, labels and segments.
        workers: At most so many worker processes, each with `ROWS_PER_WORKER` rows or more; 1 for this process and one
            thread, None for this process and the tokenizer's threads.
        keep_in_memory: Keep the result in memory instead of an Arrow file.

    Returns:
        The rows that are kept, in order, with the columns of `FEATURES`; and the number of rows skipped for each
        reason.

    Raises:
        KeyError: The rows lack a column; the message names it and those that they have.
    """
    processes = min(workers or 1, len(rows) // ROWS_PER_WORKER)
    with tempfile.TemporaryDirectory() as counts, tokenizer_threads(processes < 2 and workers != 1):
        prepared = rows.map(
            _tokenize_batch,
            fn_kwargs={"tokenize": tokenize, "counts": counts},
            batched=True,
            batch_size=batch_rows(rows),
            num_proc=processes if processes > 1 else None,
            remove_columns=list(rows.column_names),
            features=FEATURES,
            keep_in_memory=keep_in_memory,
            # A cache would outlive a change of this package's code.
            load_from_cache_file=False,
            new_fingerprint=fingerprint(rows, tokenize),
            desc="Tokenizing segments",
        )
        return prepared, _sum_counts(Path(counts))


def batch_rows(rows: Dataset) -> int:
    """How many rows to read at a time: `BATCH_ROWS`, or fewer of rows so large that they would fill the memory."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * len(rows) // max(1, rows.data.nbytes)))


def fingerprint(rows: Dataset, tokenize: RowTokenizer) -> str:
    """Name what the tokens, labels and segments of a data set depend on, for the caches that `datasets` derives from them.

    `datasets` would pickle the whole `RowTokenizer` instead, which takes as long as tokenising 4,000 rows.
    """
    tokenizer = tokenize.tokenizer
    to_example: Any = tokenize.dataset.to_example
    while isinstance(to_example, partial):
        to_example = to_example.func
    return Hasher.hash(
        [
            rows._fingerprint,
            __version__,
            tokenize.dataset,
            source_of(to_example.__module__),
            tokenize.evaluation,
            tokenize.sequence_len,
            tokenizer.method.name,
            sorted(tokenizer.method.trained),
            # By itself: as the same object as in the data set it would be pickled as a reference to that.
            Hasher.hash(tokenizer.untagged),
            tokenizer.prompt(""),
            tokenizer.tokenizer.backend_tokenizer.to_str(),
        ]
    )


def describe_counts(used: int, skipped: Mapping[str, int]) -> str:
    """Say how many rows are used, and how many are skipped for each reason."""
    if not skipped:
        return f"{used} rows used, none skipped"
    return f"{used} rows used, {sum(skipped.values())} skipped ({describe_skipped(skipped)})"


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """List the reasons for skipping rows, the most frequent first."""
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items(), key=lambda item: -item[1]))


def hub_commit(rows: Dataset) -> str | None:
    """Find the commit of the Hub repository that rows are from; None where they are from elsewhere.

    Args:
        rows: What `datasets` loaded: it notes the files that it read, with the commit in their addresses or paths.
    """
    files = getattr(rows.info, "download_checksums", None) or {}
    commits = {found[1] or found[2] for found in map(_COMMIT.search, files) if found}
    return commits.pop() if len(commits) == 1 else None


@contextmanager
def tokenizer_threads(wanted: bool) -> Iterator[None]:
    """Let a tokenizer use its threads, which a front end may have turned off for the sake of forked processes.

    The setting is put back afterwards, so that processes forked later find it as it was.
    """
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    if wanted:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if wanted:
            # Never unset: a process forked after threads were used must not use them.
            os.environ["TOKENIZERS_PARALLELISM"] = before or "false"


def _tokenize_batch(batch: Mapping[str, list[Any]], tokenize: RowTokenizer, counts: str) -> pa.Table:
    columns = list(batch)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    tokenized, skipped = tokenize.batch(rows)
    if skipped:
        # Through a file, because the batch may be in a worker process; one file for each, so that none waits.
        with (Path(counts) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(skipped) + "\n")
    return _arrow_table(tokenized)


def _arrow_table(batch: TokenizedBatch) -> pa.Table:
    """The flat arrays as columns of lists; nothing is copied."""
    offsets = pa.array(np.concatenate(([0], np.cumsum(batch.lengths))), type=pa.int32())
    columns = (batch.input_ids, np.ones(len(batch.input_ids), dtype=np.int8), batch.labels, batch.segments)
    arrays = [pa.ListArray.from_arrays(offsets, pa.array(column)) for column in columns]
    return pa.Table.from_arrays(arrays, schema=FEATURES.arrow_schema)


def _sum_counts(folder: Path) -> Counter[str]:
    total: Counter[str] = Counter()
    for path in folder.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            total.update(json.loads(line))
    return total
