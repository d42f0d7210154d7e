"""The Axolotl plugin: ``plugins: [sftkey.SFTKeyPlugin]``."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from axolotl.utils.logging import get_logger

from sftkey.axolotl.agreement import agree_on_recipe, agree_on_start, first_of_this_machine
from sftkey.axolotl.greedy_inference import make_inference_greedy
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
from sftkey.axolotl.ray_workers import hand_over, take_over
from sftkey.axolotl.sweep import swept_recipe
from sftkey.axolotl.used_weights import choose_weights
from sftkey.datasets.base import use_front_end
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.hub import check_hub_data
from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, adds_tag_tokens
from sftkey.recipes.settings import plain, training_settings
from sftkey.stages.lifeline import end_with_the_run
from sftkey.stages.marker import MARKER_FILE, Marker
from sftkey.stages.reference import reference_of
from sftkey.stages.stage import Stage
from sftkey.stages.training_run import TrainingRun
from sftkey.util.disk import watch
from sftkey.util.errors import install_short_error_hook

LOG = get_logger(__name__)


def _strategy(*arguments: Any) -> Any:
    from sftkey.axolotl.strategy import SegmentedDatasetStrategy

    return SegmentedDatasetStrategy(*arguments)


use_front_end(_strategy)


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
        self._run: TrainingRun | None = None

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
        command = take_over(cfg)
        check_recipe(cfg)
        given = cfg.get("axolotl_config_path")
        self._recipe_file = cfg["axolotl_config_path"] = swept_recipe(cfg) or given
        _log_once(*unknown_keys(cfg))
        self._recipe = {key: plain(value) for key, value in cfg.items() if key != "axolotl_config_path"}
        self._before, self._trains = choose_weights(cfg)
        # Only where there is something to train: a finished stage can be merged or served when its data is gone.
        training = is_main_process() and Marker.read(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR) is None
        if training:
            refuse_obstacles({**cfg, "base_model": None} if self._before else cfg)
            check_hub_data(cfg)
            reference_of(cfg)  # whether it is there
        if cfg.get("inference"):
            make_inference_greedy()
        if cfg.get("merge_lora"):
            merge_own_adapter(cfg, None if self._before else cfg.get("lora_model_dir"))
        self._settings = training_settings(cfg)
        if command is not None:
            self._recipe, self._settings = command["recipe"], command["settings"]
        prepare_recipe(cfg)
        if training:
            check_unprepared_data(cfg)
        cfg["axolotl_config_path"] = given
        train_together_on_cpus(cfg)
        hand_over(cfg, self._recipe, self._settings)

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        """Take back what `prepare_recipe` set for Axolotl's checks alone; widen the weights where that is asked for."""
        train_rows_alone(cfg)
        if cfg.sftkey_fp32_weights:
            # Before they are sharded; FSDP2's own policy computes in bfloat16.
            model.float()

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
        own = {**self._recipe, "base_model": None if self._before else cfg.base_model, "output_dir": cfg.output_dir}
        agree_on_recipe(own, self._settings)
        load_without_device_map(cfg)
        self._release_lock()
        self._run = TrainingRun(
            cfg,
            self._recipe,
            self._settings,
            self._before,
            processes=int(os.environ.get("WORLD_SIZE", 1)),
            main=is_main_process(),
            say=_log_once,
        )
        self._run.begin()
        if self._run.finished:
            raise SystemExit(0)
        cfg.resume_from_checkpoint = self._run.resume_from
        if cfg.dataset_prepared_path:
            # In every process, because whichever comes first prepares the data.
            remove_half_written(cfg.dataset_prepared_path)

    def pre_model_load(self, cfg: Any) -> None:
        """Called when the data is prepared: record and compare it (`sftkey.stages.lineage_check.check_rows`)."""
        if self._run is not None:
            from sftkey.axolotl.strategy import entry_rows

            self._run.data_is_prepared([entry_rows(cfg, entry) for entry in cfg.datasets])

    def get_trainer_cls(self, cfg: Any) -> Any:
        """The trainer with the segment loss."""
        from sftkey.axolotl.trainer import SFTKeyTrainer

        return SFTKeyTrainer

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Configure the loss, the end of generation and the warmup.

        Raises:
            UserError: See `sftkey.axolotl.trainer_setup.set_up_trainer`.
        """
        from sftkey.axolotl.trainer_setup import set_up_trainer

        adds_tags = self._trains and self._before is None and adds_tag_tokens(self._recipe)
        set_up_trainer(cfg, trainer, adds_tags=adds_tags)
        agree_on_start(cfg, trainer, self._run.id if self._run else None)
        if cfg.dataset_prepared_path and first_of_this_machine():
            vouch_for(cfg.dataset_prepared_path)
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self._run is not None:
            self._run.trainer_is_made(trainer, getattr(model.config, "_commit_hash", None))
        self._trainer = trainer

    def post_train(self, cfg: Any, model: Any) -> None:
        """Keep the trainer's state for the marker and let go of the trainer."""
        if self._trainer is not None and self._run is not None:
            self._run.training_ended(self._trainer)
            self._trainer = None

    def post_lora_merge(self, cfg: Any, adapter_path: str, output_path: str) -> None:
        """Called by Axolotl 0.21 after a merge; `sftkey.axolotl.merging` does the same for 0.19."""
        finish_merge(cfg, adapter_path, output_path)

    def post_train_unload(self, cfg: Any) -> None:
        """Write the trainer's log and, last, the completion marker; only the model card comes after it.

        Axolotl 0.19 calls this after a good end only, 0.20 and 0.21 also while an exception (a full disk, Ctrl-C) ends it
        with the weights unsaved: then the stage hasn't finished.
        """
        if self._run is None or not self._run.trained or sys.exception() is not None:
            self._release_lock()
            return
        from sftkey.axolotl.strategy import entry_rows
        from sftkey.axolotl.trainer_setup import tokenizer_size

        self._run.complete(
            Path(str(self._recipe_file or cfg.axolotl_config_path)).name,
            [entry_rows(cfg, entry) for entry in cfg.datasets],
            end_of_turn=cfg.special_tokens.eos_token,
            tokenizer_size=tokenizer_size(Path(cfg.output_dir)),
        )
        # Past Axolotl's adapter, which would ask a process group that has been destroyed by now.
        LOG.logger.info("%s is finished: %s", cfg.output_dir, MARKER_FILE)

    def _release_lock(self) -> None:
        if self._run is not None:
            self._run.end()


def _log_once(*messages: str) -> None:
    for message in messages if is_main_process() else ():
        LOG.warning(message)
