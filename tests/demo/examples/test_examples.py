"""The notebook runs from its first cell to its last; the Dockerfile's instructions fit the checkout."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.availability import REPOSITORY

HERE = Path(__file__).parent


@pytest.mark.slow
def test_the_notebook_runs_at_a_small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name, value in {"STEPS": "8", "ITEMS": "8", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(HERE / "demo.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(output.get("text", "") for output in outputs)
    masks = text.partition("== sft-tag ==")[2].partition("== key-tag ==")
    assert "T [thinking: " in masks[0]
    assert "  [thinking: " in masks[2]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert re.search(r"^Stage 2 +acc \d\.\d{3}  fmt \d\.\d{3}", text, flags=re.M)
    assert re.search(r"^Stage 2 minus the control: [+-]\d+\.\d points \[[+-]", text, flags=re.M)


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = json.loads((HERE / "demo.ipynb").read_text("utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and its arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (HERE / "Dockerfile").read_text("utf-8"), flags=re.M).replace("\\\n", " ")
    found = [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]
    assert all(len(one) == 2 and one[0] in {"ARG", "FROM", "WORKDIR", "COPY", "RUN"} for one in found)
    return [(name, arguments) for name, arguments in found]


def ignored(path: str) -> bool:
    """Whether the build context lacks a path of the checkout."""
    result = False
    for pattern in (HERE / "Dockerfile.dockerignore").read_text("utf-8").splitlines():
        if fnmatch(path, pattern.lstrip("!")):
            result = not pattern.startswith("!")
    return result


def test_the_dockerfile_fits_the_checkout() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    (axolotl,) = [one for one in map(Requirement, extras["axolotl"]) if one.name == "axolotl"]
    given = dict(arguments.split("=") for name, arguments in instructions() if name == "ARG")
    assert given["AXOLOTL"] in axolotl.specifier
    assert [arguments for name, arguments in instructions() if name == "FROM"] == ["axolotlai/axolotl-uv:${AXOLOTL}"]
    copied = {source for name, arguments in instructions() if name == "COPY" for source in arguments.split()[:-1]}
    assert all((REPOSITORY / source).exists() and not ignored(source) for source in copied)
    assert ignored(".venv")
    assert ignored("outputs")
    # What the wheel is built from is there: nothing that hatch includes is left out.
    built = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    needed = {Path(path).parts[0] for path in (*built["only-include"], *built["force-include"])}
    assert needed | {"pyproject.toml", project["readme"], *project["license-files"]} <= copied
    (install,) = [arguments for name, arguments in instructions() if name == "RUN" and "uv pip install" in arguments]
    (target,) = [word for word in shlex.split(install) if word.startswith(".[")]
    assert target[2:-1] in extras


def test_a_shell_can_read_what_the_dockerfile_runs() -> None:
    import subprocess

    for name, arguments in instructions():
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", arguments], check=True)
