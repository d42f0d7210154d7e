"""The dataset strategy that Axolotl runs for ``type: sftkey.datasets.<name>``: `sftkey.training.prepare` on its terms."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from axolotl.prompt_tokenizers import DatasetWrappingStrategy
from axolotl.utils.data.shared import datasets_with_name_generator
from axolotl.utils.logging import get_logger

from sftkey.axolotl.preparation import DEFAULT_PREPARED_PATH
from sftkey.axolotl.prepared_data import ROWS_FILE
from sftkey.datasets.base import ReasoningDataset, use_front_end
from sftkey.datasets.first_row import first_row
from sftkey.datasets.own_data import as_recipe_says
from sftkey.datasets.registry import naming_keys
from sftkey.evaluation.reference_model import load_reference
from sftkey.recipes.load import has_own_template, response_format
from sftkey.stages.handover import start_of
from sftkey.stages.reference import reference_of, weights_stamp
from sftkey.stages.same_data import DATA_KEYS
from sftkey.training.objectives.registry import recipe_objective
from sftkey.training.own_template import OwnTemplateTokenizer
from sftkey.training.prepare import describe_counts, describe_skipped, hub_commit, prepare
from sftkey.training.recipe_rows import recipe_row_tokenizer
from sftkey.training.reference import REFERENCE_FOLDER, Reference, add_columns
from sftkey.training.rows import TOO_LONG
from sftkey.training.tokenization import ExampleTokenizer
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from sftkey.util.sources import UnreadableFile, read_json

LOG = get_logger(__name__)

_ENTRY_KEYS = (*DATA_KEYS, "shards", "shards_idx")


class SegmentedDatasetStrategy(DatasetWrappingStrategy):
    """Tokenises one entry of ``datasets:`` and records what it skips.

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
        self.tokenize = recipe_row_tokenizer(
            as_recipe_says(dataset, cfg),
            cfg,
            tokenizer,
            response_format(cfg),
            evaluation=_is_for_evaluation(ds_cfg, cfg),
            kind=OwnTemplateTokenizer if has_own_template(cfg) else ExampleTokenizer,
        )

    def wrap_dataset(
        self, dataset: Any, process_count: int | None = None, keep_in_memory: bool | None = False, **kwargs: Any
    ) -> Any:
        """Tokenise a data set and record its counts beside the prepared data.

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
        name = " ".join(str(self.ds_cfg.get(key)) for key in ("path", "name", "split") if self.ds_cfg.get(key))
        try:
            prepared, skipped = prepare(
                dataset, self.tokenize, workers=process_count, keep_in_memory=bool(keep_in_memory)
            )
        except KeyError as error:
            raise UserError(f"datasets: {name}: {error.args[0]}") from error
        used = len(prepared)
        (LOG.warning if skipped else LOG.info)("%s: %s", name, describe_counts(used, skipped))
        commit = hub_commit(dataset)
        counts = {"rows_used": used, "rows_skipped": dict(skipped), **({"commit": commit} if commit else {})}
        write_atomically(rows_path(self.cfg), {**read_rows(self.cfg), _entry_key(self.ds_cfg): counts})
        if not used:
            raise UserError(
                f"datasets: {name}: none of its {len(dataset)} rows can be used ({describe_skipped(skipped)}); "
                f"{first_row(dataset)}. {naming_keys(self.ds_cfg.type)}"
            )
        if self.cfg.excess_length_strategy == "raise" and skipped[TOO_LONG]:
            raise UserError(
                f"datasets: {name}: {skipped[TOO_LONG]} rows are longer than sequence_len {self.tokenize.sequence_len}, "
                "and excess_length_strategy is raise"
            )
        return prepared if self.tokenize.evaluation else self._with_columns(prepared)

    def _with_columns(self, rows: Any) -> Any:
        """The rows with what the objective knows of each token (`sftkey.training.reference`)."""
        tokenizer, code = self.tokenize.tokenizer.tokenizer, bool(self.cfg.trust_remote_code)
        reference = Reference(
            load=lambda place: load_reference(place, tokenizer, code),
            identify=weights_stamp,
            start=start_of(self.cfg),
            model=reference_of(self.cfg),
            cache=Path(self.cfg.dataset_prepared_path or DEFAULT_PREPARED_PATH).parent / REFERENCE_FOLDER,
        )
        return add_columns(rows, recipe_objective(self.cfg), reference)


# Here too, for commands that load rows without the plugin.
use_front_end(SegmentedDatasetStrategy)


def rows_path(cfg: Any) -> Path:
    """Where the counts of a recipe's prepared data are: with the data, for a later run that finds it prepared."""
    return Path(cfg.dataset_prepared_path or DEFAULT_PREPARED_PATH) / ROWS_FILE


def read_rows(cfg: Any) -> dict[str, Any]:
    """The counts of a recipe's prepared data: entry -> ``rows_used``, ``rows_skipped``, and the ``commit`` on the Hub.

    A file that is damaged, which `remove_half_written` sees before training, holds none.
    """
    try:
        rows = read_json(rows_path(cfg))
    except UnreadableFile:
        return {}
    return {key: counts for key, counts in rows.items() if isinstance(counts, dict)}


def entry_rows(cfg: Any, entry: Any) -> dict[str, Any]:
    """The counts and the commit of one entry of ``datasets:``; empty where this plugin didn't prepare it.

    Axolotl loads an entry with several names, or with ``preprocess_shards``, part by part: the counts are summed.
    """
    rows = read_rows(cfg)
    parts = [rows[key] for key in dict.fromkeys(map(_entry_key, datasets_with_name_generator([entry]))) if key in rows]
    if len(parts) < 2:
        return parts[0] if parts else {}
    skipped: Counter[str] = Counter()
    for part in parts:
        skipped.update(part["rows_skipped"])
    commits = {part.get("commit") for part in parts}
    counts = {"rows_used": sum(part["rows_used"] for part in parts), "rows_skipped": dict(skipped)}
    return counts | ({"commit": commits.pop()} if len(commits) == 1 and None not in commits else {})


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
    return key in _part_keys(tests) and key not in _part_keys(cfg.datasets or [])


def _part_keys(entries: Any) -> set[str]:
    return set(map(_entry_key, datasets_with_name_generator(entries)))
