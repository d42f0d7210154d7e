"""How the commands use the terminal: results on stdout, notes on stderr, tables as text or JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

import click

from sftkey.util.files import finite
from sftkey.util.text import Cell, table, visible

_Function = TypeVar("_Function", bound=Callable[..., Any])
_QUIET, _VERBOSE = "sftkey.quiet", "sftkey.verbose"


def _keep(key: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        # The meta data of a group is that of its commands.
        ctx.meta[key] = value or ctx.meta.get(key, False)

    return callback


QUIET = click.Option(
    ["-q", "--quiet"],
    is_flag=True,
    expose_value=False,
    callback=_keep(_QUIET),
    help="Results and errors only, no notes.",
)
VERBOSE = click.Option(
    ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_keep(_VERBOSE), help="Log messages, too."
)


def _is_on(key: str) -> bool:
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(key))


def is_quiet() -> bool:
    """Whether ``--quiet`` was given."""
    return _is_on(_QUIET)


def is_verbose() -> bool:
    """Whether ``--verbose`` was given."""
    return _is_on(_VERBOSE)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is a terminal; Python has none for one that is closed."""
    return stream is not None and stream.isatty()


def in_color(asked: bool | None) -> bool:
    """Whether to print in colour: as asked, by default in a terminal only, and not with ``NO_COLOR``."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") if asked is None else asked


def echo(text: str, *, err: bool = False) -> None:
    """Print a text whatever it holds: what could command a terminal is shown as an escape."""
    click.echo(visible(text), err=err)


def print_file(text: str) -> None:
    """Print what is to become a file as it is, but to a terminal as `echo` does."""
    click.echo(visible(text) if is_terminal(sys.stdout) else text, nl=False)


def note(text: str) -> None:
    """Tell the user something beside the result, on stderr; nothing with ``--quiet``."""
    if not is_quiet():
        echo(f"note: {text}", err=True)


def progress(text: str) -> None:
    """Say what is done now, on stderr; nothing with ``--quiet``."""
    if not is_quiet():
        click.secho(visible(text), bold=True, err=True)


def stopped(how_to_go_on: str) -> None:
    """Say on stderr, even with ``--quiet``, that the user stopped a command, and how it goes on."""
    click.secho(visible(f"Stopped. {how_to_go_on}"), bold=True, err=True)


def json_option(function: _Function) -> _Function:
    """The option ``--json`` of a command that prints a table."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")(function)


def print_json(content: Any) -> None:
    """Print plain JSON types; what isn't a finite number becomes null."""
    text = json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    # In JSON's own escapes, so that what is read from it is unchanged.
    click.echo(text if text.isprintable() else "".join(map(_json_character, text)))


def _json_character(character: str) -> str:
    return character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]


def print_table(rows: Sequence[Sequence[Cell]], as_json: bool) -> None:
    """Print rows, a header first, as text or as a list of JSON objects."""
    if as_json:
        print_json(records(rows))
    else:
        echo(table(rows))


def records(rows: Sequence[Sequence[Cell]]) -> list[dict[str, Cell]]:
    """Rows as objects; the keys are the header in small letters, with underscores, without what is in brackets."""
    keys = [str(name).partition(" (")[0].lower().replace(" ", "_") for name in rows[0]]
    return [dict(zip(keys, row, strict=True)) for row in rows[1:]]


@contextlib.contextmanager
def others_on_stderr() -> Iterator[None]:
    """Keep stdout free of what Axolotl and its libraries print and log; below a warning only with ``--verbose``."""
    before = logging.root.manager.disable
    if not _is_on(_VERBOSE):
        logging.disable(logging.WARNING if is_quiet() else logging.INFO)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def start_logging() -> None:
    """Show the log messages of this package on stderr: warnings, with ``--verbose`` all, with ``--quiet`` errors only."""
    handler = logging.StreamHandler()
    handler.setFormatter(_VisibleFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    if is_quiet() or _is_on(_VERBOSE):
        logging.getLogger("sftkey").setLevel(logging.ERROR if is_quiet() else logging.INFO)


def this_command() -> str:
    """The command line that is running, as it was typed."""
    return f"{click.get_current_context().find_root().info_name} {shlex.join(sys.argv[1:])}"
