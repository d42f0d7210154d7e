"""Axolotl's trainer with the segment loss."""

from __future__ import annotations

from typing import Any

from axolotl.core.trainers.base import AxolotlTrainer

from sftkey.trainer import SegmentCollator, SegmentLossTrainer


class SFTKeyTrainer(AxolotlTrainer, SegmentLossTrainer):
    """`AxolotlTrainer` whose loss is computed by `SegmentLossTrainer`.

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
