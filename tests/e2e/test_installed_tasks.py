"""A plain ``lm_eval`` finds the tasks: the wheel has them where lm-eval looks, and so has the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

lm_eval = pytest.importorskip("lm_eval")

DATA_SETS = ("gsm8k", "openr1_math", "openbookqa", "cot_collection", "commonsenseqa")
TASKS = [f"sftkey_{name}{suffix}" for name in DATA_SETS for suffix in ("", "_plain")]
GROUPS = ["sftkey", "sftkey_plain"]


def files(repository: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (repository / "tasks").iterdir() if path.is_file()}


def test_the_wheel_installs_the_tasks_into_lm_evals_folder(repository, tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("lm_eval/tasks/sftkey/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("lm_eval/")
        }
    packed = {name: content for name, content in packed.items() if not name.startswith("__pycache__/")}
    assert packed == files(repository)


@pytest.mark.slow
def test_the_installed_tasks_are_found_by_name(repository, tmp_path):
    installed = Path(lm_eval.__file__).parent / "tasks" / "sftkey"
    # An editable install copies them, too.
    refresh = "run pip install --no-deps --no-build-isolation -e . to bring them up to date"
    assert installed.is_dir(), f"the tasks are not installed: {refresh}"
    copies = {path.name: path.read_bytes() for path in installed.iterdir() if path.is_file()}
    assert copies == files(repository), f"the installed tasks are not those of the checkout: {refresh}"

    command = Path(sys.executable).with_name("lm_eval")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    names = ",".join(GROUPS + TASKS)
    found = subprocess.run(
        [command, "validate", "--tasks", names], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "All tasks found and valid" in found.stdout
    listed = subprocess.run(
        [command, "ls", "tasks"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    rows = {
        cells[1].strip(): cells[-2].strip() for line in listed.stdout.splitlines() if len(cells := line.split("|")) > 3
    }
    assert {name: rows.get(name) for name in TASKS} == dict.fromkeys(TASKS, "generate_until")
    assert set(GROUPS) <= set(rows)
