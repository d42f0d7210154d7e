"""Dynamic fine-tuning (DFT): each token's loss weighs as much as the model believes in the token (Wu et al. 2025, Eq. 9)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sftkey.training.collator import SEGMENTS_COLUMN
from sftkey.training.placement import ON_CPU
from sftkey.training.targets import find_targets
from sftkey.training.trainer import SegmentLossTrainer


class DynamicFineTuningTrainer(SegmentLossTrainer):
    """`SegmentLossTrainer` with the loss ``-sg(p) log p`` of every labelled token, averaged as ever."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss; nothing is measured per segment."""
        inputs = dict(inputs)
        on_cpu = inputs.pop(ON_CPU, inputs)
        targets = find_targets(None, on_cpu["labels"], None, None, frozenset()).to(model.device)
        inputs = {name: value for name, value in inputs.items() if name not in ("labels", SEGMENTS_COLUMN)}
        # The output layer at the targets only: accelerate's autocast is around the whole model's forward, not its parts'.
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self.args.bf16):
            hidden = model.base_model(**inputs).last_hidden_state
            logits = model.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, targets.rows))
        losses = F.cross_entropy(logits.float(), targets.ids, reduction="none")
        loss = (losses * losses.detach().neg().exp()).sum() / num_items_in_batch
        return (loss, None) if return_outputs else loss
