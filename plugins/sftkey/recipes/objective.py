"""What a recipe says of its objective (``sftkey_objective``)."""

from __future__ import annotations

from sftkey.format.methods import METHODS
from sftkey.format.segments import SEGMENT_GROUPS
from sftkey.recipes.load import Recipe
from sftkey.training.objectives.registry import recipe_objective
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
    if reason is not None:
        raise UserError(f"sftkey_objective: {objective.name} with sftkey_method: {cfg['sftkey_method']}: {reason}")
