"""Without an optional package: one line that says which extra brings it, wherever it is imported."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sftkey.util.errors import UserError
from sftkey.util.extras import MissingExtra, extra, needs

GUARDED_ROOMS = {"axolotl": "axolotl", "report": "report", "trl": "trl"}
"""Rooms whose ``__init__.py`` imports the extra's package, for all of their files."""

TRIALS = r"""
import importlib, json, os, sys
from pathlib import Path

TRIALS = {
    "axolotl": [
        "import sftkey; sftkey.SFTKeyPlugin",
        "command('inspect', 'stage1.yml')",
        "command('run', 'stage1.yml', '--num-epochs', '1')",
        "command('run', 'stage1.yml')",
        "command('recipe', 'qwen3_8b_stage2', 'micro_batch=1')",
    ],
    "colorama": ["from sftkey.cli.inspect import _stdout; _stdout(True)"],
    "lm_eval": [
        "import sftkey.evaluation.lm_eval_tasks",
        "import runpy; runpy.run_path(os.path.join(TASKS, 'utils.py'))",
        "command('run', 'stage1.yml', '--eval')",
        "command('eval', 'done')",
    ],
    "openai": [
        "from sftkey.evaluation.judge.server import Server\n"
        "from sftkey.evaluation.judge.settings import JudgeSettings\n"
        "Server(JudgeSettings('http://127.0.0.1:9/v1', 'm'))"
    ],
    "anyio": ["from sftkey.evaluation.judge.client import _run; _run(None)"],
    "math_verify": [
        r"from sftkey.evaluation.rules.formula_process import FORMULAS; FORMULAS.compare('\\sqrt{2}', '\\sqrt{3}')",
        r"from sftkey.evaluation.rules.scalars import _parsed; _parsed('2')",
        r"from sftkey.evaluation.rules.scalars import _by_math_verify; _by_math_verify('2', '3')",
    ],
    "peft": ["from sftkey.evaluation.generation import load_model; load_model(Path('adapter'), 0)"],
    "scipy": [
        "import numpy; from sftkey.evaluation.seeds import difference_over\n"
        "difference_over(numpy.eye(4)[:2], numpy.eye(4)[2:])",
    ],
    "statsmodels": [
        "import numpy; from sftkey.evaluation.statistics import mean_interval; mean_interval(numpy.ones(9))",
        "from sftkey.evaluation.statistics import mcnemar_p; mcnemar_p(3, 1)",
        "from sftkey.evaluation.statistics import holm; holm([0.1, 0.2])",
    ],
    "trl": ["import sftkey.trl"],
    "matplotlib": ["command('report', 'done', '-o', 'report')", "import sftkey.report.figures"],
}


class Blocked:
    def __init__(self, name): self.name = name
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def command(*words):
    from click.testing import CliRunner
    from sftkey.cli.main import sftkey
    result = CliRunner().invoke(sftkey, words)
    error = result.output.partition("Error: ")[2]  # after what it does
    raise RuntimeError(error if result.exit_code == 1 else f"exit {result.exit_code}: {result.output!r}")


os.environ["PATH"] = os.defpath  # no commands of the environment, but for those beside this Python
TASKS = sys.argv[2]
for package, trials in TRIALS.items():
    for trial in trials:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            sys.meta_path.insert(0, Blocked(package))
            if trial.startswith("command('run', 'stage1.yml'") or trial.startswith("command('eval'"):
                sys.executable = "/nowhere/python"  # nor those
            try:
                exec(trial)
                said = None
            except BaseException as error:
                said = [type(error).__name__, str(error)]
            print(json.dumps([package, trial, said]), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


distributions = cache(packages_distributions)  # reads the metadata of every package: a quarter of a second


def extras(repository: Path) -> tuple[set[str], dict[str, set[str]]]:
    """The packages of the core, and the extras that bring each of the others."""
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]

    def names(lines: list[str]) -> set[str]:
        return {canonicalize_name(Requirement(line).name) for line in lines}

    core, found = names(project["dependencies"]), {}
    for name, lines in project["optional-dependencies"].items():
        if name not in ("all", "gpu", "dev"):
            for package in names(lines) - core:
                found.setdefault(package, set()).add(name)
    return core, found


def unguarded(path: Path, room: str, core: set[str], optional: dict[str, set[str]]) -> list[str]:
    """The imports of a file that would end in a bare ModuleNotFoundError where only the core is installed."""
    found = []

    def visit(node: ast.AST, within: str | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            guard = within
            if isinstance(child, ast.With):
                calls = [item.context_expr for item in child.items if isinstance(item.context_expr, ast.Call)]
                guard = next(
                    (getattr(c.args[0], "value", None) for c in calls if ast.unparse(c.func) == "extra"), within
                )
            names = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
            if isinstance(child, ast.ImportFrom) and not child.level:
                names = [str(child.module)]
            for name in names:
                top = name.partition(".")[0]
                if top in sys.stdlib_module_names or top == "sftkey":
                    continue
                bringing = {canonicalize_name(one) for one in distributions().get(top, [top])}
                if not bringing & core and not any(guard in optional.get(one, ()) for one in bringing):
                    found.append(f"{path.name}:{child.lineno} imports {top}, guard {guard}")
            visit(child, guard)

    visit(ast.parse(path.read_text("utf-8")), GUARDED_ROOMS.get(room))
    return found


def test_every_import_of_an_optional_package_is_guarded_by_an_extra_that_has_it(repository: Path) -> None:
    core, optional = extras(repository)
    assert {"torch", "transformers", "datasets", "numpy", "pyarrow"} <= core
    assert not {"axolotl", "lm-eval", "openai", "math-verify", "matplotlib"} & core
    package = repository / "plugins" / "sftkey"
    found = []
    for path in package.rglob("*.py"):
        if path.parent.name == "doctor" or path.name == "reasoning_parser.py":
            continue  # the one tries what is there, and says of each package that it isn't; vLLM itself loads the other
        room = path.relative_to(package).parts[0]
        found += unguarded(path, "" if path.name == "__init__.py" else room, core, optional)
    assert found == []


def test_the_check_above_finds_an_unguarded_import(tmp_path: Path) -> None:
    for number, text in enumerate(
        (
            "import openai",
            "def f():\n    from openai import x",
            "with extra('report'):\n    import openai",
            "import nowhere",
        )
    ):
        path = tmp_path / f"{number}.py"
        path.write_text(text)
        assert len(unguarded(path, "", {"torch"}, {"openai": {"eval"}})) == 1
    path.write_text("import torch, os\nwith extra('eval'):\n    import openai.types")
    assert unguarded(path, "", {"torch"}, {"openai": {"eval"}}) == []


def test_each_optional_package_missing(repository: Path, tmp_path: Path) -> None:
    from support.axolotl_recipes import write_recipe
    from support.finished_stages import finish, recipe
    from support.run_place import STAGE1

    write_recipe(tmp_path / "stage1.yml", STAGE1)
    finish(tmp_path / "done", recipe("sft-tag", "done"), "done.yml")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "trials.py").write_text(TRIALS)
    command = [sys.executable, "trials.py", "", str(repository / "tasks")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    said = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
    _, optional = extras(repository)
    bringing = {
        top: optional[name]
        for top, names in distributions().items()
        for name in map(canonicalize_name, names)
        if name in optional
    }
    assert {package for package, _, _ in said} == set(bringing) & set(
        re.findall(r'^    "(\w+)": \[', TRIALS, re.MULTILINE)
    )
    assert len({package for package, _, _ in said}) == len(optional)
    for package, trial, outcome in said:
        assert outcome is not None, (package, trial)
        message = outcome[1].strip()
        assert "\n" not in message, (trial, message)
        brought = "|".join(bringing[package])
        pattern = (
            rf"(the command )?{package} isn't installed; it comes with sftkey's extra \[({brought})\]: pip install .+"
        )
        assert re.fullmatch(pattern, message), (trial, message)


def test_a_folder_of_its_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lm_eval_like" / "tasks").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"^lm_eval_like isn't installed; it comes with sftkey's extra \[eval\]"):
        needs("lm_eval_like", "eval")
    with pytest.raises(MissingExtra), extra("eval"):
        import lm_eval_like.api  # noqa: F401
    with pytest.raises(MissingExtra), extra("eval"):
        from lm_eval_like import something  # noqa: F401


def test_another_release_is_not_called_missing() -> None:
    with pytest.raises(ImportError, match="cannot import name 'nothing'") as caught, extra("eval"):
        from json import nothing  # noqa: F401
    assert not isinstance(caught.value, UserError)
    with pytest.raises(ModuleNotFoundError) as missing, extra("eval"):
        import json.nothing  # noqa: F401
    assert not isinstance(missing.value, UserError)
    with pytest.raises(ModuleNotFoundError), extra("eval"):
        import sftkey.nothing  # noqa: F401
    needs("json", "eval")
