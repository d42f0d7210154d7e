"""``axolotl train --sweep``: a relative path in the recipe is relative to the recipe, and each setting has its own place."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from sftkey.axolotl.sweep import swept_recipe
from sftkey.util.errors import UserError
from support.axolotl_recipes import write_recipe

RECIPE: dict[str, Any] = {"sftkey_method": "key-tag", "sftkey_after": "stage1.yml", "output_dir": "out/stage2"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with recipes in a folder, and another one for temporary files."""
    for name in ("stage1", "stage2"):
        write_recipe(tmp_path / "recipes" / f"{name}.yml", {**RECIPE, "output_dir": f"out/{name}"})
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(place: Path, recipe: str, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The recipes that Axolotl makes of a sweep, as the plugin gets them."""
    from axolotl.cli.utils.train import generate_config_files

    path = write_recipe(place / "sweep.yml", sweep)
    files = [file for file, _ in generate_config_files(recipe, str(path))]
    return [{**yaml.safe_load(Path(file).read_text()), "axolotl_config_path": file} for file in files]


@pytest.mark.parametrize(
    "sweep", [{"learning_rate": [1e-3, 2e-3]}, {"learning_rate": [1e-3]}, {"output_dir": ["out/x"]}]
)
def test_the_recipe_that_is_swept(place: Path, sweep: dict[str, Any]) -> None:
    found = settings(place, "recipes/stage2.yml", sweep)
    if "output_dir" in sweep:  # nothing left to know the recipe by
        (place / "stage1.yml").touch()
        with pytest.raises(
            UserError, match=r"^sftkey_after: stage1\.yml: --sweep trains from a temporary file.*absolute path$"
        ):
            swept_recipe(found[0])
        return
    assert [swept_recipe(cfg) for cfg in found] == ["recipes/stage2.yml"] * len(found)
    assert len({cfg["output_dir"] for cfg in found}) == len(found)
    # One place for all on the command line.
    for cfg in found:
        cfg["output_dir"] = "elsewhere"
        swept_recipe(cfg)
    assert {cfg["output_dir"] for cfg in found} == {f"elsewhere/sweep{n + 1:04}" for n in range(len(found))}


def test_the_command_line_names_the_recipe(place: Path) -> None:
    """The training is a grandchild of the command, and the working directory says nothing."""
    (cfg,) = settings(place, str(place / "recipes" / "stage2.yml"), {"learning_rate": [1e-3]})
    (place / "elsewhere").mkdir()
    inner = (
        f"import tempfile; tempfile.tempdir = {tempfile.gettempdir()!r}\n"
        "from sftkey.axolotl.sweep import swept_recipe\n"
        f"print(swept_recipe({cfg!r}))"
    )
    outer = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    arguments = ("train", "../recipes/stage2.yml", "--sweep", "../sweep.yml")
    command = [sys.executable, "-c", outer, inner, *arguments]
    result = subprocess.run(command, cwd=place / "elsewhere", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert os.path.samefile(place / "elsewhere" / result.stdout.strip(), place / "recipes" / "stage2.yml")


def test_recipes_that_nothing_sweeps(place: Path) -> None:
    for folder in (place / "recipes", place / "tmp"):
        path = write_recipe(folder / "own.yml", RECIPE)
        cfg = {**RECIPE, "axolotl_config_path": str(path)}
        assert swept_recipe(cfg) is None
        assert cfg["output_dir"] == RECIPE["output_dir"]
    assert swept_recipe(dict(RECIPE)) is None
