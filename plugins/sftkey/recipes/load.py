"""A recipe file, and what its keys mean for a stage."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sftkey.format.formats import THINKING_ANSWER, read_format
from sftkey.format.methods import METHODS
from sftkey.format.response_format import ResponseFormat
from sftkey.format.templates import PLAIN, TAGGED, chat_template, system_prompt
from sftkey.recipes.yaml_file import read_yaml
from sftkey.util.errors import UserError

Recipe = Mapping[str, Any]

TOKENIZER_DEFAULT = "tokenizer_default"
"""Axolotl's name for the chat template that the tokenizer brings."""

PREPARED_FOLDER = r"sftkey-[a-z-]+-[0-9a-f]{16}"
"""What a folder of prepared data is called."""

OWN_TEMPLATES = (TOKENIZER_DEFAULT, "jinja")

DEFAULT_OUTPUT_DIR = "./model-out"
"""Axolotl's."""


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe file.

    Raises:
        UserError: There is no such file, or it isn't a YAML mapping within the bounds of `read_yaml`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no recipe {path}")
    recipe = read_yaml(path)
    if not isinstance(recipe, dict):
        raise UserError(f"{path} is not a recipe: it holds {type(recipe).__name__}, not a mapping of keys")
    return recipe


def recipe_before(cfg: Recipe) -> Path | None:
    """The recipe file that ``sftkey_after`` names, resolved against the recipe's own folder.

    Raises:
        UserError: There is no such file.
    """
    after = cfg.get("sftkey_after")
    if not after:
        return None
    own = cfg.get("axolotl_config_path")
    path = Path(after) if Path(after).is_absolute() or own is None else Path(own).parent / after
    if not path.is_file():
        raise UserError(f"sftkey_after: {after}: there is no file {path}; the path is relative to the recipe's folder")
    return path


def response_format(cfg: Recipe) -> ResponseFormat:
    """How a recipe's tagged responses are written.

    Raises:
        UserError: ``sftkey_format`` is neither a name nor a mapping that outputs can be matched against.
    """
    try:
        return read_format(cfg.get("sftkey_format"))
    except ValueError as error:
        raise UserError(f"sftkey_format: {error}") from error


def template_name(cfg: Recipe) -> str:
    """The chat template of a recipe: the one that it names, or the one that its method and format need."""
    default = TAGGED if METHODS[cfg["sftkey_method"]].tagged else PLAIN
    if response_format(cfg) is not THINKING_ANSWER:
        return str(cfg.get("chat_template") or TOKENIZER_DEFAULT)
    name = cfg.get("chat_template") or default
    if name == "jinja":
        # A recipe that was already prepared, as a Ray worker gets it.
        system = cfg.get("default_system_message") if default == TAGGED else None
        if cfg.get("chat_template_jinja") == chat_template(default, system):
            return default
    return str(name)


def own_system_message(cfg: Recipe) -> str | None:
    """The system message that a recipe puts before a template of the model's own: by default one where it asks for tags."""
    paper = METHODS[cfg["sftkey_method"]].tagged and response_format(cfg) is THINKING_ANSWER
    message = cfg.get("default_system_message") or (system_prompt() if paper else None)
    return None if message is None else str(message)


def is_prepared(cfg: Recipe) -> bool:
    """Whether the plugin has prepared a recipe already, as a Ray worker gets it: its data are in a folder named by it."""
    folder = Path(str(cfg.get("dataset_prepared_path") or "")).name
    return cfg.get("chat_template") == "jinja" and re.fullmatch(PREPARED_FOLDER, folder) is not None


def has_own_template(cfg: Recipe) -> bool:
    """Whether a recipe's prompts are made by the model's own chat template, or one that the recipe brings."""
    return template_name(cfg) in OWN_TEMPLATES


def data_entries(cfg: Recipe) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of ``datasets`` and ``test_datasets``, each with its place, such as ``datasets[0]``."""
    for key in ("datasets", "test_datasets"):
        for index, entry in enumerate(cfg.get(key) or []):
            yield f"{key}[{index}]", entry


def adds_tag_tokens(cfg: Recipe) -> bool:
    """Whether the recipe makes each tag one added token."""
    return cfg.get("sftkey_tags") == "tokens" or response_format(cfg).tags[0] in (cfg.get("tokens") or [])


def warmup_ratio(cfg: Recipe) -> float:
    """The warmup of a recipe as a share of its epochs, which is what Axolotl knows."""
    return float(cfg["sftkey_warmup_epochs"]) / float(cfg.get("num_epochs") or 1)


def deepspeed_settings(value: Any, folder: Path) -> dict[str, Any] | None:
    """Read the settings that ``deepspeed:`` names.

    Args:
        value: The recipe's value: a path relative to the working directory or to `folder`, or the settings themselves.
        folder: The recipe's folder.

    Raises:
        UserError: There is no such file, or it isn't a JSON object.
    """
    if not value or isinstance(value, dict):
        return value or None
    # os.path, which takes a name that is too long for one that isn't there.
    path = next((path for path in (Path(str(value)), folder / str(value)) if os.path.isfile(path)), None)
    if path is None:
        raise UserError(f"deepspeed: {value}: there is no such file, neither here nor in {folder}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"deepspeed: {path} is not valid JSON ({error})") from error
    if not isinstance(settings, dict):
        raise UserError(f"deepspeed: {path} holds no JSON object")
    return settings


def zero_stage(cfg: Recipe) -> int | None:
    """Read the ZeRO stage of a recipe's DeepSpeed settings; ``None`` where there are none, or they don't say."""
    value = cfg.get("deepspeed")
    try:
        settings = deepspeed_settings(value, Path(str(cfg.get("axolotl_config_path") or "")).parent) or {}
    except (OSError, UserError):
        # Axolotl, which reads the file next, says what is wrong with it.
        return 3 if "zero3" in str(value) else None
    zero = settings.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, Mapping) else None
    return stage if isinstance(stage, int) else None


def fsdp_version(cfg: Recipe) -> int | None:
    """Read which FSDP a recipe shards with; ``None`` where it doesn't."""
    if not (cfg.get("fsdp") or cfg.get("fsdp_config")):
        return None
    options = _fsdp_options(cfg)
    named = cfg.get("fsdp_version") or options.get("fsdp_version") or options.get("version")
    return 2 if str(named) == "2" else 1


def checkpoints_in_fsdp(cfg: Recipe) -> bool:
    """Whether FSDP, and not ``gradient_checkpointing``, runs layers again for the backward pass."""
    options = _fsdp_options(cfg)
    return bool(options.get("activation_checkpointing") or options.get("fsdp_activation_checkpointing"))


def _fsdp_options(cfg: Recipe) -> Mapping[str, Any]:
    given = cfg.get("fsdp_config")
    return given if isinstance(given, Mapping) else {}
