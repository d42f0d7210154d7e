"""A recipe and the recipes that it builds on, as an ordered list of stages: what is finished, and what is left to run.

Reads recipes, markers and checkpoints only; neither torch nor Axolotl is imported.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftkey.recipes.checks import check_recipe
from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, adds_tag_tokens, load_recipe, recipe_before
from sftkey.recipes.settings import Role, changed_settings, has_role, training_settings
from sftkey.stages.handover import (
    check_agreement,
    data_identity,
    output_before,
    template_fingerprint,
    tokenizer_file_sha256,
)
from sftkey.stages.marker import checkpoints, read_marker, read_run
from sftkey.util.errors import UserError


class State(enum.Enum):
    """How far a stage is."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Override:
    """One option from the command line that replaces a value of a recipe.

    Attributes:
        key: The recipe's key, such as ``learning_rate``.
        value: The value as given.
        arguments: The option as it was typed, to be passed on.
    """

    key: str
    value: Any
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """One stage of a chain.

    Attributes:
        recipe: The recipe file.
        config: Its keys, with the overrides that hold for it.
        output_dir: Where its weights go, as the recipe names it.
        state: How far it is.
        marker: The completion marker, once finished.
        resume_from: The checkpoint that an unfinished stage goes on from; ``None`` where it starts at the beginning.
        arguments: The options to pass to ``axolotl train``.
        before: The stage that it starts from.
        as_trained: Whether it was trained into another place than the recipe says: its settings are then its own.
    """

    recipe: Path
    config: Mapping[str, Any] = field(repr=False)
    output_dir: Path
    state: State
    marker: Mapping[str, Any] | None = field(repr=False)
    resume_from: Path | None
    arguments: tuple[str, ...]
    before: Stage | None = field(repr=False)
    as_trained: bool = False

    @property
    def method(self) -> str:
        """The value of ``sftkey_method``."""
        return str(self.config.get("sftkey_method"))

    @property
    def finished(self) -> bool:
        """Whether its completion marker is there."""
        return self.state is State.FINISHED

    @property
    def chain(self) -> tuple[Stage, ...]:
        """All stages from the first to this one."""
        return (*(self.before.chain if self.before else ()), self)

    def refreshed(self) -> Stage:
        """The stage as it is on disk now."""
        before = self.before.refreshed() if self.before else None
        return _stage(self.recipe, dict(self.config), self.arguments, before, as_trained=self.as_trained)


def plan_chain(recipe: str | Path, overrides: Sequence[Override] = (), *, last_only: bool = False) -> tuple[Stage, ...]:
    """Follow ``sftkey_after`` back and look how far each stage is.

    Args:
        recipe: The recipe of the last stage.
        overrides: Options from the command line. They hold for every stage, except those with `Role.LAST_STAGE`.
        last_only: Let all overrides hold for the last stage alone.

    Returns:
        The stages, first one first.

    Raises:
        UserError: A recipe is missing or wrong, a chain leads back to itself, two stages share an output directory or
            don't fit together, a stage is finished or under way with other settings, or an override can't hold for more
            than one stage.
        ValueError: A marker is broken.
    """
    files = _files(Path(recipe))
    if len(files) > 1 and not last_only:
        for override in overrides:
            if has_role(override.key, Role.PER_STAGE):
                names = " and ".join(path.name for path in files)
                raise UserError(
                    f"{override.arguments[0]}: {names} would each need another value; set {override.key} in the recipe, or "
                    "add --last-only if it is meant for the last stage"
                )
    configs, arguments = [], []
    for path in files:
        here = [o for o in overrides if path == files[-1] or not (last_only or has_role(o.key, Role.LAST_STAGE))]
        config = {**load_recipe(path), "axolotl_config_path": str(path)}
        for override in here:
            _apply(override, config)
        check_recipe(config)
        configs.append(config)
        arguments.append(tuple(argument for override in here for argument in override.arguments))
    elsewhere = _places(files, configs)
    stage: Stage | None = None
    for path, config, options in zip(files, configs, arguments, strict=True):
        stage = _stage(path, config, options, stage, as_trained=path in elsewhere)
    assert stage is not None
    return stage.chain


def _places(files: Sequence[Path], configs: Sequence[dict[str, Any]]) -> set[Path]:
    """Let each stage's ``output_dir`` be where the next one starts from.

    Returns:
        The recipes whose stage was trained into another place than the recipe says, by an override at that time.
    """
    elsewhere = set()
    for index in range(len(files) - 1, 0, -1):
        before, path = configs[index - 1], files[index - 1]
        own = str(before.get("output_dir") or DEFAULT_OUTPUT_DIR)
        start = output_before(configs[index], before, path)
        if Path(start).resolve() != Path(own).resolve():
            if read_marker(start) is None:
                raise UserError(
                    f"{files[index].name}: base_model: {start} is neither the output_dir of {path.name} ({own}) nor a "
                    "finished stage; leave base_model out"
                )
            before["output_dir"] = start
            elsewhere.add(path)
    seen: dict[Path, str] = {}
    for path, config in zip(files, configs, strict=True):
        place = Path(str(config.get("output_dir") or DEFAULT_OUTPUT_DIR)).resolve()
        if place in seen:
            raise UserError(f"{seen[place]} and {path.name} both write to output_dir {place}; give each its own")
        seen[place] = path.name
    return elsewhere


def _files(recipe: Path) -> list[Path]:
    files: list[Path] = []
    path: Path | None = recipe
    while path is not None:
        if any(path.resolve() == other.resolve() for other in files):
            circle = " -> ".join([*(other.name for other in files), path.name])
            raise UserError(f"sftkey_after goes round in a circle: {circle}")
        files.append(path)
        path = recipe_before({**load_recipe(path), "axolotl_config_path": str(path)})
    return files[::-1]


def _stage(
    path: Path, config: dict[str, Any], arguments: tuple[str, ...], before: Stage | None, *, as_trained: bool = False
) -> Stage:
    output_dir = Path(str(config.get("output_dir") or DEFAULT_OUTPUT_DIR))
    marker, run = read_marker(output_dir), read_run(output_dir)
    whole, _ = checkpoints(output_dir)
    if before is not None:
        _check_start(path, config, before)
    earlier = marker or (run if whole else None)
    if earlier is not None and not as_trained:
        settings = training_settings({**config, **_start(before)})
        changed = changed_settings(earlier.get("settings") or settings, settings)
        if changed:
            what = "is finished" if marker is not None else "has checkpoints of a run"
            raise UserError(
                f"{path.name}: {output_dir} {what} with other settings ({'; '.join(changed[:5])}). An override holds for "
                "every stage of the chain (--last-only: for the last one); choose another output_dir, or delete that one to "
                "train again"
            )
    if marker is not None:
        _check_age(path, marker, before, output_dir)
        state = State.FINISHED
    else:
        state = State.UNFINISHED if run is not None or whole else State.NOT_STARTED
    return Stage(
        recipe=path,
        config=config,
        output_dir=output_dir,
        state=state,
        marker=marker,
        resume_from=whole[-1] if whole and marker is None and _resumes(config) else None,
        arguments=arguments,
        before=before,
        as_trained=as_trained,
    )


def _resumes(config: Mapping[str, Any]) -> bool:
    return config.get("auto_resume_from_checkpoints") is not False and not config.get("save_only_model")


def _check_start(path: Path, config: Mapping[str, Any], before: Stage) -> None:
    """Find out before the first stage is trained, not after, that the second can't start from it."""
    if before.config.get("adapter") and not config.get("adapter"):
        raise UserError(
            f"{path.name} trains no adapter, but {before.recipe.name} does; set adapter: {before.config['adapter']} in "
            f"{path.name} too, or remove it from {before.recipe.name}"
        )
    marker = before.marker or {
        "method": before.method,
        "tags": "tokens" if adds_tag_tokens(before.config) else "text",
        "chat_template": template_fingerprint(before.config),
        "tokenizer": {"sha256": tokenizer_file_sha256(config.get("tokenizer_config") or before.output_dir)},
        "data": data_identity(before.config),
    }
    check_agreement(config, marker, str(before.output_dir))


def _start(before: Stage | None) -> dict[str, Any]:
    """What `sftkey.stages.handover.start_from` sets in a recipe that starts from a stage."""
    if before is None:
        return {}
    place = str(before.config.get("output_dir") or DEFAULT_OUTPUT_DIR)
    if before.marker is not None and before.config.get("adapter"):
        return {"base_model": before.marker["base_model"], "lora_model_dir": place, "tokenizer_config": place}
    return {"base_model": place}


def _check_age(path: Path, marker: Mapping[str, Any], before: Stage | None, output_dir: Path) -> None:
    """A finished stage must have started from the stage before as that is now, not from an earlier training of it."""
    after = marker.get("after")
    if before is None or not isinstance(after, Mapping):
        return
    if before.marker is not None and before.marker.get("finished_at") != after.get("finished_at"):
        raise UserError(
            f"{path.name}: {output_dir} was trained from an earlier {before.output_dir}, finished "
            f"{after.get('finished_at')}; there is a newer one of {before.marker.get('finished_at')}. Delete {output_dir} to "
            "train it from the newer one"
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
