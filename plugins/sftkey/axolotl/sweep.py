"""``axolotl train --sweep``: the recipe that is swept, and an output directory for each setting.

Axolotl writes each setting to a file of its own among the temporary files, and trains that.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, load_recipe
from sftkey.util.errors import UserError

_SETTING = re.compile(r"sweep\d{4}")
_LONGEST_RECIPE = 1 << 20


def swept_recipe(cfg: Any) -> str | None:
    """The recipe that is swept: what its own relative paths are relative to; ``None`` where none is.

    Gives the setting an output directory of its own where the command line names one for all.

    Args:
        cfg: The raw recipe of one setting; ``output_dir`` is changed in place.

    Raises:
        UserError: The recipe comes after another one, and isn't found.
    """
    path = Path(str(cfg.get("axolotl_config_path") or ""))
    if path.parent.resolve() != Path(tempfile.gettempdir()).resolve() or not path.is_file():
        return None
    written = str(load_recipe(path).get("output_dir") or "")
    setting = os.path.basename(written)
    if not _SETTING.fullmatch(setting):
        return None
    if str(cfg.get("output_dir")) != written and os.path.basename(str(cfg.get("output_dir"))) != setting:
        cfg["output_dir"] = os.path.join(str(cfg.get("output_dir")), setting)
    after = str(cfg.get("sftkey_after") or "")
    for recipe in itertools.chain(_on_command_lines(), _nearby(os.path.dirname(written))):
        if (recipe.parent / after).exists() and isinstance(_content(recipe).get("sftkey_method"), str):
            return str(recipe)
    if not after or os.path.isabs(after):
        return None
    raise UserError(
        f"sftkey_after: {after}: --sweep trains from a temporary file, and the recipe that is swept isn't found from here. "
        "Start axolotl in its folder or the one above, or write sftkey_after as an absolute path"
    )


def _on_command_lines() -> Iterator[Path]:
    """The recipes on the command lines with ``--sweep`` that led here."""
    process = psutil.Process()
    for one in (process, *process.parents()):
        try:
            arguments, folder = one.cmdline(), one.cwd()
        except psutil.Error:
            continue
        if any(argument.split("=")[0] == "--sweep" for argument in arguments):
            yield from (Path(folder, argument) for argument in arguments if argument.endswith((".yml", ".yaml")))


def _nearby(output_dir: str) -> Iterator[Path]:
    """The recipes here and one folder below that write to an output directory: a single setting leaves no command line."""
    for recipe in sorted(itertools.chain(Path().glob("*.y*ml"), Path().glob("*/*.y*ml"))):
        if os.path.normpath(str(_content(recipe).get("output_dir") or DEFAULT_OUTPUT_DIR)) == os.path.normpath(
            output_dir
        ):
            yield recipe


def _content(recipe: Path) -> dict[str, Any]:
    try:
        return load_recipe(recipe) if recipe.stat().st_size < _LONGEST_RECIPE else {}
    except (OSError, ValueError):
        return {}
