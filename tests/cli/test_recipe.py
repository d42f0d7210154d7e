"""``sftkey recipe``: what is printed is the recipe alone, and what is written is the whole chain."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from sftkey.cli.console import print_file
from sftkey.cli.main import sftkey
from sftkey.recipes.load import load_recipe, recipe_before


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(sftkey, ["recipe", *arguments])


def test_the_recipe_is_printed_and_the_command_for_the_first_stage_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note on stderr is a command line: run it, and the chain is complete in a folder with nothing else in it."""
    monkeypatch.chdir(tmp_path)
    result = cli("qwen2_5_7b_stage2", "--dataset", "openbookqa", "--output-root", "my runs", "seed=7")
    assert result.exit_code == 0, result.output
    Path("my.yml").write_text(result.stdout)
    command = re.search(r"^  (sftkey recipe .*)$", result.stderr, re.MULTILINE)
    assert command is not None
    words = shlex.split(command[1])
    assert words[:2] == ["sftkey", "recipe"]
    assert words[-2] == ">"
    first = cli(*words[2:-2])
    assert first.exit_code == 0, first.output
    Path(words[-1]).write_text(first.stdout)
    second = load_recipe("my.yml")
    assert recipe_before({**second, "axolotl_config_path": "my.yml"}) == Path(words[-1])
    assert load_recipe(words[-1])["seed"] == second["seed"] == 7
    assert load_recipe(words[-1])["output_dir"] == second["base_model"] == "my runs/qwen2_5_7b/openbookqa/stage1"


def test_o_writes_the_whole_chain_and_overwrites_nothing(tmp_path: Path) -> None:
    target = tmp_path / "recipes" / "my_stage2.yml"
    result = cli("qwen3_8b_stage2", "-o", str(target))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert yaml.safe_load(target.read_text())["sftkey_after"] == "my_stage1.yml"
    first = target.with_name("my_stage1.yml")
    assert "# Run with: axolotl train my_stage2.yml (after my_stage1.yml)\n" in target.read_text()
    assert cli("qwen3_8b_stage2", "-o", str(target)).exit_code == 0  # the same again
    first.write_text("# mine")
    result = cli("qwen3_8b_stage2", "-o", str(target))
    assert result.exit_code == 1
    assert "my_stage1.yml exists" in result.output
    assert "says something else; choose another -o, or --force to replace it" in result.output
    assert first.read_text() == "# mine"
    assert cli("qwen3_8b_stage2", "-o", str(target), "--force").exit_code == 0
    assert "sftkey_method: sft-tag" in first.read_text()


def test_the_first_stage_can_be_named(tmp_path: Path) -> None:
    result = cli("qwen3_8b_stage2", "-o", str(tmp_path / "two.yml"), "sftkey_after=one.yml")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.yml", "two.yml"]
    assert cli("qwen3_8b_stage2", "-o", str(tmp_path / "two.yml"), "sftkey_after=two.yml").exit_code == 1


def test_unknown_names_are_errors() -> None:
    assert "did you mean" in cli("qwen3_9b_stage1").output
    assert "openbookqa" in cli("qwen3_8b_stage1", "--dataset", "openbook").output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_no_control_characters_and_a_file_the_text_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for shown, out in (("# \\x07\u00e9\n", Terminal()), ("# \x07\u00e9\n", io.StringIO())):
        monkeypatch.setattr("sys.stdout", out)
        print_file("# \x07\u00e9\n")
        assert out.getvalue() == shown
