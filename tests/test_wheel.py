"""The wheel holds everything that a user needs, and works where there is no checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by hatchling from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which only the wheel is installed, by pip."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    result = subprocess.run([*command, str(wheel)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return folder


def run(installed: Path, folder: Path, code: str) -> str:
    """Run Python with the installed wheel first, from another folder, and give back what it printed."""
    # -P keeps the working directory off the path; the folder comes before the checkout's editable install.
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_file_is_in_it(wheel: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    def files(folder: str, *suffixes: str) -> list[Path]:
        paths = [
            path for path in (repository / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        return [path.relative_to(repository / folder) for path in paths if path.suffix in suffixes]

    package = files("plugins/sftkey", ".py", ".jinja", ".txt", ".css", ".js")
    assert {
        "format/templates/thinking_answer.jinja",
        "format/templates/system_prompt.txt",
        "evaluation/judge/judge_prompt.txt",
        "stages/card.md.jinja",
    } <= {str(path) for path in package}
    assert any(path.name == "page.html.jinja" for path in package)
    assert {f"sftkey/{path}" for path in package} <= names
    recipes = files("recipes", ".yml", ".json", ".md")
    assert Path("deepspeed/zero3.json") in recipes
    assert {f"sftkey/recipes/shipped/{path}" for path in recipes} <= names
    tasks = files("tasks", ".yaml", ".py")
    assert {f"lm_eval/tasks/sftkey/{path}" for path in tasks} <= names
    # Nothing else lands in somebody's site-packages.
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sftkey", "lm_eval"}
    assert all(name.startswith("lm_eval/tasks/sftkey/") for name in names if name.startswith("lm_eval/"))
    assert not [name for name in names if name.endswith(".pyc") or "/tests/" in name]


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert "[axolotl.cli_commands]\nsftkey = sftkey.cli.main:sftkey" in entry_points
    metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "sftkey"
    assert any(requirement.startswith("axolotl") for requirement in metadata.get_all("Requires-Dist"))


def test_a_clean_environment(wheel: Path, repository: Path, tmp_path: Path) -> None:
    """In an environment with nothing else in it: the package, its core, its recipes and its command are where they belong."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    result = subprocess.run([*command, str(wheel)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    code = """
import json, sys
from importlib import metadata, resources
import sftkey
from sftkey import datasets
from sftkey.format import methods
from sftkey.format import templates
from sftkey.datasets import columns, gsm8k
from sftkey.format.example import Example
(point,) = metadata.entry_points(group="axolotl.cli_commands")
print(json.dumps({
    "file": sftkey.__file__,
    "version": [sftkey.__version__, metadata.version("sftkey")],
    "point": [point.name, point.value],
    "script": [script.value for script in metadata.entry_points(group="console_scripts", name="sftkey")],
    "recipe": resources.files("sftkey").joinpath("recipes/shipped/qwen3_8b_stage1.yml").is_file(),
    "example": gsm8k.to_example({"question": "q", "answer": "so <<1+1=2>>2.\\n#### 2"}) == Example("q", "so 2.", "2"),
    "path": sys.path,
}))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert Path(found["file"]).is_relative_to(tmp_path / "env")
    assert not any(Path(entry).is_relative_to(repository) for entry in found["path"] if entry)
    assert found["version"][0] == found["version"][1]
    assert found["point"] == ["sftkey", "sftkey.cli.main:sftkey"]
    assert found["script"] == ["sftkey.cli.main:sftkey"]
    assert found["recipe"]
    assert found["example"]


def test_recipes_are_found_and_written_without_a_checkout(installed: Path, repository: Path, tmp_path: Path) -> None:
    output = run(
        installed,
        tmp_path,
        """
import sftkey, sys
from click.testing import CliRunner
from sftkey.cli.main import sftkey as command
from sftkey.recipes.catalogue import recipes_folder
print(sftkey.__file__)
print(recipes_folder())
result = CliRunner().invoke(command, ["recipe", "qwen3_8b_stage2", "--dataset", "openbookqa", "-o", "my_stage2.yml"])
assert result.exit_code == 0, result.output
assert "axolotl" not in sys.modules and "torch" not in sys.modules
""",
    )
    package, recipes = output.splitlines()
    assert package == str(installed / "sftkey/__init__.py")
    assert recipes == str(installed / "sftkey/recipes/shipped")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my_stage1.yml", "my_stage2.yml"]
    text = (tmp_path / "my_stage2.yml").read_text()
    assert str(repository) not in text
    assert str(installed) not in text


def test_texts_are_read_from_the_package(installed: Path, tmp_path: Path) -> None:
    output = run(
        installed,
        tmp_path,
        """
import json
from importlib import resources
from sftkey.format import templates
print(json.dumps([len(templates.chat_template(name)) for name in templates.TEMPLATES]))
judge_prompt = resources.files("sftkey.evaluation.judge").joinpath("judge_prompt.txt")
print(len(templates.system_prompt()), len(judge_prompt.read_text()))
""",
    )
    templates, prompts = output.splitlines()
    assert min(json.loads(templates)) > 100
    assert all(int(length) > 100 for length in prompts.split())


def test_tasks_are_found_in_their_place(installed: Path, tmp_path: Path) -> None:
    """lm-eval reads the tasks from the folder that the wheel fills inside its own package."""
    output = run(
        installed,
        tmp_path,
        f"""
from lm_eval.tasks import TaskManager
manager = TaskManager(include_path={str(installed / "lm_eval/tasks")!r}, include_defaults=False)
print(*(name for name in manager.all_tasks if name.startswith("sftkey")))
""",
    )
    names = output.splitlines()[-1].split()
    for data in ("gsm8k", "openr1_math", "openbookqa", "cot_collection"):
        assert {f"sftkey_{data}", f"sftkey_{data}_plain"} <= set(names)
    assert {"sftkey", "sftkey_plain"} <= set(names)
