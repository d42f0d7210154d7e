"""One training of a stage, from its lock to its marker: what surrounds the training itself, whichever trainer does it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftkey.stages.card import update_card
from sftkey.stages.checkpoints import Checkpoint, refuse_inexact, survey, warnings_before_training
from sftkey.stages.completion import after_stage, kept_checkpoint, make_marker, now, training_record
from sftkey.stages.handover import start_of
from sftkey.stages.lock import TRAINING_LOCK, OutputLock
from sftkey.stages.manifest import record_files
from sftkey.stages.marker import LOG_FILE, MARKER_FILE, RUN_FILE, SCHEMA, KeptCheckpoint, Marker, RunFile
from sftkey.stages.resuming import resume
from sftkey.stages.run_lineage import RunLineage
from sftkey.stages.saving import Saving
from sftkey.stages.serving import write_reasoning_parser
from sftkey.stages.stage import Stage
from sftkey.util.files import write_atomically

_PATIENCE_SECONDS = 30.0


class TrainingRun:
    """One training of a stage. Every process has one; the first process alone writes.

    Args:
        cfg: The recipe as its front end validated it, with the weights that it starts from.
        recipe: The raw recipe.
        settings: `sftkey.recipes.settings.training_settings` of it.
        before: The stage that it starts from.
        processes: How many processes train.
        main: Whether this is the first of them.
        say: Shows a line to people.
        front_end: The package that trains.

    Attributes:
        finished: Whether there is nothing left to train.
        resume_from: The checkpoint to go on from; ``None`` for the beginning. Known after `begin`.
    """

    def __init__(
        self,
        cfg: Any,
        recipe: Mapping[str, Any],
        settings: Mapping[str, Any],
        before: Stage | None,
        *,
        processes: int,
        main: bool,
        say: Callable[[str], None],
        front_end: str = "axolotl",
    ) -> None:
        self._cfg, self._recipe, self._settings, self._before = cfg, recipe, settings, before
        self._output_dir = Path(cfg.get("output_dir"))
        self._processes, self._main, self._say = processes, main, say
        self._start, self._front_end = start_of(cfg), front_end
        self._lock: OutputLock | None = None
        self._run: RunFile | None = None
        self._lineage: RunLineage | None = None
        self._started = 0.0
        self._state: Any = None
        self._kept: KeptCheckpoint | None = None
        self._base_model_commit: str | None = None
        self.finished = False
        self.resume_from: str | None = cfg.get("resume_from_checkpoint")

    def begin(self) -> None:
        """See whether there is anything left to do, and from where; note the run in its directory.

        Raises:
            UserError: ``output_dir`` belongs to a run with other settings, or another run is at work in it.
        """
        output_dir, cfg = self._output_dir, self._cfg
        if self._main:
            self._lock = OutputLock(output_dir, TRAINING_LOCK)
            # Patient, because what is left of a killed run takes a moment to end.
            self._lock.acquire(patience=_PATIENCE_SECONDS)
        marker, run = Marker.read(output_dir), RunFile.read(output_dir)
        self._lineage = RunLineage(cfg, self._recipe, self._settings, self._before, self._main)
        self._show(self._lineage.remarks)
        if marker is not None:
            self._say(f"{output_dir} is finished ({marker.finished_at}); nothing to do. Delete it to train again.")
            self.finished = True
            return
        found = survey(output_dir, run, cfg, self._processes)
        whole = [checkpoint for checkpoint in found if checkpoint.fault is None]
        automatic = bool(cfg.get("auto_resume_from_checkpoints") and not self.resume_from and whole)
        if before := self._before:
            self._say(f"{output_dir} starts from {self._start}, of the stage that finished {before.finished_at}")
        if self._main:
            if automatic or self.resume_from:
                start = whole[-1].path if automatic else Path(str(self.resume_from))
                refuse_inexact(start, RunFile.read(start.parent), self._processes)
            self._run = self._resume(run, found, automatic)
        elif automatic:
            # Until the first process has seen which one is whole.
            self.resume_from = str(whole[-1].path)
        self._show(warnings_before_training(cfg))

    def _resume(self, run: RunFile | None, found: list[Checkpoint], automatic: bool) -> RunFile:
        """Clear the output directory for the run, note the run there, and set where it goes on from."""
        assert self._lineage is not None
        named = Path(self.resume_from) if self.resume_from else None
        resumption = resume(self._output_dir, run, found, automatic=automatic, named=named)
        self._show(resumption.remarks)
        if resumption.checkpoint is not None:
            self.resume_from = str(resumption.checkpoint)
            self._say(f"going on from {resumption.checkpoint}")
            self._lineage.resume_from(resumption.checkpoint, RunFile.read(resumption.checkpoint.parent))
        run = RunFile(
            schema=SCHEMA,
            id=resumption.id,
            unlisted=resumption.unlisted,
            started_at=now(),
            settings=dict(self._settings),
            after=after_stage(self._before, self._start, copy=False),
            world_size=self._processes,
            pid=os.getpid(),
            lineage=self._lineage.record,
        )
        write_atomically(self._output_dir / RUN_FILE, run.content)
        return run

    @property
    def id(self) -> str | None:
        """`RunFile.id` of what the first process has noted; ``None`` in the others."""
        return self._run.id if self._run else None

    def data_is_prepared(self, rows: list[dict[str, Any]]) -> None:
        """Record and compare the prepared data (`sftkey.stages.lineage_check.check_rows`); for the first process."""
        if self._lineage is not None and self._main:
            self._show(self._lineage.data_is_prepared(rows))

    def trainer_is_made(self, trainer: Any, base_model_commit: str | None) -> None:
        """Record which rows are trained on, let the trainer's checkpoints be vouched for, and start the clock."""
        if self._run is not None and self._lineage is not None:
            self._show(self._lineage.rows_are_split(trainer.train_dataset, trainer.eval_dataset))
            trainer.saving = Saving(self._run, trainer.args.save_total_limit)
        self._base_model_commit = base_model_commit
        self._started = time.monotonic()

    def training_ended(self, trainer: Any) -> None:
        """Keep the trainer's state for the marker."""
        self._kept, self._state = kept_checkpoint(trainer), trainer.state

    @property
    def trained(self) -> bool:
        """Whether this is the first process, and training has ended well: `complete` is left to do."""
        return self._main and self._state is not None

    def complete(
        self, recipe_name: str, rows: Sequence[Mapping[str, Any]], *, end_of_turn: str, tokenizer_size: int | None
    ) -> None:
        """Write the trainer's log and, last, the completion marker; only the model card comes after it."""
        output_dir = self._output_dir
        self._state.save_to_json(str(output_dir / LOG_FILE))
        write_reasoning_parser(output_dir)
        # The marker vouches for them: they are on the disk before it is.
        record_files(output_dir, (path.name for path in output_dir.iterdir() if path.is_file()), durable=True)
        marker = make_marker(
            output_dir,
            self._recipe,
            recipe_name,
            settings=self._settings,
            base_model=str(self._cfg.get("base_model")),
            base_model_commit=self._base_model_commit,
            after=after_stage(self._before, self._start),
            end_of_turn=end_of_turn,
            tokenizer_size=tokenizer_size,
            rows=rows,
            training=training_record(
                self._state.log_history,
                steps=self._state.global_step,
                epochs=self._state.epoch,
                seconds=time.monotonic() - self._started,
                world_size=self._processes,
                kept=self._kept,
            ),
            lineage=self._lineage.of_the_marker() if self._lineage else None,
            front_end=self._front_end,
        )
        write_atomically(output_dir / MARKER_FILE, marker.content)
        update_card(output_dir)
        self.end()

    def end(self) -> None:
        """Let others train in the output directory; a stage that isn't `complete` hasn't finished."""
        self._state = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _show(self, remarks: Sequence[str]) -> None:
        for remark in remarks:
            self._say(remark)
