"""The loss that a recipe asks for, for every front end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkey.format.methods import METHODS
from sftkey.training.objectives.registry import recipe_objective
from sftkey.training.weights import stage_weights


def loss_options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `sftkey.training.trainer.SegmentLossTrainer.configure_segment_loss` of a checked recipe."""
    start, end = cfg.get("sftkey_segment_weights"), cfg.get("sftkey_segment_schedule")
    weights, end_weights = stage_weights(METHODS[cfg["sftkey_method"]], start, end)
    return {
        "sparse_logits": cfg.get("sftkey_sparse_logits") is not False,
        "weights": weights,
        "end_weights": end_weights,
        "context_grad": cfg.get("sftkey_context_grad") is not False,
        "objective": recipe_objective(cfg),
    }
