"""Code that a recipe names: looking at a recipe never runs it, unless the user says so."""

from __future__ import annotations

from sftkey.datasets.registry import TYPES
from sftkey.recipes.load import Recipe, data_entries
from sftkey.util.errors import UserError

_OURS_AND_AXOLOTLS = ("sftkey.", "axolotl.")


def code_for_rows(cfg: Recipe) -> list[str]:
    """What reading a recipe's rows with its tokenizer would run: the code of its model and of its data sets.

    Args:
        cfg: The raw recipe, of any shape.

    Returns:
        Each as the recipe says it, such as ``datasets[0]: type: my_lab.svamp``.
    """
    found = ["trust_remote_code: true"] if cfg.get("trust_remote_code") else []
    for place, entry in data_entries(cfg):
        if not isinstance(entry, dict):
            continue
        kind = entry.get("type")
        if isinstance(kind, str) and "." in kind and not kind.startswith(TYPES):
            found.append(f"{place}: type: {kind}")
        if entry.get("trust_remote_code"):
            found.append(f"{place}: trust_remote_code: true")
        if "pandas" in (entry.get("ds_type"), entry.get("path")):
            # A pickle runs what its writer likes.
            found.append(f"{place}: pandas files are pickles")
    return found


def code_for_training(cfg: Recipe) -> list[str]:
    """What training would run in addition: plugins that are neither this package's nor Axolotl's."""
    plugins = cfg.get("plugins")
    return [f"plugins: {name}" for name in plugins if _is_foreign(name)] if isinstance(plugins, list) else []


def refuse_foreign_code(cfg: Recipe, name: str) -> None:
    """Refuse to read the rows of a recipe that would run code of its own.

    Raises:
        UserError: It would.
    """
    if found := code_for_rows(cfg):
        raise UserError(
            f"{name} runs code that it names ({'; '.join(found)}); give --trust-remote-code if you know and trust that code"
        )


def _is_foreign(name: object) -> bool:
    return isinstance(name, str) and not name.startswith(_OURS_AND_AXOLOTLS)
