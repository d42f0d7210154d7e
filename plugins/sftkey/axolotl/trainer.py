"""Axolotl's trainer with the segment loss."""

from __future__ import annotations

from typing import Any

from axolotl.core.trainers.base import AxolotlTrainer

from sftkey.training.collator import SegmentCollator
from sftkey.training.context_grad import unsupported
from sftkey.training.saving import CheckpointSaving
from sftkey.training.trainer import SegmentLossTrainer
from sftkey.util.errors import UserError


class SFTKeyTrainer(CheckpointSaving, AxolotlTrainer, SegmentLossTrainer):
    """`AxolotlTrainer` whose loss is computed by `SegmentLossTrainer`, and whose checkpoints name their files.

    The order of the bases puts `SegmentLossTrainer` right before `Trainer`, so everything that Axolotl's trainer and its
    mixins do around the loss (token counters, packing, context managers) stays as it is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # AxolotlTrainer (0.19) turns this off for models whose forward doesn't name num_items_in_batch, which would make
        # the loss a mean of micro-batch means; ours always uses it.
        self.model_accepts_loss_kwargs = True
        side = getattr(self.processing_class, "padding_side", "right")
        for name in ("data_collator", "train_data_collator", "eval_data_collator"):
            collator = getattr(self, name, None)
            if collator is not None and not isinstance(collator, SegmentCollator):
                setattr(self, name, SegmentCollator(collator, side))

    def configure_segment_loss(self, *, context_grad: bool = True, **options: Any) -> None:
        """As `SegmentLossTrainer.configure_segment_loss`; the error names the recipe key."""
        model: Any = self.model
        reason = None if context_grad else unsupported(model)
        if reason is not None:
            raise UserError(f"sftkey_context_grad: false can't be had here: {reason}; remove it")
        super().configure_segment_loss(context_grad=context_grad, **options)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        # AxolotlTrainer (0.21) counts anew under tensor parallelism: without weights, and for one process alone.
        return SegmentLossTrainer._get_num_items_in_batch(self, batch_samples, device)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        # AxolotlTrainer (0.21) balances labels only with collators that it knows by their type.
        collator = self.data_collator
        if isinstance(collator, SegmentCollator):
            self.data_collator = collator.collator
        try:
            return super()._get_train_sampler(*args, **kwargs)
        finally:
            self.data_collator = collator
