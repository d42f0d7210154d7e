"""Print the oldest release of each dependency that ``pyproject.toml`` admits, as constraints for pip."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("eval", "report")


def oldest(pyproject: str) -> list[str]:
    """``name==version`` for each lower bound of the core and of `EXTRAS`."""
    project = tomllib.loads(pyproject)["project"]
    lines = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    bounds = {Requirement(line).name: Requirement(line).specifier for line in lines}
    return [f"{name}=={one.version}" for name, those in bounds.items() for one in those if one.operator == ">="]


if __name__ == "__main__":
    print("\n".join(oldest((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))))
