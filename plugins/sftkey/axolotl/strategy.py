"""The dataset strategy that Axolotl runs for ``type: sftkey.datasets.<name>``: rows -> tokens, labels, segments."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from axolotl.prompt_tokenizers import DatasetWrappingStrategy
from axolotl.utils.logging import get_logger
from datasets import Features, Sequence, Value
from datasets.fingerprint import Hasher

from sftkey.datasets.base import ReasoningDataset, use_front_end
from sftkey.datasets.registry import source_of
from sftkey.format.methods import METHODS
from sftkey.training.rows import TOO_LONG, RowTokenizer
from sftkey.training.tokenization import ExampleTokenizer, TokenizedBatch, TokenizerError
from sftkey.training.weights import weighted_method
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from sftkey.util.version import __version__

LOG = get_logger(__name__)

ROWS_FILE = "sftkey_rows.json"
"""Beside the prepared data: how many rows of each data set were used, and skipped for which reason."""

# `hf://datasets/openai/gsm8k@<commit>/main/...`, and in the Hub's cache `.../snapshots/<commit>/...`.
_COMMIT = re.compile(r"^hf://datasets/[^@]+@([0-9a-f]{40})/|/snapshots/([0-9a-f]{40})/")

ROWS_PER_WORKER = 25_000
"""From this many rows on for each of them, worker processes pay for their start (a copy of the tokenizer each).

Below, one process with the tokenizer's own threads is faster.
"""

_FEATURES = Features(
    {
        "input_ids": Sequence(Value("int32")),
        "attention_mask": Sequence(Value("int8")),
        "labels": Sequence(Value("int64")),
        "segments": Sequence(Value("int8")),
    }
)


class SegmentedDatasetStrategy(DatasetWrappingStrategy):
    """Tokenises one entry of ``datasets:`` and keeps count of what it skips.

    Args:
        dataset: The data set of the entry's ``type``.
        tokenizer: The recipe's tokenizer.
        cfg: The validated recipe.
        ds_cfg: The entry itself.

    Raises:
        UserError: The tokenizer can't give exact segments.
    """

    def __init__(self, dataset: ReasoningDataset, tokenizer: Any, cfg: Any, ds_cfg: Any) -> None:
        self.cfg, self.ds_cfg = cfg, ds_cfg
        self.evaluation = _is_for_evaluation(ds_cfg, cfg)
        try:
            method = weighted_method(
                METHODS[cfg.sftkey_method], cfg.sftkey_segment_weights, cfg.sftkey_segment_schedule
            )
            example_tokenizer = ExampleTokenizer(tokenizer, method, dataset.untagged)
        except TokenizerError as error:
            raise UserError(f"tokenizer: {error}") from error
        sequence_len = (self.evaluation and cfg.eval_sequence_len) or cfg.sequence_len
        self.tokenize = RowTokenizer(dataset, example_tokenizer, sequence_len, self.evaluation)

    def wrap_dataset(
        self,
        dataset: Any,
        process_count: int | None = None,
        keep_in_memory: bool | None = False,
        **kwargs: Any,
    ) -> Any:
        """Tokenise a data set.

        Args:
            dataset: The rows, as Axolotl loaded them.
            process_count: Number of worker processes.
            keep_in_memory: Whether to keep the result in memory instead of an Arrow file.
            **kwargs: Ignored; for what later Axolotl versions pass.

        Returns:
            A `datasets.Dataset` with ``input_ids``, ``attention_mask``, ``labels`` and ``segments``.

        Raises:
            UserError: A column is missing, or no row is left.
        """
        name = _entry_name(self.ds_cfg)
        workers = min(process_count or 1, len(dataset) // ROWS_PER_WORKER)
        with tempfile.TemporaryDirectory() as counts, tokenizer_threads(workers < 2 and process_count != 1):
            try:
                tokenized = dataset.map(
                    self._tokenize_batch,
                    fn_kwargs={"counts": counts},
                    batched=True,
                    batch_size=1_000,
                    num_proc=workers if workers > 1 else None,
                    remove_columns=list(dataset.column_names),
                    features=_FEATURES,
                    keep_in_memory=bool(keep_in_memory),
                    # Axolotl keeps the prepared data; a second cache here would outlive a change of this package's code.
                    load_from_cache_file=False,
                    new_fingerprint=self._fingerprint(dataset),
                    desc="Tokenizing segments",
                )
            except KeyError as error:
                raise UserError(f"datasets: {name}: {error.args[0]}") from error
            skipped = _sum_counts(Path(counts))
        used = len(tokenized)
        report_rows(name, used, skipped)
        self._record(used, dict(skipped), hub_commit(dataset))
        if not used:
            raise UserError(
                f"datasets: {name}: none of its {len(dataset)} rows can be used ({_counts(skipped)}); "
                "see `axolotl sftkey inspect` for where they go"
            )
        if self.cfg.excess_length_strategy == "raise" and skipped[TOO_LONG]:
            raise UserError(
                f"datasets: {name}: {skipped[TOO_LONG]} rows are longer than sequence_len {self.tokenize.sequence_len}, "
                "and excess_length_strategy is raise"
            )
        return tokenized

    def _tokenize_batch(self, batch: Mapping[str, list[Any]], counts: str) -> pa.Table:
        columns = list(batch)
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        tokenized, skipped = self.tokenize.batch(rows)
        if skipped:
            # Through a file, because the batch may be in a worker process; one file for each, so that none waits.
            with (Path(counts) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(skipped) + "\n")
        return _arrow_table(tokenized)

    def _fingerprint(self, dataset: Any) -> str:
        """Names what the tokens depend on, for the caches that datasets derives from the result.

        datasets would pickle the whole strategy instead, which for a tokenizer takes as long as tokenising 4,000 rows.
        """
        tokenizer = self.tokenize.tokenizer
        return Hasher.hash(
            [
                dataset._fingerprint,
                __version__,
                self.tokenize.dataset.name,
                source_of(self.ds_cfg.type),
                _entry_key(self.ds_cfg),
                {**(self.cfg.sftkey_columns or {})},
                self.evaluation,
                self.tokenize.sequence_len,
                tokenizer.method.name,
                sorted(tokenizer.method.trained),
                tokenizer.prompt(""),
                tokenizer.tokenizer.backend_tokenizer.to_str(),
            ]
        )

    def _record(self, used: int, skipped: dict[str, int], commit: str | None) -> None:
        """Keep the counts with the prepared data, where a later run that finds it prepared can read them."""
        counts = read_rows(self.cfg)
        pinned = {"commit": commit} if commit else {}
        counts[_entry_key(self.ds_cfg)] = {"rows_used": used, "rows_skipped": skipped, **pinned}
        write_atomically(rows_path(self.cfg), counts)


@contextmanager
def tokenizer_threads(wanted: bool) -> Iterator[None]:
    """Let a tokenizer use its threads, which Axolotl's command line turns off for the sake of forked processes.

    The setting is put back afterwards, so that processes forked later find it as Axolotl left it.
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


def _arrow_table(batch: TokenizedBatch) -> pa.Table:
    """The flat arrays as columns of lists; nothing is copied."""
    offsets = pa.array(np.concatenate(([0], np.cumsum(batch.lengths))), type=pa.int32())
    columns = {
        "input_ids": batch.input_ids,
        "attention_mask": np.ones(len(batch.input_ids), dtype=np.int8),
        "labels": batch.labels,
        "segments": batch.segments,
    }
    arrays = [pa.ListArray.from_arrays(offsets, pa.array(column)) for column in columns.values()]
    return pa.Table.from_arrays(arrays, schema=_FEATURES.arrow_schema)


def _sum_counts(folder: Path) -> Counter[str]:
    total: Counter[str] = Counter()
    for path in folder.glob("*.jsonl"):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                total.update(json.loads(line))
    return total


def rows_path(cfg: Any) -> Path:
    """Where the counts of a recipe's prepared data are."""
    return Path(cfg.dataset_prepared_path or "last_run_prepared") / ROWS_FILE


def read_rows(cfg: Any) -> dict[str, Any]:
    """The counts of a recipe's prepared data: entry -> ``rows_used``, ``rows_skipped``, and the ``commit`` on the Hub."""
    path = rows_path(cfg)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def entry_rows(cfg: Any, entry: Any) -> dict[str, Any]:
    """The counts and the commit of one entry of ``datasets:``; empty where it wasn't prepared by this plugin."""
    return read_rows(cfg).get(_entry_key(entry), {})


def hub_commit(dataset: Any) -> str | None:
    """The commit of the Hub repository that a data set's rows are from; ``None`` where they are from elsewhere.

    Args:
        dataset: What `datasets` loaded: it notes the files that it read, with the commit in their addresses or paths.
    """
    files = getattr(dataset.info, "download_checksums", None) or {}
    commits = {found[1] or found[2] for found in map(_COMMIT.search, files) if found}
    return commits.pop() if len(commits) == 1 else None


def report_rows(name: str, used: int, skipped: Mapping[str, int]) -> None:
    """Log how many rows are used and how many are skipped for each reason."""
    if skipped:
        LOG.warning("%s: %d rows used, %d skipped (%s)", name, used, sum(skipped.values()), _counts(skipped))
    else:
        LOG.info("%s: %d rows used, none skipped", name, used)


# For the commands that load rows without the plugin.
use_front_end(SegmentedDatasetStrategy)


def _counts(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items(), key=lambda item: -item[1]))


_ENTRY_KEYS = ("path", "name", "split", "type", "revision", "data_files", "shards", "shards_idx")


def _entry_key(entry: Any) -> str:
    return json.dumps({key: entry.get(key) for key in _ENTRY_KEYS if entry.get(key) is not None}, default=str)


def _is_for_evaluation(entry: Any, cfg: Any) -> bool:
    """Whether Axolotl is loading an entry of ``test_datasets``; it doesn't say so itself.

    An entry that equals one of ``datasets`` too counts as training data unless it is the very object from
    ``test_datasets``: no held-out row may be trained on.
    """
    tests = cfg.test_datasets or []
    if any(entry is test for test in tests):
        return True
    key = _entry_key(entry)
    return key in map(_entry_key, tests) and key not in map(_entry_key, cfg.datasets or [])


def _entry_name(entry: Any) -> str:
    return " ".join(str(entry.get(key)) for key in ("path", "name", "split") if entry.get(key))
