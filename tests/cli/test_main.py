"""The command itself: start, options of all commands, what goes where, exit codes."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sftkey.cli import console
from sftkey.cli.main import sftkey
from sftkey.recipes.catalogue import ShippedRecipe
from sftkey.training.doctor.verdict import verdict
from sftkey.util.version import __version__
from support.availability import REPOSITORY
from support.axolotl_recipes import write_recipe
from support.commands import SFTKEY, environment, run, succeeded
from support.documented_json import documented

COMMANDS = (
    "init run eval matrix arena diagnose doctor inspect judge calibrate recipe recipes export share chat report completion "
    "tasks-path"
).split()
HEAVY = {"axolotl", "torch", "transformers", "pandas", "datasets", "lm_eval", "matplotlib", "openai"}
RECIPE = {
    "base_model": "Qwen/Qwen3-8B-Base",
    "output_dir": "out/stage1",
    "plugins": ["sftkey.SFTKeyPlugin"],
    "sftkey_method": "sft-tag",
    "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
}


@pytest.mark.parametrize("start", [SFTKEY, (sys.executable, "-m", "sftkey.cli")], ids=["sftkey", "python -m"])
def test_starts_without_what_the_command_does_not_need(start: tuple[str, ...], tmp_path: Path) -> None:
    write_recipe(tmp_path / "stage1.yml", RECIPE)
    # Written at the end of the process, whatever the command did.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, sys\n"
        "atexit.register(lambda: open(os.environ['MODULES'], 'w').write('\\n'.join(sys.modules)))\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    commands = [
        ["--help"],
        ["--version"],
        *([command, "--help"] for command in COMMANDS),
        ["recipes"],
        ["recipes", "--json"],
        ["doctor", "--list"],
        ["recipe", "qwen3_8b_stage2", "--dataset", "openbookqa"],
        ["run", "stage1.yml", "--dry-run", "--eval"],
        ["matrix", "--dry-run", "--models", "qwen3_8b", "--datasets", "gsm8k"],
    ]
    for command in commands:
        modules = tmp_path / "modules.txt"
        succeeded(run(*start, *command, cwd=tmp_path, PYTHONPATH=path, MODULES=str(modules)))
        loaded = {name.partition(".")[0] for name in modules.read_text().splitlines()}
        assert {"click", "sftkey"} <= loaded, command
        assert not loaded & HEAVY, command
        modules.unlink()


def test_the_alias_is_the_same_group() -> None:
    from axolotl.cli.main import cli

    context = click.Context(cli)
    alias = cli.get_command(context, "sftkey")
    assert alias is not None
    assert alias.get_short_help_str() == sftkey.get_short_help_str()
    nested = alias.make_context("sftkey", ["recipe", "--help"], parent=context, resilient_parsing=True)
    assert nested.command is sftkey


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str) -> None:
    overview = CliRunner().invoke(sftkey, ["--help"], terminal_width=200).stdout
    (line,) = [line for line in overview.splitlines() if line.split()[:1] == [name]]
    result = CliRunner().invoke(sftkey, [name, "--help"], prog_name="sftkey", terminal_width=200)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: sftkey {name} ")
    assert "-q, --quiet" in result.stdout
    assert "-v, --verbose" in result.stdout
    assert ("--json" in result.stdout) == (
        name in {"run", "eval", "matrix", "arena", "diagnose", "doctor", "inspect", "judge", "recipes", "chat"}
    )
    # The summary is a short form of the help: at least its first word is the same.
    assert line.split()[1] in result.stdout


def test_all_commands_are_listed() -> None:
    assert sftkey.list_commands(click.Context(sftkey)) == COMMANDS
    result = CliRunner().invoke(sftkey, ["--version"])
    assert result.stdout.split()[-1] == __version__
    assert CliRunner().invoke(sftkey, ["nothing"]).exit_code == 2
    assert CliRunner().invoke(sftkey, ["recipes", "--nothing"]).exit_code == 2


def test_what_json_prints_is_documented_for_every_command() -> None:
    context = click.Context(sftkey)
    commands = {name: sftkey.get_command(context, name) for name in COMMANDS}
    printing = {name for name, one in commands.items() if one and any("--json" in p.opts for p in one.params)}
    assert {name.partition(" ")[0] for name in documented()} == printing - {"diagnose"}  # which documents itself


@pytest.mark.parametrize("arguments", [["-q", "recipe"], ["recipe", "--quiet"], ["--quiet", "recipe", "-q"]])
def test_quiet_on_both_sides_of_the_name(arguments: list[str]) -> None:
    loud = CliRunner().invoke(sftkey, ["recipe", "qwen3_8b_stage2"])
    assert "note: starts from" in loud.stderr
    quiet = CliRunner().invoke(sftkey, [*arguments, "qwen3_8b_stage2"])
    assert (quiet.exit_code, quiet.stderr, quiet.stdout) == (0, "", loud.stdout)
    failed = CliRunner().invoke(sftkey, [*arguments, "none"])
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: there is no shipped recipe 'none'")
    assert failed.stderr.count("\n") == 1


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*SFTKEY, "recipes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # Closed before anything is written.
        process.stdout.close()
        assert process.stderr.read() == b""


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sftkey.cli.recipes.shipped_recipes", interrupted)
    result = CliRunner().invoke(sftkey, ["recipes"])
    assert (result.exit_code, result.stdout) == (130, "")


def test_the_exit_codes_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "recipes" / "README.md").read_text("utf-8")
    (table,) = re.findall(r"^\| exit code \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.M)
    meanings = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", table, flags=re.M)}
    seen = {
        "done": CliRunner().invoke(sftkey, ["recipes"]).exit_code,
        "an error": CliRunner().invoke(sftkey, ["recipe", "none"]).exit_code,
        "a wrong call": CliRunner().invoke(sftkey, ["recipes", "--nothing"]).exit_code,
        "`sftkey doctor`": verdict([], planned=1).code,
    }
    monkeypatch.setattr("sftkey.cli.recipes.shipped_recipes", lambda: signal.raise_signal(signal.SIGINT))
    seen["stopped by Ctrl-C"] = CliRunner().invoke(sftkey, ["recipes"]).exit_code
    assert sorted(seen.values()) == sorted(meanings)
    assert all(meanings[code].startswith(beginning) for beginning, code in seen.items())


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": [float("nan"), float("inf"), 0.5, None, "é"], "b": ({"c": -float("inf")},)})
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": [None, None, 0.5, None, "é"], "b": [{"c": None}]}
    assert "é" in text


@pytest.mark.parametrize(
    ("options", "below"), [([], logging.INFO), (["-v"], logging.NOTSET), (["-q"], logging.WARNING)]
)
def test_how_much_others_may_log(options: list[str], below: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> list[ShippedRecipe]:
        with console.others_on_stderr():
            print(f"disabled: {logging.root.manager.disable}")
        return []

    monkeypatch.setattr("sftkey.cli.recipes.shipped_recipes", look)
    result = CliRunner().invoke(sftkey, ["recipes", *options])
    assert result.stderr == f"disabled: {below}\n"
    assert result.stdout.startswith("RECIPE")
    assert logging.root.manager.disable == logging.NOTSET


def test_what_others_print_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with console.others_on_stderr():
        print("loading")
    print("result")
    assert capsys.readouterr() == ("result\n", "loading\n")
