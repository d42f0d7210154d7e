"""What the first row of a data set holds, for the message that says that none of its rows can be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from sftkey.util.text import one_line, visible

_MOST = 12
"""So many names at most."""

_LONGEST = 40


def first_row(rows: Iterable[Any]) -> str:
    """Name the columns of the first row and, where it holds messages, their keys and roles.

    Args:
        rows: The rows as published; only the first is looked at.

    Returns:
        For example ``its first row has the columns chat; chat has the roles user, bot and the keys role, content``.
    """
    row = next(iter(rows), None)
    if not isinstance(row, Mapping):
        return "it holds no row"
    parts = [f"its first row has the columns {_names(row)}"]
    for column, value in islice(row.items(), _MOST):
        messages = [one for one in value if isinstance(one, Mapping)] if isinstance(value, (list, tuple)) else []
        if not messages:
            continue
        keys = dict.fromkeys(key for message in messages for key, held in message.items() if held is not None)
        role = next((key for key in ("role", "from", "author", "speaker") if key in keys), None)
        roles = dict.fromkeys(str(message[role]) for message in messages if message.get(role)) if role else ()
        parts.append(
            f"{_names([column])} has {f'the roles {_names(roles)} and ' if roles else ''}the keys {_names(keys)}"
        )
    return "; ".join(parts)


def _names(names: Iterable[Any]) -> str:
    listed = [one_line(visible(str(name)))[:_LONGEST] for name in islice(names, _MOST + 1)]
    return ", ".join([*listed[:_MOST], *(["..."] if len(listed) > _MOST else [])])
