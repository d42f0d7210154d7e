"""The trainer's checkpoints are vouched for once every process has written its part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import Trainer


class Saving(Protocol):
    """Who vouches for checkpoints, and removes old ones: `sftkey.stages.saving.Saving`."""

    def begin(self, checkpoint: Path) -> None:
        """Before the trainer writes the first file of it."""

    def abandon(self, checkpoint: Path) -> None:
        """It could not be saved."""

    def complete(self, checkpoint: Path, *, best: str | None = None) -> None:
        """Every process has written its part."""

    def finish(self) -> None:
        """Wait until the last one is whole."""

    def keep_only(self, best: Path) -> None:
        """Remove the others."""


class CheckpointSaving(Trainer):
    """A `Trainer` whose checkpoints name their files; the first process has `saving`."""

    saving: Saving | None = None
    _saved: Path | None = None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # Several processes without a GPU are each on "cpu:0" and so on, and torch.load knows no such place.
        if self.args.device.type == "cpu":
            vars(self.args)["_setup_devices"] = torch.device("cpu")
        super()._load_optimizer_and_scheduler(checkpoint)

    def _save_checkpoint(self, model: Any, trial: Any, **kwargs: Any) -> Any:
        self._vouch()
        checkpoint = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.saving is not None:
            self.saving.begin(checkpoint)
        try:
            with self._without_rotation():
                result = super()._save_checkpoint(model, trial, **kwargs)
        except Exception:
            if self.saving is not None:
                self.saving.abandon(checkpoint)
            raise
        self._saved = checkpoint
        return result

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        # Not before: callbacks add files to a checkpoint that has been saved.
        self._vouch()

    def _vouch(self) -> None:
        """Called by all processes."""
        checkpoint, self._saved = self._saved, None
        if checkpoint is None:
            return
        self.accelerator.wait_for_everyone()
        if self.saving is not None:
            self.saving.complete(checkpoint, best=self.state.best_model_checkpoint)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self._finish_saving()
        with self._without_rotation() as limit:
            result = super()._finalize_training(*args, **kwargs)
        best = self.state.best_model_checkpoint
        if self.saving is not None and limit == 1 and best is not None:
            self.saving.keep_only(Path(best))
        return result

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`; ends when the last checkpoint is whole."""
        result = super().train(*args, **kwargs)
        self._finish_saving()
        return result

    def _finish_saving(self) -> None:
        self._vouch()
        if self.saving is not None:
            self.saving.finish()

    @contextmanager
    def _without_rotation(self) -> Iterator[int | None]:
        """The trainer removes old checkpoints before the new one is whole, and those of others too."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield limit
        finally:
            self.args.save_total_limit = limit
