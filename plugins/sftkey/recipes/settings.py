"""Which settings two runs must share to be the same run: the comparison that resuming and skipping rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys that may differ between a run and its resumption: where things are, what is logged, how work is spread.
_NOT_TRAINING_SETTINGS = (
    "axolotl_config_path",
    "output_dir",
    "dataset_prepared_path",
    "dataset_num_proc",
    "dataset_keep_in_memory",
    "dataloader_",
    "logging_steps",
    "save_",
    "saves_per_epoch",
    "eval_",
    "evals_per_epoch",
    "resume_from_checkpoint",
    "auto_resume_from_checkpoints",
    "wandb",
    "use_wandb",
    "mlflow",
    "use_mlflow",
    "comet",
    "use_comet",
    "trackio",
    "use_trackio",
    "use_tensorboard",
    "hub_",
    "debug",
    "strict",
    "ddp_timeout",
    "include_tkps",
    "shard",
    "prompter",
)


def plain(value: Any) -> Any:
    """A value as JSON gives it back, so that settings compare equal after being written and read."""
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def training_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe decides the weights that come out.

    Args:
        recipe: The raw recipe, after `sftkey.stages.handover.start_from`.
    """
    return {
        str(key): plain(value)
        for key, value in recipe.items()
        if value is not None and not str(key).startswith(_NOT_TRAINING_SETTINGS)
    }


def changed_settings(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings in which two runs differ, as ``key: earlier -> now``.

    Args:
        earlier: `training_settings` as a marker or run file holds them.
        now: `training_settings` of the recipe.
    """
    earlier, now = training_settings(earlier), training_settings(now)
    return [
        f"{key}: {earlier.get(key)!r} -> {now.get(key)!r}"
        for key in sorted({*earlier, *now})
        if not _alike(earlier.get(key), now.get(key))
    ]


def _alike(one: Any, other: Any) -> bool:
    """Whether two settings are the same, whoever parsed them: ``"1e-5"`` from a command line is ``1.0e-5`` in YAML."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if one == other:
        return True
    if one is None or other is None:
        return False
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return str(one).lower() == str(other).lower()
