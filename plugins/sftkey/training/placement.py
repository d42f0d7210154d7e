"""Batches reach the device without anybody waiting for it: labels are read on the CPU, where the collator made them.

How many targets a batch has decides the shape of everything in its loss. Read from the device, that number is there only
once all work before it is done, and the device stands still until the next kernel comes.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard
from torch.utils.data import DataLoader
from transformers import Trainer

from sftkey.training.targets import to_device

ON_CPU = "on_cpu"
"""Key of a prepared training batch: the batch as it came from the collator, where that was on the CPU."""


def splits_sequences(accelerator: Any) -> bool:
    """Whether context or sequence parallelism is on; older releases of accelerate know the first one only, or neither."""
    parallelism = getattr(accelerator, "parallelism_config", None)
    return any(getattr(parallelism, kind, False) for kind in ("cp_enabled", "sp_enabled"))


class UnwaitingTrainer(Trainer):
    """`Trainer` that moves training batches to the device itself, and keeps them on the CPU beside.

    Where batches come on the device already (accelerate's ``dispatch_batches``, context parallelism), all is as ever.
    """

    def get_train_dataloader(self) -> DataLoader:
        """The training batches, left on the CPU where accelerate would move each one by a copy that waits."""
        loader: Any = super().get_train_dataloader()
        if isinstance(loader, DataLoaderShard) and not splits_sequences(self.accelerator):
            loader.device = None
        return loader

    def _prepare_input(self, data: Any) -> Any:
        if isinstance(data, torch.Tensor):
            data = to_device(data, self.args.device)
        return super()._prepare_input(data)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        model: Any = self.model
        labels = inputs.get("labels")
        prepared = super()._prepare_inputs(inputs)
        if model.training and labels is not None and labels.device.type == "cpu":
            prepared[ON_CPU] = dict(inputs)
        return prepared

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As `Trainer.training_step`; a loss that is no number is replaced here, where `Trainer` would look at each."""
        loss = super().training_step(*args, **kwargs)
        if self.args.logging_nan_inf_filter and hasattr(self, "_tr_loss"):
            self.args.logging_nan_inf_filter = False
            self._filters = True
        if getattr(self, "_filters", False):
            mean = self._tr_loss / (1 + self.state.global_step - self._globalstep_last_logged)
            loss = torch.where(loss.isfinite(), loss, mean)
        return loss
