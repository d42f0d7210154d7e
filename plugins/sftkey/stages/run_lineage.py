"""The lineage of the stage that is being trained: compared when it starts, and kept in its run file and marker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sftkey.stages.adapter import adapter_shape
from sftkey.stages.lineage import lineage_of, resumed, with_rows
from sftkey.stages.lineage_check import check_rows, check_stage
from sftkey.stages.marker import RUN_FILE, Lineage, RunFile
from sftkey.stages.stage import Stage
from sftkey.training.row_ids import read_row_ids, row_ids, write_row_ids
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically

_START = ("base_model", "lora_model_dir", "tokenizer_config")


class RunLineage:
    """What a stage is made from, from its start to its marker.

    Args:
        cfg: The recipe as its front end validated it.
        recipe: The raw recipe.
        settings: `sftkey.recipes.settings.training_settings` of it.
        before: The stage that it starts from.
        main: Whether this is the first process, the only one that reads the weights that it starts from.

    Raises:
        UserError: See `sftkey.stages.lineage_check.check_stage`.
    """

    def __init__(
        self, cfg: Any, recipe: Mapping[str, Any], settings: Mapping[str, Any], before: Stage | None, main: bool
    ) -> None:
        self._recipe, self._before = recipe, before
        self._output_dir = Path(cfg.get("output_dir"))
        linked = {**recipe, **{key: cfg.get(key) for key in _START if cfg.get(key)}}
        stage = Stage.of_recipe(Path(), {**linked, "output_dir": cfg.get("output_dir")})
        self._earlier: Lineage | None = None
        self.record = lineage_of(linked, read_weights=main)
        self.remarks = check_stage(replace(stage, linked_before=before), linked, self.record, settings)

    def resume_from(self, checkpoint: Path, run: RunFile | None) -> None:
        """Note the checkpoint that it goes on from, and the run file of the run that left it."""
        self._earlier = run.lineage if run else None
        self.record = resumed(self.record, self._earlier, checkpoint, self.remarks)

    def data_is_prepared(self, rows: list[dict[str, Any]]) -> list[str]:
        """Record the commit and the number of rows of each data set, in the run file too.

        Returns:
            A line for each change that the recipe accepts.

        Raises:
            UserError: See `sftkey.stages.lineage_check.check_rows`.
        """
        self.record = with_rows(self.record, rows)
        remarks = check_rows(self._recipe, self.record, self._earlier, self._before)
        run = RunFile.read(self._output_dir)
        if run is not None:
            run = run.model_copy(update={"lineage": self.record})
            write_atomically(self._output_dir / RUN_FILE, run.content)
        return remarks

    def rows_are_split(self, train: Any, evaluation: Any) -> list[str]:
        """Record which rows are trained on, and say how many of the evaluation split were, here or in a stage before."""
        if not _has_tokens(train):
            return []
        ids = row_ids(train)
        write_row_ids(self._output_dir, ids)
        update: dict[str, Any] = {"rows_trained": len(train)}
        remarks = []
        if _has_tokens(evaluation) and len(evaluation):
            evaluated, trained = row_ids(evaluation), [(self._output_dir, ids)]
            trained += [(stage.output_dir, read_row_ids(stage.output_dir)) for stage in _stages(self._before)]
            for place, its in trained:
                if known := int(np.isin(evaluated, its).sum()):
                    remarks.append(
                        f"{known} of the {len(evaluated)} evaluation rows are among those that {place} was trained on: the "
                        "eval_ figures are too good. Use the same val_set_size and seed in all stages, or other test_datasets"
                    )
            known = int(np.isin(evaluated, np.concatenate([its for _, its in trained])).sum())
            update |= {"rows_evaluated": len(evaluated), "evaluated_before": known}
        self.record = self.record.model_copy(update=update)
        return remarks

    def of_the_marker(self) -> Lineage:
        """The record, with the shape of the adapter that was trained."""
        return self.record.model_copy(update={"adapter": adapter_shape(self._output_dir)})


def _has_tokens(rows: Any) -> bool:
    """Whether these are the rows of a `datasets.Dataset` with tokens, and not a stream or nothing."""
    return hasattr(rows, "__len__") and "input_ids" in getattr(rows, "column_names", ())


def _stages(before: Stage | None) -> list[Stage]:
    """The stages that led here, as far as they are there."""
    if before is None:
        return []
    try:
        return list(Stage.read(before.output_dir).chain)
    except UserError:
        return [before]
