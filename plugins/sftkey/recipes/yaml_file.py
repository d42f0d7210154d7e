"""Read a YAML file that may be somebody else's: bounded in size, nesting and aliases, with one line for any error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sftkey.util.errors import UserError

MAX_BYTES = 256 * 2**10
"""The largest recipe: PyYAML reads it in about two seconds."""

MAX_DEPTH = 30

MAX_NODES = 100_000
"""So many values, each counted as often as aliases repeat it: ten lines of them can stand for billions."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file with plain values alone: no tag of Python's, no object.

    Raises:
        UserError: It can't be read, isn't UTF-8 or valid YAML, or is beyond the bounds.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path} has more than {MAX_BYTES:,} bytes, which no recipe has")
        return parse_yaml(content.decode("utf-8-sig"), str(path))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start + 1}); write it with encoding utf-8") from error


def parse_yaml(text: str, name: str) -> Any:
    """Read a YAML text; `name` says in messages where it is from.

    Raises:
        UserError: See `read_yaml`.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, name)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{name} is not valid YAML: {_one_line(error)}") from error
    except RecursionError:
        raise UserError(f"{name} is nested deeper than {MAX_DEPTH} levels; flatten it") from None
    except UserError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        # A date such as 2024-99-99, a number of ten thousand digits, base64 that is none.
        raise UserError(f"{name} is not valid YAML: a value can't be read ({error})") from error


def _one_line(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(filter(None, (error.context, error.problem)))


def _check_keys(node: yaml.MappingNode, name: str) -> None:
    """Refuse a key that is there twice, of which PyYAML takes the last one without a word."""
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if (key.tag, key.value) in seen:
                raise UserError(
                    f"{name}, line {key.start_mark.line + 1}: the key {key.value[:60]!r} is there twice; keep one"
                )
            seen.add((key.tag, key.value))


def _check_size(root: yaml.Node, name: str) -> None:
    """Count the values as if every alias were written out."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise UserError(f"{name} is nested deeper than {MAX_DEPTH} levels; flatten it")
        if id(node) in open_nodes:
            raise UserError(
                f"{name}, line {node.start_mark.line + 1}: an anchor that holds itself; write the value out"
            )
        if id(node) not in sizes:
            open_nodes.add(id(node))
            if isinstance(node, yaml.MappingNode):
                _check_keys(node, name)
            inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            total = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(size(one, depth + 1) for one in inner))
            if total > MAX_NODES:
                raise UserError(f"{name} stands for more than {MAX_NODES:,} values through its aliases; write them out")
            sizes[id(node)] = total
            open_nodes.discard(id(node))
        return sizes[id(node)]

    size(root, 0)
