"""The Axolotl plugin: ``plugins: [sftkey.SFTKeyPlugin]``."""

from __future__ import annotations

import atexit
import os
import sys
import time
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from axolotl.utils.logging import get_logger

from sftkey.axolotl.known_keys import unknown_keys
from sftkey.axolotl.merging import finish_merge, merge_own_adapter
from sftkey.axolotl.preparation import (
    DEFAULT_PREPARED_PATH,
    is_main_process,
    load_without_device_map,
    prepare_recipe,
    refuse_obstacles,
    train_rows_alone,
    train_together_on_cpus,
)
from sftkey.axolotl.prepared_data import check_unprepared_data, remove_half_written, vouch_for
from sftkey.axolotl.run_lineage import RunLineage
from sftkey.axolotl.sweep import swept_recipe
from sftkey.axolotl.used_weights import choose_weights, start_of
from sftkey.datasets.base import use_front_end
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.hub import check_hub_data
from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, adds_tag_tokens
from sftkey.recipes.settings import plain, training_settings
from sftkey.stages.card import update_card
from sftkey.stages.checkpoints import (
    Checkpoint,
    refuse_inexact,
    survey,
    warnings_before_training,
)
from sftkey.stages.completion import after_stage, kept_checkpoint, make_marker, now, training_record
from sftkey.stages.lifeline import end_with_the_run
from sftkey.stages.lock import TRAINING_LOCK, OutputLock
from sftkey.stages.manifest import record_files
from sftkey.stages.marker import LOG_FILE, MARKER_FILE, RUN_FILE, SCHEMA, KeptCheckpoint, Marker, RunFile
from sftkey.stages.resuming import resume
from sftkey.stages.saving import Saving
from sftkey.stages.stage import Stage
from sftkey.util.disk import watch
from sftkey.util.errors import install_short_error_hook
from sftkey.util.files import write_atomically

LOG = get_logger(__name__)


def _strategy(*arguments: Any) -> Any:
    from sftkey.axolotl.strategy import SegmentedDatasetStrategy

    return SegmentedDatasetStrategy(*arguments)


use_front_end(_strategy)

_PATIENCE_SECONDS = 30.0


class SFTKeyPlugin(BasePlugin):
    """Two-stage training with emphasis on the answer tokens.

    Checks and completes the recipe, links a stage to the one before it, trains with the segment loss, and leaves a
    completion marker.
    """

    def __init__(self) -> None:
        super().__init__()
        self._recipe: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}
        self._before: Stage | None = None
        self._trains = True
        self._recipe_file = ""
        self._trainer: Any = None
        self._state: Any = None
        self._started = 0.0
        self._base_model_commit: str | None = None
        self._lineage: Any = None
        self._kept: KeptCheckpoint | None = None
        self._lock: OutputLock | None = None
        self._run: RunFile | None = None

    def get_input_args(self) -> str:
        """The pydantic model of the plugin's recipe keys."""
        return "sftkey.recipes.keys.SFTKeyArgs"

    def register(self, cfg: Any) -> None:
        """Check the raw recipe, as parsed and with command-line overrides, and complete it in place.

        Raises:
            UserError: Something in the recipe, or in the stage before, has to be changed.
        """
        install_short_error_hook()
        watch(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR, cfg.get("dataset_prepared_path") or DEFAULT_PREPARED_PATH)
        end_with_the_run()
        check_recipe(cfg)
        given = cfg.get("axolotl_config_path")
        self._recipe_file = cfg["axolotl_config_path"] = swept_recipe(cfg) or given
        _log_once(*unknown_keys(cfg))
        self._recipe = {key: plain(value) for key, value in cfg.items() if key != "axolotl_config_path"}
        self._before, self._trains = choose_weights(cfg)
        # Only where there is something to train: a finished stage can be merged or served when its data is gone.
        training = is_main_process() and Marker.read(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR) is None
        if training:
            refuse_obstacles({**cfg, "base_model": None} if self._before else cfg, trains=False)
            check_hub_data(cfg)
        if cfg.get("merge_lora"):
            merge_own_adapter(cfg, None if self._before else cfg.get("lora_model_dir"))
        self._settings = training_settings(cfg)
        prepare_recipe(cfg)
        if training:
            check_unprepared_data(cfg)
        cfg["axolotl_config_path"] = given
        train_together_on_cpus(cfg)

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        """Take back what `prepare_recipe` set for Axolotl's checks alone."""
        train_rows_alone(cfg)

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        """Called when training starts: see whether there is anything left to do, and from where.

        Raises:
            UserError: ``output_dir`` belongs to a run with other settings.
            SystemExit: The stage has finished already (status 0).
        """
        if preprocess:
            # Axolotl calls nobody once it has prepared the data.
            atexit.register(vouch_for, cfg.dataset_prepared_path or DEFAULT_PREPARED_PATH)
            return
        output_dir, world_size = Path(cfg.output_dir), int(os.environ.get("WORLD_SIZE", 1))
        own = {**self._recipe, "base_model": None if self._before else cfg.base_model, "output_dir": cfg.output_dir}
        refuse_obstacles(own, trains=True)
        load_without_device_map(cfg)
        if is_main_process():
            self._release_lock()
            self._lock = OutputLock(output_dir, TRAINING_LOCK)
            # Patient, because what is left of a killed run takes a moment to end.
            self._lock.acquire(patience=_PATIENCE_SECONDS)
        marker, run = Marker.read(output_dir), RunFile.read(output_dir)
        self._lineage = RunLineage(cfg, self._recipe, self._settings, self._before, is_main_process())
        _log_once(*self._lineage.remarks)
        if marker is not None:
            _log_once(f"{output_dir} is finished ({marker.finished_at}); nothing to do. Delete it to train again.")
            raise SystemExit(0)
        found = survey(output_dir, run, cfg, world_size)
        whole = [checkpoint for checkpoint in found if checkpoint.fault is None]
        automatic = bool(cfg.auto_resume_from_checkpoints and not cfg.resume_from_checkpoint and whole)
        if before := self._before:
            _log_once(f"{output_dir} starts from {start_of(cfg)}, of the stage that finished {before.finished_at}")
        if automatic or cfg.resume_from_checkpoint:
            start = whole[-1].path if automatic else Path(cfg.resume_from_checkpoint)
            refuse_inexact(start, RunFile.read(start.parent), world_size)
        if is_main_process():
            self._run = self._resume(cfg, run, found, automatic, world_size)
        elif automatic:
            # Until the first process has seen which one is whole.
            cfg.resume_from_checkpoint = str(whole[-1].path)
        _log_once(*warnings_before_training(cfg))
        if cfg.dataset_prepared_path:
            # In every process, because whichever comes first prepares the data.
            remove_half_written(cfg.dataset_prepared_path)

    def _resume(
        self, cfg: Any, run: RunFile | None, found: list[Checkpoint], automatic: bool, processes: int
    ) -> RunFile:
        """Clear the output directory for the run, note the run there, and set where it goes on from."""
        output_dir = Path(cfg.output_dir)
        named = Path(cfg.resume_from_checkpoint) if cfg.resume_from_checkpoint else None
        resumption = resume(output_dir, run, found, automatic=automatic, named=named)
        _log_once(*resumption.remarks)
        if resumption.checkpoint is not None:
            cfg.resume_from_checkpoint = str(resumption.checkpoint)
            _log_once(f"going on from {resumption.checkpoint}")
            self._lineage.resume_from(resumption.checkpoint, RunFile.read(resumption.checkpoint.parent))
        run = RunFile(
            schema=SCHEMA,
            id=resumption.id,
            unlisted=resumption.unlisted,
            started_at=now(),
            settings=self._settings,
            after=after_stage(self._before, start_of(cfg), copy=False),
            world_size=processes,
            pid=os.getpid(),
            lineage=self._lineage.record,
        )
        write_atomically(output_dir / RUN_FILE, run.content)
        return run

    def pre_model_load(self, cfg: Any) -> None:
        """Called when the data is prepared: record and compare it (`sftkey.stages.lineage_check.check_rows`)."""
        if self._lineage is None or not is_main_process():
            return
        from sftkey.axolotl.strategy import entry_rows

        _log_once(*self._lineage.data_is_prepared([entry_rows(cfg, entry) for entry in cfg.datasets]))

    def get_trainer_cls(self, cfg: Any) -> Any:
        """The trainer with the segment loss."""
        from sftkey.axolotl.trainer import SFTKeyTrainer

        return SFTKeyTrainer

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Configure the loss, the end of generation and the warmup.

        Raises:
            UserError: See `sftkey.axolotl.trainer_setup.set_up_trainer`.
        """
        from sftkey.axolotl.trainer_setup import agree_on_start, set_up_trainer

        adds_tags = self._trains and self._before is None and adds_tag_tokens(self._recipe)
        set_up_trainer(cfg, trainer, adds_tags=adds_tags)
        agree_on_start(cfg, trainer)
        if self._run is not None:
            _log_once(*self._lineage.rows_are_split(trainer.train_dataset, trainer.eval_dataset))
            trainer.saving = Saving(self._run, trainer.args.save_total_limit)
        if cfg.dataset_prepared_path and is_main_process():
            vouch_for(cfg.dataset_prepared_path)
        model = trainer.accelerator.unwrap_model(trainer.model)
        self._base_model_commit = getattr(model.config, "_commit_hash", None)
        self._trainer, self._started = trainer, time.monotonic()

    def post_train(self, cfg: Any, model: Any) -> None:
        """Keep the trainer's state for the marker and let go of the trainer."""
        if self._trainer is not None:
            self._kept = kept_checkpoint(self._trainer)
            self._state, self._trainer = self._trainer.state, None

    def post_lora_merge(self, cfg: Any, adapter_path: str, output_path: str) -> None:
        """Called by Axolotl 0.21 after a merge; `sftkey.axolotl.merging` does the same for 0.19."""
        finish_merge(cfg, adapter_path, output_path)

    def post_train_unload(self, cfg: Any) -> None:
        """Write the trainer's log and, last, the completion marker; only the model card comes after it.

        Axolotl 0.19 calls this after a good end only, 0.20 and 0.21 also while an exception (a full disk, Ctrl-C) ends it
        with the weights unsaved: then the stage hasn't finished.
        """
        if sys.exception() is not None:
            self._state = None
        if self._state is None or not is_main_process():
            self._release_lock()
            return
        output_dir = Path(cfg.output_dir)
        self._state.save_to_json(str(output_dir / LOG_FILE))
        # The marker vouches for them: they are on the disk before it is.
        record_files(output_dir, (path.name for path in output_dir.iterdir() if path.is_file()), durable=True)
        write_atomically(output_dir / MARKER_FILE, self._marker(cfg).content)
        update_card(output_dir)
        # Past Axolotl's adapter, which would ask a process group that has been destroyed by now.
        LOG.logger.info("%s is finished: %s", output_dir, MARKER_FILE)
        self._state = None
        self._release_lock()

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _marker(self, cfg: Any) -> Marker:
        from sftkey.axolotl.strategy import entry_rows
        from sftkey.axolotl.trainer_setup import tokenizer_size

        return make_marker(
            Path(cfg.output_dir),
            self._recipe,
            Path(str(self._recipe_file or cfg.axolotl_config_path)).name,
            settings=self._settings,
            base_model=str(cfg.base_model),
            base_model_commit=self._base_model_commit,
            after=after_stage(self._before, start_of(cfg)),
            end_of_turn=cfg.special_tokens.eos_token,
            tokenizer_size=tokenizer_size(Path(cfg.output_dir)),
            rows=[entry_rows(cfg, entry) for entry in cfg.datasets],
            training=training_record(
                self._state.log_history,
                steps=self._state.global_step,
                epochs=self._state.epoch,
                seconds=time.monotonic() - self._started,
                world_size=int(os.environ.get("WORLD_SIZE", 1)),
                kept=self._kept,
            ),
            lineage=self._lineage.of_the_marker() if self._lineage else None,
        )


def _log_once(*messages: str) -> None:
    for message in messages if is_main_process() else ():
        LOG.warning(message)
