"""The rows of a TRL training: tokens, labels and segments of every entry, and how many were used and skipped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, concatenate_datasets

from sftkey.datasets.first_row import first_row
from sftkey.datasets.loading import entry_dataset, entry_rows
from sftkey.datasets.registry import naming_keys
from sftkey.evaluation.reference_model import load_reference
from sftkey.recipes.load import DEFAULT_OUTPUT_DIR
from sftkey.stages.handover import start_of
from sftkey.stages.reference import reference_of, weights_stamp
from sftkey.training.objectives.registry import recipe_objective
from sftkey.training.prepare import describe_counts, describe_skipped, hub_commit, prepare
from sftkey.training.recipe_rows import recipe_row_tokenizer
from sftkey.training.reference import REFERENCE_FOLDER, Reference, add_columns
from sftkey.util.errors import UserError

LOG = logging.getLogger(__name__)


class PreparedRows(NamedTuple):
    """Rows to train on or to evaluate, and for each entry ``rows_used``, ``rows_skipped`` and ``commit``."""

    rows: Dataset
    counts: list[dict[str, Any]]


def prepare_rows(cfg: Mapping[str, Any], tokenizer: Any, *, evaluation: bool = False) -> PreparedRows | None:
    """Prepare the rows of a checked recipe.

    Args:
        cfg: The recipe.
        tokenizer: Its tokenizer, set up.
        evaluation: Those of ``test_datasets`` instead of ``datasets``.

    Returns:
        ``None`` where there is no entry.

    Raises:
        UserError: Rows can't be read, or none of an entry's rows can be used.
    """
    key = "test_datasets" if evaluation else "datasets"
    parts, counts = [], []
    for index, entry in enumerate(cfg.get(key) or []):
        place = f"{key}[{index}]"
        rows = entry_rows(entry, place)
        tokenize = recipe_row_tokenizer(entry_dataset(entry, cfg), cfg, tokenizer, evaluation=evaluation)
        try:
            prepared, skipped = prepare(rows, tokenize)
        except KeyError as error:
            raise UserError(f"{place}: {entry['path']}: {error.args[0]}") from error
        (LOG.warning if skipped else LOG.info)("%s: %s", place, describe_counts(len(prepared), skipped))
        if not len(prepared):
            raise UserError(
                f"{place}: {entry['path']}: none of its {len(rows)} rows can be used ({describe_skipped(skipped)}); "
                f"{first_row(rows)}. {naming_keys(entry.get('type'))}"
            )
        commit = hub_commit(rows)
        counts.append(
            {
                "rows_used": len(prepared),
                "rows_skipped": dict(skipped),
                **({"commit": commit} if commit else {}),
            }
        )
        parts.append(
            prepared if evaluation else add_columns(prepared, recipe_objective(cfg), _reference(cfg, tokenizer))
        )
    return PreparedRows(concatenate_datasets(parts), counts) if parts else None


def _reference(cfg: Mapping[str, Any], tokenizer: Any) -> Reference:
    return Reference(
        load=lambda place: load_reference(place, tokenizer),
        identify=weights_stamp,
        start=start_of(cfg),
        model=reference_of(cfg),
        cache=Path(str(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR)).parent / REFERENCE_FOLDER,
    )
