"""What the keys of a recipe are for (one table), and which settings two runs must share to be the same run."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class Role(enum.Flag):
    """The roles that a recipe key can have. A key without one is an ordinary setting of the training."""

    NOT_TRAINING = enum.auto()
    """May differ between a run and its resumption: where things are, what is logged, how work is spread."""
    NOT_VARIANT = enum.auto()
    """Not named by the report where runs differ in it."""
    DATA = enum.auto()
    """Decides the tokens and labels of the prepared data, with what Axolotl's own name for it already says."""
    PLACE = enum.auto()
    """Where this run reported to; not shared: of no use to others, and their runs would go to the same place."""
    COMMAND_LINE = enum.auto()
    """Added to a recipe by ``axolotl train`` from its own options; not shared."""
    SHOWN = enum.auto()
    """In a model card's table of settings, in the order of `ROLES`."""
    ONE_STAGE = enum.auto()
    """In ``sftkey recipe``: an override is not passed on to the stage before."""
    LAST_STAGE = enum.auto()
    """In ``sftkey run``: an override holds for the last stage alone; it can't hold for two."""
    PER_STAGE = enum.auto()
    """In ``sftkey run``: an override is refused for a chain, as each stage needs its own value."""


_ELSEWHERE = Role.NOT_TRAINING | Role.NOT_VARIANT


def _each(keys: str, roles: Role) -> dict[str, Role]:
    return dict.fromkeys(keys.split(), roles)


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        # The stage: what it starts from, where it goes.
        "base_model": Role.NOT_VARIANT | Role.ONE_STAGE | Role.PER_STAGE,
        "lora_model_dir": Role.NOT_VARIANT | Role.ONE_STAGE | Role.PER_STAGE,
        **_each("base_model_config tokenizer_config", Role.NOT_VARIANT | Role.PER_STAGE),
        "output_dir": _ELSEWHERE | Role.ONE_STAGE | Role.LAST_STAGE,
        "sftkey_after": Role.NOT_VARIANT | Role.ONE_STAGE,
        "sftkey_method": Role.ONE_STAGE | Role.DATA,
        **_each("sftkey_other_data chat_template", Role.ONE_STAGE),
        "resume_from_checkpoint": Role.NOT_TRAINING | Role.PER_STAGE,
        "auto_resume_from_checkpoints": Role.NOT_TRAINING,
        "sftkey_accept_changes": _ELSEWHERE | Role.ONE_STAGE | Role.PER_STAGE,
        # Training.
        **_each("learning_rate lr_scheduler optimizer weight_decay num_epochs max_steps", Role.SHOWN),
        **_each("sftkey_warmup_epochs micro_batch_size gradient_accumulation_steps", Role.SHOWN),
        "sequence_len": Role.SHOWN | Role.DATA,
        **_each("bf16 adapter lora_r lora_alpha sftkey_tags", Role.SHOWN),
        "sftkey_format": Role.SHOWN | Role.DATA,
        **_each("sftkey_segment_weights sftkey_segment_schedule", Role.SHOWN | Role.DATA),
        **_each("sftkey_objective sftkey_reference_model", Role.SHOWN | Role.ONE_STAGE | Role.LAST_STAGE),
        **_each("sftkey_context_grad seed", Role.SHOWN),
        # Data.
        "datasets": Role.NOT_VARIANT | Role.DATA,
        **_each("test_datasets sftkey_columns sftkey_held_out sftkey_turns eval_sequence_len", Role.DATA),
        "excess_length_strategy": Role.DATA,
        "sftkey_answers": Role.NOT_TRAINING,
        **_each("chat_template_jinja tokens special_tokens", Role.DATA),
        "dataset_prepared_path": _ELSEWHERE,
        **_each("dataset_num_proc dataset_keep_in_memory", Role.NOT_TRAINING),
        **_each("dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor", Role.NOT_TRAINING),
        # Logging, saving, evaluating.
        **_each("logging_steps save_* eval_*", _ELSEWHERE),
        **_each("saves_per_epoch evals_per_epoch include_tkps use_tensorboard", Role.NOT_TRAINING),
        **_each("wandb_* mlflow_* comet_* trackio_* hub_*", _ELSEWHERE | Role.PLACE),
        **_each("use_wandb use_mlflow use_comet use_trackio", Role.NOT_TRAINING | Role.PLACE),
        "hub_model_id": Role.ONE_STAGE | Role.LAST_STAGE,
        # How it is launched and checked.
        **_each("debug debug_text_only debug_num_examples prompter shard", Role.NOT_TRAINING | Role.COMMAND_LINE),
        **_each("axolotl_config_path strict", _ELSEWHERE),
        "ddp_timeout": Role.NOT_TRAINING,
        "plugins": Role.NOT_VARIANT,
    }
)
"""Every key with a role; ``wandb_*`` stands for all keys that begin with ``wandb_``. A key may match several lines."""


def matches(key: str, pattern: str) -> bool:
    """Whether a pattern, such as a line of `ROLES`, is about a key."""
    return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern


def has_role(key: str, role: Role) -> bool:
    """Whether a recipe key has a role."""
    return any(role in roles and matches(key, pattern) for pattern, roles in ROLES.items())


def keys_with(role: Role) -> tuple[str, ...]:
    """The keys of a role, in the order of `ROLES`."""
    return tuple(pattern for pattern, roles in ROLES.items() if role in roles)


def plain(value: Any) -> Any:
    """Convert a value to what JSON gives back, so that settings compare equal after being written and read."""
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def training_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Select the settings of a recipe that decide the trained weights.

    Args:
        recipe: The raw recipe, after `sftkey.stages.handover.start_from`.
    """
    return {
        str(key): plain(value)
        for key, value in recipe.items()
        if value is not None and not has_role(str(key), Role.NOT_TRAINING)
    }


def changed_settings(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the settings in which two runs differ, as ``key: earlier -> now``.

    Args:
        earlier: `training_settings` as a marker or run file holds them.
        now: `training_settings` of the recipe.
    """
    earlier, now = training_settings(earlier), training_settings(now)
    return [
        f"{key}: {earlier.get(key)!r} -> {now.get(key)!r}"
        for key in sorted({*earlier, *now})
        if not alike(earlier.get(key), now.get(key))
    ]


def alike(one: Any, other: Any) -> bool:
    """Compare two settings across parsers: ``"1e-5"`` from a command line is ``1.0e-5`` in YAML."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if one == other:
        return True
    if one is None or other is None:
        return False
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return str(one).lower() == str(other).lower()
