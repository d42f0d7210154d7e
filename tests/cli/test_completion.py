"""``sftkey completion``: what a shell is given, and what it completes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from sftkey.cli.main import sftkey
from sftkey.recipes.catalogue import shipped_recipes
from support.commands import environment

SCRIPT = """
eval "$(sftkey completion bash)"
complete -p sftkey
for line in "$@"; do
    COMP_WORDS=($line) COMPREPLY=()
    [ "${line% }" = "$line" ] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _sftkey_completion sftkey
    echo "${COMPREPLY[*]}"
done
"""


def test_bash_completes(tmp_path: Path) -> None:
    command = tmp_path / "sftkey"
    command.write_text(f"#!{sys.executable}\nfrom sftkey.cli.main import sftkey\nsftkey(prog_name='sftkey')\n")
    command.chmod(0o755)
    lines = [
        "sftkey ru",
        "sftkey recipe qwen3_8b_s",
        "sftkey run --eval-ba",
        "sftkey run x.yml --launcher to",
        "sftkey comp",
    ]
    result = subprocess.run(
        ["bash", "--norc", "-c", SCRIPT, "bash", *lines],
        env={**environment(), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    asked, *found = result.stdout.splitlines()
    assert asked.endswith("-F _sftkey_completion sftkey")
    names = [recipe.name for recipe in shipped_recipes() if recipe.name.startswith("qwen3_8b_s")]
    assert [line.split() for line in found] == [
        ["run"],
        names,
        ["--eval-backend", "--eval-batch-size"],
        ["torchrun"],
        ["completion"],
    ]
    assert len(names) > 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    result = CliRunner().invoke(sftkey, ["completion", shell], prog_name="axolotl sftkey")
    assert result.exit_code == 0
    assert f"_SFTKEY_COMPLETE={shell}_complete" in result.stdout
    assert "axolotl" not in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_ask_for_words_that_are_there(shell: str) -> None:
    words = {"COMP_WORDS": "sftkey rec", "COMP_CWORD": "1" if shell == "zsh" else "rec"}
    result = CliRunner().invoke(sftkey, [], prog_name="sftkey", env={**words, "_SFTKEY_COMPLETE": f"{shell}_complete"})
    assert "recipes" in result.output
    assert "judge" not in result.output


def test_a_shell_that_is_none() -> None:
    result = CliRunner().invoke(sftkey, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
