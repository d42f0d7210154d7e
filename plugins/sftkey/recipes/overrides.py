"""``key=value`` on a command line: parse it, and set it in a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from sftkey.recipes.unknown_keys import KnownKeys, keys_of_path
from sftkey.util.errors import UserError, nearest


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars, as people type them: ``no`` is text, ``1e-5`` and ``1_000`` are numbers. PyYAML has 1.1's."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("int", r"[-+]?([0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)",
        "-+.0123456789",
    ),
    ("float", r"\.(nan|NaN|NAN)", "."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))


def _int(_: yaml.SafeLoader, node: yaml.Node) -> int:
    digits = str(node.value).replace("_", "")
    # 010 is ten, not eight.
    return int(digits, 0 if re.match(r"[-+]?0[xob]", digits) else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is YAML 1.2, the key may be a path such as ``datasets.0.split``.

    Raises:
        UserError: It is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise UserError(f"{text!r} is not of the form key=value, such as num_epochs=1 or datasets.0.split=train[:100]")
    try:
        return key, yaml.load(value, _Loader) if value else None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{key}: {value!r} is not a YAML value: {str(error).splitlines()[0]}") from error


def set_key(config: dict[str, Any], path: str, value: Any, known_keys: Callable[[], KnownKeys] | None = None) -> None:
    """Set a key of a recipe, in place.

    Args:
        config: The recipe.
        path: The key; for a nested one the way to it, such as ``datasets.0.split``.
        value: Its new value.
        known_keys: Called for the keys that exist when the first one is not in the recipe yet, or the key is a nested one.

    Raises:
        UserError: The key is unknown, or the way leads through a value that has no keys.
    """
    keys = path.split(".")
    siblings = None
    if known_keys is not None and (keys[0] not in config or len(keys) > 1):
        known = known_keys()
        if keys[0] not in config and keys[0] not in known:
            raise UserError(
                f"{keys[0]}: no key of Axolotl or of this plugin; did you mean {nearest(keys[0], known)!r}?"
            )
        siblings = keys_of_path(path, known)
    place: Any = config
    for done, key in enumerate(keys, start=1):
        index: Any = key
        if isinstance(place, list):
            if not key.isdigit() or int(key) >= len(place):
                raise UserError(f"{'.'.join(keys[:done])}: the list has the entries 0 to {len(place) - 1}")
            index = int(key)
        elif not isinstance(place, dict):
            raise UserError(f"{path}: {'.'.join(keys[: done - 1])} is {place!r}, which has no keys")
        if done == len(keys):
            if siblings is not None and isinstance(place, dict) and key not in siblings:
                raise UserError(f"{path}: no such key; did you mean {nearest(key, siblings)!r}?")
            place[index] = value
        else:
            place = place.setdefault(index, {}) if isinstance(place, dict) else place[index]
