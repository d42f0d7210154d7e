"""The folder of the shipped lm-eval tasks, in the installed package or beside ``plugins/`` in a checkout; what is in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sftkey.util.errors import UserError

_MAX_CHARACTERS = 100_000


def tasks_folder() -> Path:
    """Find it; lm-eval's own copy, in ``lm_eval/tasks/sftkey``, may be missing or of another version.

    Raises:
        UserError: It isn't there; the installation is broken.
    """
    installed = Path(__file__).resolve().parent / "tasks"
    for folder in (installed, installed.parents[3] / "tasks"):
        if (folder / "sftkey_gsm8k.yaml").is_file():
            return folder
    raise UserError(f"no tasks in {installed}: the installation is incomplete; install sftkey again")


def tasks_in(folder: Path) -> dict[str, Path]:
    """The tasks and groups that the YAML files of a folder define, by name, read without running anything."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        for name in values_in(path, "task|group|tag"):
            found.setdefault(name, path)
    return found


def values_in(path: Path, keys: str) -> list[str]:
    """What a task's file says for top-level keys, ``|`` between them, where that is one word."""
    text = path.read_text(encoding="utf-8", errors="replace")[:_MAX_CHARACTERS]
    return re.findall(rf"^(?:{keys}):[ \t]*[\"']?([^\s\"'\[#]+)", text, flags=re.M)


def members_of(subtasks: Mapping[str, Sequence[str]], group: str, depth: int = 0) -> list[str]:
    """The tasks in a group and in the groups in it."""
    members: list[str] = []
    for name in subtasks.get(group, []):
        if subtasks.get(name) and depth < 20:
            members += members_of(subtasks, name, depth + 1)
        else:
            members.append(name)
    return members
