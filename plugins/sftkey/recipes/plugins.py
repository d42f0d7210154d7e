"""The ``plugins:`` of a recipe: this one is among them, and every other one is there."""

from __future__ import annotations

from importlib.util import find_spec

from sftkey.recipes.load import Recipe
from sftkey.recipes.unknown_keys import nearest_key
from sftkey.util.errors import UserError

OWN_PLUGIN = "sftkey.SFTKeyPlugin"
_OWN_NAMES = (OWN_PLUGIN, "sftkey.axolotl.plugin.SFTKeyPlugin")


def check_plugins(cfg: Recipe) -> None:
    """Check that a recipe lists this plugin, and packages that are installed; none is imported.

    Axolotl goes on without a plugin that it can't import.

    Raises:
        UserError: It doesn't.
    """
    plugins = cfg.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise UserError(f"plugins: {plugins!r} is not a list of names such as [{OWN_PLUGIN}]")
    for name in plugins:
        if name in _OWN_NAMES:
            continue
        if name.startswith("sftkey.") or nearest_key(name, [OWN_PLUGIN.lower()]):
            raise UserError(f"plugins: {name}: there is no such plugin; did you mean {OWN_PLUGIN}?")
        package, dot, _ = name.partition(".")
        if not dot or not package.isidentifier() or not _is_here(package):
            raise UserError(f"plugins: {name}: there is no package {package!r} here; install it, or correct the name")
    if not set(plugins) & set(_OWN_NAMES):
        raise UserError(
            f"plugins: doesn't list {OWN_PLUGIN}, which sftkey_method and the types of datasets: need; add it"
        )


def _is_here(package: str) -> bool:
    # Axolotl looks for its own plugins by their short names, too.
    return find_spec(package) is not None or find_spec(f"axolotl.integrations.{package}") is not None
