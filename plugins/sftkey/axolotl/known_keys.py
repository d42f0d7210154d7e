"""The recipe keys that Axolotl, the plugins that it loaded and this one know."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args

import click
from axolotl.cli import args
from axolotl.integrations.config import merge_input_args
from pydantic import BaseModel

from sftkey.recipes.keys import KEYS
from sftkey.recipes.load import Recipe, is_prepared
from sftkey.recipes.plugins import check_plugins
from sftkey.recipes.settings import ROLES
from sftkey.recipes.unknown_keys import KnownKeys, check_keys
from sftkey.util.errors import UserError, nearest

# Read by Axolotl beside its schema.
_BESIDE = ("inference", "model_config_type", "nvfp4_merge_aware", "capabilities", "env_capabilities", "is_preprocess")


def known_keys() -> KnownKeys:
    """Every key; for one whose value is a mapping with keys of its own those, else ``None``."""
    known: dict[str, Any] = dict.fromkeys((*KEYS, *_BESIDE, *(key for key in ROLES if not key.endswith("*"))))
    # Command-line options of Axolotl's commands, which it writes into the recipe.
    for group in vars(args).values():
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            known |= dict.fromkeys(field.name for field in dataclasses.fields(group))
    for name, field in merge_input_args()[0].model_fields.items():
        models = [] if name in ("datasets", "test_datasets") else list(_models(field.annotation))
        alone = len(models) == 1 and models[0].model_config.get("extra") != "allow"
        inner = frozenset({*_names(models[0])}) if alone else None
        known |= dict.fromkeys(
            (name, *(one for one in (field.alias, field.validation_alias) if isinstance(one, str))), inner
        )
    return known


def unknown_keys(cfg: Recipe) -> list[str]:
    """Check the plugins and the keys of a recipe; return what to warn of, and raise as their checks do."""
    check_plugins(cfg)
    _options()
    # Otherwise it was prepared already, as a Ray worker gets it, with keys of Axolotl's own.
    return check_keys(cfg, known_keys()) if not is_prepared(cfg) else []


def _options() -> None:
    """Refuse what Axolotl takes for an option of a launcher, where it starts none; others refuse it themselves."""
    command = click.get_current_context(silent=True)
    if command is None or command.params.get("launcher") != "python":
        return
    for given in (argument.partition("=")[0] for argument in command.args if argument.startswith("--")):
        near = nearest(given, [name for option in command.command.params for name in option.opts])
        raise UserError(f"{given}: axolotl {command.info_name} has no such option; did you mean {near}?")


def _names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        yield from (one for one in (field.alias, field.validation_alias) if isinstance(one, str))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    # Not into a list: its items have the keys, not it.
    elif getattr(annotation, "__origin__", None) is not list:
        for inner in get_args(annotation):
            yield from _models(inner)
