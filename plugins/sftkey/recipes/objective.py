"""What a recipe says of its objective (``sftkey_objective``)."""

from __future__ import annotations

import os

from sftkey.format.methods import METHODS
from sftkey.format.segments import SEGMENT_GROUPS
from sftkey.recipes.load import Recipe
from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.registry import recipe_objective
from sftkey.training.objectives.tokens import REFERENCE_COLUMNS
from sftkey.util.errors import UserError


def check_objective(cfg: Recipe) -> None:
    """Check the objective of a recipe whose method and weights have been checked.

    Raises:
        UserError: There is no such objective, it has no such key, or the recipe leaves it nothing to do.
    """
    try:
        objective = recipe_objective(cfg)
    except ValueError as error:
        raise UserError(f"sftkey_objective: {error}") from error
    weights = [cfg.get(key) or {} for key in ("sftkey_segment_weights", "sftkey_segment_schedule")]
    trained = METHODS[cfg["sftkey_method"]].trained
    weighted = [group for name, group in SEGMENT_GROUPS.items() if any(given.get(name) for given in weights)]
    reason = objective.obstacle(trained.union(*weighted), any(weights))
    reason = reason or _reference(cfg, objective)
    if reason is not None:
        raise UserError(f"sftkey_objective: {objective.name} with sftkey_method: {cfg['sftkey_method']}: {reason}")


def _reference(cfg: Recipe, objective: Objective) -> str | None:
    """What is wrong with the reference model, and what to change."""
    needed, named = objective.columns.keys() & REFERENCE_COLUMNS, cfg.get("sftkey_reference_model")
    if named and not needed:
        return f"it takes no reference model; remove sftkey_reference_model: {named}"
    if needed and not named:
        return (
            "it takes a reference model; add sftkey_reference_model: a model, a finished stage's output_dir, or before"
        )
    if named == "before" and not cfg.get("sftkey_after"):
        return (
            "sftkey_reference_model: before is the stage that this one starts from; add sftkey_after, or name a model"
        )
    if named and cfg.get("output_dir") and os.path.abspath(named) == os.path.abspath(cfg["output_dir"]):
        return f"its reference, {named}, is this stage's own output_dir; name a model that is there before it"
    if named == "before" and "excess_rank" in needed:
        return "it compares its reference with what training starts from, which is before; name another"
    return None
