"""What a stranger's file says never commands the terminal."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sftkey.cli import console
from sftkey.cli.main import sftkey
from sftkey.util.errors import UserError, install_short_error_hook
from support.availability import REPOSITORY

EVIL = "a\x1b]0;evil\x07\x1b[2J\x9b31m\r\x08\x7f\u202eb\u2028c\x00"


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


@given(st.text(max_size=40))
def test_all_ways_of_printing(text: str) -> None:
    @click.command()
    def command() -> None:
        console.echo(text)
        console.note(text)
        console.progress(text)
        console.print_table([["name", "value"], [text, 1], ["b", None]], as_json=False)
        console.print_json({"text": text, "list": [text]})

    result = CliRunner().invoke(command)
    assert result.exit_code == 0
    assert is_harmless(result.output)


def test_colour_is_for_terminals_and_a_closed_stream_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, expected in ((Terminal(), True), (io.StringIO(), False), (None, False)):
        monkeypatch.setattr(sys, "stdout", stream)
        assert [console.in_color(asked) for asked in (None, True, False)] == [expected, True, False]
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not console.in_color(None)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_json_is_read_as_what_was_printed(text: str) -> None:
    @click.command()
    def command() -> None:
        console.print_json({text: [text]})

    assert json.loads(CliRunner().invoke(command).stdout) == {text: [text]}


@pytest.mark.parametrize("kind", [UserError, click.ClickException, click.UsageError])
def test_errors(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    @click.command()
    def command() -> None:
        raise kind(EVIL)

    monkeypatch.setattr(type(sftkey), "get_command", lambda *_: command)
    result = CliRunner().invoke(sftkey, ["x"])
    assert result.exit_code in (1, 2)
    assert "evil" in result.output
    assert is_harmless(result.output)


def test_the_hook_of_axolotls_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    install_short_error_hook()
    sys.excepthook(UserError, UserError(EVIL), None)
    assert is_harmless(capsys.readouterr().err)


def test_log_messages() -> None:
    record = logging.LogRecord("sftkey", logging.WARNING, "x", 1, "%s", (EVIL,), None)
    assert is_harmless(console._VisibleFormatter("%(levelname)s: %(message)s").format(record))


def test_no_command_prints_past_the_console() -> None:
    """But for a recipe's own text, which may go into a file, and what is coloured, whose texts are escaped before."""
    found = []
    for path in sorted((REPOSITORY / "plugins/sftkey/cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "click.secho", "print"):
                found.append((Path(path).stem, ast.unparse(node.args[0])[:20]))
    assert {name for name, _ in found} <= {"arena_run", "chat", "console", "recipe", "inspect", "matrix", "run"}
    assert len(found) <= 12
