"""Plan a chain: a recipe and the recipes that it builds on, as stages in order, and how far each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftkey.recipes.checks import check_recipe
from sftkey.recipes.load import load_recipe, recipe_before
from sftkey.recipes.settings import Role, has_role, training_settings
from sftkey.stages.handover import check_agreement, stages_before, start_settings
from sftkey.stages.lineage import lineage_of
from sftkey.stages.lineage_check import check_stage
from sftkey.stages.links import MERGED_FOLDER
from sftkey.stages.marker import Lineage
from sftkey.stages.readiness import refuse_missing_part
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError


@dataclass(frozen=True)
class Override:
    """One option from the command line that replaces a value of a recipe; `arguments` are how it was typed."""

    key: str
    value: Any
    arguments: tuple[str, ...]


def plan_chain(
    recipe: str | Path, overrides: Sequence[Override] = (), *, last_only: bool = False, run_code: bool = True
) -> tuple[Stage, ...]:
    """Follow ``sftkey_after`` back and look how far each stage is.

    Args:
        recipe: The recipe of the last stage.
        overrides: Options from the command line. They hold for every stage, except those of `Role.LAST_STAGE`.
        last_only: Let all overrides hold for the last stage alone.
        run_code: See `check_recipe`.

    Returns:
        The stages, first one first.

    Raises:
        UserError: A recipe is missing or wrong, the recipes go round in a circle, two stages share an output directory or
            don't fit together, a stage is finished or under way with other settings or from an earlier stage before, a
            marker is broken, or an override can't hold for more than one stage.
    """
    earlier = [] if last_only else [o for o in overrides if not has_role(o.key, Role.LAST_STAGE)]
    path = Path(recipe)
    config = {**load_recipe(path), "axolotl_config_path": str(path)}
    _override(config, overrides, run_code)
    before = recipe_before(config)
    if before is not None:
        _refuse_ambiguous(earlier, f"{before.name} and {path.name}")
    stages = [Stage.of_recipe(path, config, _arguments(overrides))]
    for stage in stages_before(config, lambda its: _override(its, earlier, run_code)):
        stages.insert(0, replace(stage, arguments=_arguments(earlier)))
    _refuse_shared_places(stages)
    linked: Stage | None = None
    for stage in stages:
        linked = replace(stage, linked_before=linked)
        linked = replace(linked, remarks=tuple(_check(linked)))
    return linked.chain if linked else ()


def refreshed(stage: Stage) -> Stage:
    """Read a planned stage and those before it from disk again, and check them as `plan_chain` does."""
    before = refreshed(stage.linked_before) if stage.linked_before else None
    now = replace(
        Stage.of_recipe(stage.recipe, stage.config, stage.arguments),
        linked_before=before,
        as_trained=stage.as_trained,
        part=stage.part,
    )
    return replace(now, remarks=tuple(_check(now)))


def _override(config: dict[str, Any], overrides: Sequence[Override], run_code: bool) -> None:
    for override in overrides:
        _apply(override, config)
    check_recipe(config, run_code=run_code)


def _arguments(overrides: Sequence[Override]) -> tuple[str, ...]:
    return tuple(argument for override in overrides for argument in override.arguments)


def _refuse_ambiguous(overrides: Sequence[Override], names: str) -> None:
    for override in overrides:
        if has_role(override.key, Role.PER_STAGE):
            raise UserError(
                f"{override.arguments[0]}: {names} would each need another value; set {override.key} in the recipe, or add "
                "--last-only if it is meant for the last stage"
            )


def _refuse_shared_places(stages: Sequence[Stage]) -> None:
    seen: dict[Path, Stage] = {}
    for stage in stages:
        place = stage.output_dir.resolve()
        other = seen.setdefault(place, stage)
        if other is not stage:
            raise UserError(
                f"{other.recipe.name} and {stage.recipe.name} both write to output_dir {place}; give each its own"
            )


def _check(stage: Stage) -> list[str]:
    """Find out before the first stage is trained, not after, what keeps this one from starting or going on."""
    name, before = stage.recipe.name, stage.before
    settings = stage.config
    if before is not None:
        check_agreement(stage.config, before)
        if before.finished and before.part != MERGED_FOLDER:  # `sftkey run` merges
            refuse_missing_part(before, adapter=bool(stage.config.get("adapter")))
        settings = {**stage.config, **start_settings(stage.config, before)}
    if stage.as_trained:  # by a recipe of its own, whose settings and data aren't those of this file
        return check_stage(stage, settings, Lineage(), None, f"{name}: ")
    return check_stage(
        stage, settings, lineage_of(settings, read_weights=False), training_settings(settings), f"{name}: "
    )


def _apply(override: Override, config: dict[str, Any]) -> None:
    """Set a value as Axolotl's command line does: ``trl__beta`` is ``beta`` inside ``trl``."""
    parent, separator, child = override.key.partition("__")
    if separator:
        inside = config.get(parent)
        config[parent] = inside = dict(inside) if isinstance(inside, Mapping) else {}
        inside[child] = _as_in_the_recipe(override.value, inside.get(child))
    else:
        config[override.key] = _as_in_the_recipe(override.value, config.get(override.key))


def _as_in_the_recipe(value: Any, existing: Any) -> Any:
    """A value from the command line as Axolotl will read it: of the type that the recipe has, else as YAML."""
    if not isinstance(value, str):
        return value
    lower = value.lower()
    if isinstance(existing, str):
        return value
    if isinstance(existing, bool) or existing is None:
        for word, meaning in (("true", True), ("yes", True), ("false", False), ("no", False), ("none", None)):
            if lower == word:
                return meaning
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
