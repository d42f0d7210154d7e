"""The house: few rooms, small files, a face that nobody inside looks at. `make lint` checks the floors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

MOST_LINES = 300
MOST_ENTRIES = 14
ROOMS = {
    "axolotl",
    "cli",
    "datasets",
    "evaluation",
    "export",
    "format",
    "recipes",
    "report",
    "stages",
    "training",
    "trl",
    "util",
}


@pytest.fixture(scope="module")
def package(repository: Path) -> Path:
    """The package's folder in the checkout."""
    return repository / "plugins" / "sftkey"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def test_no_file_is_long(package: Path) -> None:
    lengths = {path.relative_to(package): len(path.read_text("utf-8").splitlines()) for path in files(package)}
    assert len(lengths) > 100
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_entries_at_the_root(package: Path) -> None:
    entries = {path.name for path in package.iterdir() if path.name != "__pycache__"}
    assert {name for name in entries if (package / name).is_dir()} == ROOMS
    assert len(entries) <= MOST_ENTRIES


def test_nobody_inside_imports_the_face(package: Path) -> None:
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if "sftkey" in names or (isinstance(node, ast.ImportFrom) and node.module == "sftkey" and not node.level):
                found.append(f"{path.relative_to(package)}:{node.lineno}")
    assert found == []


def test_the_public_names_are_there_and_cost_nothing_until_used(package: Path) -> None:
    code = """
import sys
import sftkey
heavy = {"torch", "transformers", "axolotl", "pandas", "datasets", "lm_eval"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert set(sftkey.__all__) <= set(dir(sftkey))
missing = [name for name in sftkey.__all__ if getattr(sftkey, name, None) is None]
assert not missing, missing
from sftkey import *  # noqa: F403
try:
    sftkey.ReasoningDatasets
except AttributeError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "module 'sftkey' has no attribute 'ReasoningDatasets'"
    assert (package / "py.typed").is_file()


def section(repository: Path, title: str) -> str:
    text = (repository / "plugins" / "README.md").read_text("utf-8")
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_map_has_every_file(package: Path, repository: Path) -> None:
    rooms, room = {}, ""
    for line in section(repository, "The map").splitlines():
        room = line.rstrip("/") if line.rstrip("/") in ROOMS else room
        rooms.setdefault(room, set()).update(re.findall(r"[\w.]+\.(?:py|jinja|txt|css|js)\b|templates/", line))
    for name in ROOMS:
        there = {path for path in files(package / name) if path.name != "__init__.py"}
        there = {"templates/" if path.parent.name == "templates" else path.name for path in there}
        assert rooms[name] == there, name


def test_the_readme_lists_the_public_names(repository: Path) -> None:
    import sftkey

    assert set(re.findall(r"`(\w+)`", section(repository, "Public names"))) - {"sftkey"} == set(sftkey.__all__)
