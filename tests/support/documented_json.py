"""What recipes/README.md says that ``--json`` prints, and whether an output is that."""

from __future__ import annotations

import re
from typing import Any

from support.availability import REPOSITORY

_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "list": (list,),
    "object": (dict,),
}


def documented() -> dict[str, tuple[bool, dict[str, str]]]:
    """Of each command, ``run --dry-run`` say: whether it prints a list of objects, and the type of each of their keys."""
    text = (REPOSITORY / "recipes" / "README.md").read_text("utf-8")
    (block,) = re.findall(r"^With `--json`.*?^```text\n(.*?)^```$", text, flags=re.M | re.S)
    found = {}
    for line in block.splitlines():
        match = re.fullmatch(r"([\w, -]+?) +(\[?)\{(.*)\}\]?", line)
        assert match, line
        keys = dict(part.split(": ") for part in match[3].split(", "))
        found |= {command.strip(): (bool(match[2]), keys) for command in match[1].split(",")}
    return found


def follows_the_documentation(command: str, content: Any) -> None:
    """Fail where an output has other keys or types than the documentation says, or nothing to compare."""
    several, keys = documented()[command]
    assert isinstance(content, list) == several, command
    entries = content if several else [content]
    assert entries, f"{command}: nothing to compare"
    for entry in entries:
        assert list(entry) == list(keys), command
        for key, kind in keys.items():
            value = entry[key]
            if value is None:
                assert kind.endswith("?"), f"{command}: {key} is null"
            else:
                assert isinstance(value, _TYPES[kind.rstrip("?")]), f"{command}: {key} is {value!r}, no {kind}"
                assert not isinstance(value, bool) or kind.startswith("boolean"), f"{command}: {key}"
