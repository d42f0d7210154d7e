"""The data sets by name, and any other module's by its dotted path. A module is imported when its data set is asked for."""

from __future__ import annotations

import inspect
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sftkey.datasets.base import ReasoningDataset
from sftkey.util.errors import UserError, nearest

DATASETS = (
    "gsm8k",
    "openr1_math",
    "openbookqa",
    "cot_collection",
    "commonsenseqa",
)
"""The data sets that are shipped. A name is that of the module and of the `ReasoningDataset` in it."""

PAPER = ("gsm8k", "openr1_math", "openbookqa", "cot_collection")
"""The paper's data sets (section 3), in the order of its tables."""

OWN_DATA = ("columns", "messages")
"""The modules for a user's own rows; a recipe says where those are."""

TYPES = f"{__package__}."
"""What a recipe's ``type:`` begins with for the modules of this package."""

MAX_MODULES = 1_000
"""So many modules of another package at most are read for `source_of`."""


def dataset(name: str) -> ReasoningDataset:
    """Look a shipped data set up.

    Args:
        name: One of `DATASETS`.

    Raises:
        UserError: There is no such data set.
    """
    if name not in DATASETS:
        own = " or ".join(f"{TYPES}{module}" for module in OWN_DATA)
        raise UserError(
            f"unknown data set {name!r}; did you mean {nearest(name, DATASETS)!r}? There are {', '.join(DATASETS)}; "
            f"for own rows write a recipe with type: {own}"
        )
    return _in_module(import_module(TYPES + name))


def find_dataset(name: str) -> ReasoningDataset:
    """The data set of a name or of a dotted module, of this package or of another one.

    A dotted module is imported, which runs code of the user's own environment, exactly as Axolotl's ``type:`` does.
    Never call this with what a marker or a results file says: it may be a stranger's.

    Args:
        name: One of `DATASETS` and `OWN_DATA`, or a module such as ``my_lab.svamp`` that has a `ReasoningDataset` and
            ``load``, the function that Axolotl calls.

    Raises:
        UserError: There is no such module, it can't be imported, or it holds no data set.
    """
    module = name.removeprefix(TYPES)
    if "." not in module:
        return _in_module(import_module(TYPES + module)) if module in OWN_DATA else dataset(module)
    try:
        imported = import_module(module)
    except Exception as error:  # whatever the module's own code raises
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"{module!r} can't be imported ({reason}); install its package, or name its folder in PYTHONPATH"
        ) from error
    return _in_module(imported)


def naming_keys(kind: Any) -> str:
    """Which recipe keys say what the columns, keys and roles of own rows are called; for a message."""
    return {
        f"{TYPES}columns": "sftkey_columns names the columns of the question, the thinking and the answer",
        f"{TYPES}messages": "field_messages names the column, message_property_mappings the keys of role and content, roles "
        "the roles, field_thinking the key of the reasoning",
    }.get(
        str(kind),
        "Its type reads other rows; your own have the type sftkey.datasets.columns or sftkey.datasets.messages",
    )


def source_of(name: str) -> str:
    """The source of another package's code, on which the prepared rows depend.

    Args:
        name: A module that `find_dataset` found.

    Returns:
        The text of the module and of the loaded modules in the folder of its top-level package, `MAX_MODULES` at most,
        each after its name; empty for this package, for which its version stands.
    """
    package = name.partition(".")[0]
    if package == TYPES.partition(".")[0] or name not in sys.modules:
        return ""
    folders = list(getattr(sys.modules.get(package), "__path__", ()))
    others = sorted(module for module in list(sys.modules) if module.partition(".")[0] == package and module != name)
    inside = [module for module in others if _is_in(sys.modules[module], folders)]
    return "".join(f"# {module}\n{_text(sys.modules[module])}\n" for module in [name, *inside][:MAX_MODULES])


def _is_in(module: ModuleType, folders: list[str]) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and any(Path(file).is_relative_to(folder) for folder in folders)


def _text(module: ModuleType) -> str:
    """The source; empty where there is none."""
    with suppress(OSError, TypeError):
        return inspect.getsource(module)
    return ""


def _in_module(module: ModuleType) -> ReasoningDataset:
    """The data set that the module's ``load`` belongs to, or else the only one in the module."""
    load = getattr(module, "load", None)
    owner = getattr(load, "__self__", None)
    if isinstance(owner, ReasoningDataset):
        return owner
    found = {id(value): value for value in vars(module).values() if isinstance(value, ReasoningDataset)}
    if callable(load) and len(found) == 1:
        return next(iter(found.values()))
    raise UserError(
        f"{module.__name__!r} has {len(found) or 'no'} ReasoningDataset and {'a' if callable(load) else 'no'} `load`; a "
        "module of a data set ends with `load = MY_DATA.load`, where MY_DATA is its ReasoningDataset"
    )
