"""``sftkey completion``: the script with which a shell completes the command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sftkey.cli.console import echo

_PROGRAM = "sftkey"
_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and shipped recipes' names in SHELL.

    \b
    bash: eval "$(sftkey completion bash)"     in ~/.bashrc
    zsh:  eval "$(sftkey completion zsh)"      in ~/.zshrc, after compinit
    fish: sftkey completion fish > ~/.config/fish/completions/sftkey.fish
    """  # noqa: D301  # \b is click's sign for lines that aren't to be wrapped.
    found = get_completion_class(shell)
    assert found is not None
    # `axolotl sftkey` is the same group; the script is for the command of that name.
    group = ctx.parent.command if ctx.parent else ctx.command
    echo(found(group, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source())
