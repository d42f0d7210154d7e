"""The configuration of one stage for another trainer: its arguments, and which recipe keys they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sftkey.format.methods import METHODS
from sftkey.recipes.hf_arguments import HF_ARGUMENTS
from sftkey.recipes.load import adds_tag_tokens, deepspeed_settings, has_own_template, warmup_ratio
from sftkey.recipes.settings import Role, has_role, plain
from sftkey.training.objectives.registry import recipe_objective
from sftkey.training.weights import stage_weights
from sftkey.util.errors import UserError

_TAKEN_OVER = """
    plugins sftkey_* datasets test_datasets chat_template default_system_message output_dir adapter lora_target_modules
    lora_target_linear attn_implementation load_in_4bit tokens axolotl_config_path sequence_len
""".split()
"""Keys that are in the rows, or in what a trainer's module sets."""


def refuse_inexpressible(cfg: Mapping[str, Any], trainer: ModuleType) -> None:
    """Refuse a recipe that another trainer would train as something else.

    Raises:
        UserError: Names the key.
    """
    for key, value, why in (
        (
            "sftkey_segment_schedule",
            cfg.get("sftkey_segment_schedule"),
            "it has no weights that change during training",
        ),
        (
            "sftkey_objective",
            not recipe_objective(cfg).plain,
            "the objective would be another loss there",
        ),
        ("sftkey_context_grad", cfg.get("sftkey_context_grad") is False, "it trains with the whole gradient"),
        ("sftkey_format, chat_template", has_own_template(cfg), "the model's own chat template has no form there"),
    ):
        if value:
            raise UserError(f"{key}: {trainer.NAME} can't do that ({why}); remove the key, or train with Axolotl")
    start, _ = stage_weights(METHODS[cfg["sftkey_method"]], cfg.get("sftkey_segment_weights"), None)
    trainer.check(cfg, {1.0} if start is None else set(start.tolist()))


def configuration(
    cfg: Mapping[str, Any], trainer: ModuleType, name: str, *, evaluation: str | None, tags: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a stage, and a line for each key of its recipe that isn't among them."""
    start, _ = stage_weights(METHODS[cfg["sftkey_method"]], cfg.get("sftkey_segment_weights"), None)
    weighted = start is not None and bool(set(start.tolist()) - {0.0, 1.0})
    names = {**HF_ARGUMENTS, **trainer.ARGUMENTS}
    given = {names[key]: plain(value) for key, value in cfg.items() if key in names and value is not None}
    own = trainer.settings(cfg, name, evaluation, tags if adds_tag_tokens(cfg) else [], weighted)
    given |= {key: value for key, value in own.items() if value is not None} | {"output_dir": cfg["output_dir"]}
    if given.get("bf16") == "auto":
        given["bf16"] = True
    left = []
    if given.get("tf32") == "auto":
        del given["tf32"]
    if cfg.get("sftkey_warmup_epochs") is not None:
        given["warmup_ratio"] = warmup_ratio(cfg)
    handled = {*names, "sftkey_warmup_epochs"}
    for many, strategy in (("saves_per_epoch", "save_strategy"), ("evals_per_epoch", "eval_strategy")):
        if cfg.get(many) == 1:
            given[strategy] = "epoch"
            handled.add(many)
    left += [
        f"{key}: {plain(value)!r} has no counterpart here and is left out"
        for key, value in cfg.items()
        if value not in (None, False) and key not in handled and not _in_rows(key)
    ]
    return given, left


def _in_rows(key: str) -> bool:
    return any(key == one or (one.endswith("*") and key.startswith(one[:-1])) for one in _TAKEN_OVER) or has_role(
        key, Role.NOT_TRAINING | Role.PLACE
    )


def deepspeed_of(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """The recipe's DeepSpeed settings."""
    return deepspeed_settings(cfg.get("deepspeed"), Path(str(cfg["axolotl_config_path"])).parent)
