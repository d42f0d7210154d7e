"""``sftkey chat``: talk to a finished stage in a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import echo, in_color, is_terminal, note, others_on_stderr, print_json
from sftkey.util.errors import UserError
from sftkey.util.text import encodable, visible

if TYPE_CHECKING:
    from sftkey.evaluation.generation import Completion
    from sftkey.format.reasoning_parser import Parts

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


@click.command()
@click.argument("output_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--prompt", metavar="TEXT", help="Ask this one question, print the reply and end; for scripts.")
@click.option("--system", metavar="TEXT", help="A system message in the place of the chat template's own.")
@click.option("--show-prompt", is_flag=True, help="Print on stderr what the model is sent, turn markers included.")
@click.option(
    "--max-new-tokens", default=1024, show_default=True, type=click.IntRange(min=1), help="Limit of a reply, in tokens."
)
@click.option("--color/--no-color", default=None, help="Dim the thinking; default: in a terminal only.")
@click.option("--json", "as_json", is_flag=True, help="With --prompt: print thinking and answer as JSON.")
@click.option("--trust-remote-code", is_flag=True, help="Run the code that OUTPUT_DIR names for its model.")
def chat_command(
    output_dir: Path,
    prompt: str | None,
    system: str | None,
    show_prompt: bool,
    max_new_tokens: int,
    color: bool | None,
    as_json: bool,
    trust_remote_code: bool,
) -> None:
    """Talk to the finished stage in OUTPUT_DIR, greedily, as it is evaluated.

    Its own chat template makes the prompt, and earlier turns stay in it. Thinking is dimmed, or marked where there is no
    colour. Ctrl-C ends a reply, Ctrl-D the chat. Of an adapter the base model is loaded, too.
    """
    if as_json and prompt is None:
        raise click.UsageError("--json needs --prompt")
    with others_on_stderr():
        chat = _Chat(output_dir, max_new_tokens, trust_remote_code)
    messages: list[dict[str, str]] = [{"role": "system", "content": encodable(system)}] if system else []
    while (question := prompt if prompt is not None else _asked()) is not None:
        messages.append({"role": "user", "content": encodable(question)})
        text = chat.prompt(messages)
        if show_prompt:
            echo(text, err=True)
        shown = _Shown(in_color(color), quiet=as_json)
        reply, parts = chat.reply(text, shown)
        shown.end()
        if as_json:
            print_json({"thinking": parts.thinking, "answer": parts.answer, **reply._asdict()})
        elif not reply.finished:
            note(f"the reply was ended after {reply.tokens:,} tokens")
        elif (fault := chat.fault(text, reply.text)) is not None:
            note(f"the reply is not in the format: {fault}")
        if prompt is not None:
            return
        kept = {"reasoning_content": parts.thinking} if parts.thinking else {}
        messages.append({"role": "assistant", "content": parts.answer, **kept})


def _asked() -> str | None:
    """The next question; None at the end of the chat."""
    while sys.stdin is not None:
        try:
            line = input("> " if is_terminal(sys.stdin) and is_terminal(sys.stdout) else "")
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            raise UserError(f"a question is not {error.encoding} text") from error
        except KeyboardInterrupt:  # of a line that is being typed
            echo("")
            continue
        if line.strip():
            return line
    return None


class _Chat:
    """A model and how it is asked."""

    def __init__(self, output_dir: Path, max_new_tokens: int, trust_remote_code: bool) -> None:
        from sftkey.evaluation.generation import load_model, load_tokenizer
        from sftkey.format.formats import texts_of
        from sftkey.format.methods import METHODS
        from sftkey.format.reasoning_parser import Splitter
        from sftkey.recipes.foreign_code import refuse_foreign_code
        from sftkey.recipes.load import response_format
        from sftkey.stages.marker import MARKER_FILE
        from sftkey.stages.stage import finished_stage

        stage = finished_stage(output_dir)
        if not trust_remote_code:
            refuse_foreign_code(dict(stage.config), str(output_dir / MARKER_FILE))
        self._tokenizer: Any = load_tokenizer(output_dir, trust_remote_code)
        if not self._tokenizer.chat_template:
            raise UserError(f"{output_dir} has no chat template; its tokenizer's files are incomplete")
        method = METHODS.get(stage.method)
        self._format = response_format(stage.config) if method is None or method.tagged else None
        self._splitter = Splitter(**texts_of(self._format)) if self._format else None
        self._limit = max_new_tokens
        self._model = load_model(output_dir, len(self._tokenizer), trust_remote_code)

    def prompt(self, messages: list[dict[str, str]]) -> str:
        """The prompt of a conversation."""
        from sftkey.training.rendering import TemplateError, render

        try:
            text = render(self._tokenizer, messages, add_generation_prompt=True)
        except TemplateError as error:
            raise UserError(f"the chat template: {error}") from error
        if not text:
            raise UserError("the chat template renders nothing")
        return text

    def reply(self, prompt: str, shown: _Shown) -> tuple[Completion, Parts]:
        """Generate a reply, and show it while it grows."""
        from sftkey.evaluation.generation import stream
        from sftkey.training.tokenizers import encode

        opened = self._opened(prompt)
        completion = stream(
            self._model,
            self._tokenizer,
            encode(self._tokenizer, [prompt])[0],
            max_new_tokens=self._limit,
            end=self._tokenizer.eos_token,
            on_text=lambda text: shown.show(self._split(opened + text, finished=False)),
        )
        parts = self._split(opened + completion.text, finished=True)
        shown.show(parts)
        return completion, parts

    def fault(self, prompt: str, output: str) -> str | None:
        """Why an output is not in the format."""
        failure = self._format.parse(self._opened(prompt) + output).failure if self._format else None
        return failure.value if failure else None

    def _opened(self, prompt: str) -> str:
        """What the prompt holds of the response."""
        from sftkey.evaluation.trained_model import opened_by

        return opened_by(prompt, self._format) if self._format else ""

    def _split(self, text: str, *, finished: bool) -> Parts:
        from sftkey.format.reasoning_parser import Parts

        return self._splitter.split(text, finished=finished) if self._splitter else Parts("", text, False)


class _Shown:
    """What of a reply is on the screen."""

    def __init__(self, color: bool, *, quiet: bool) -> None:
        self._color, self._quiet = color, quiet
        self._thinking = self._answer = 0

    def show(self, parts: Parts) -> None:
        """Print what is new."""
        # A character whose bytes aren't all there yet is written last.
        thinking, answer = parts.thinking.rstrip("\ufffd"), parts.answer.rstrip("\ufffd")
        if len(thinking) > self._thinking and not self._answer:
            if not self._thinking and not self._color:
                self._print("[thinking]\n")
            self._print(thinking[self._thinking :], dim=self._color)
            self._thinking = len(thinking)
        if len(answer) > self._answer:
            if self._thinking and not self._answer:
                self._print("\n\n" if self._color else "\n\n[answer]\n")
            self._print(answer[self._answer :])
            self._answer = len(answer)

    def end(self) -> None:
        """End the line."""
        self._print("\n")

    def _print(self, text: str, *, dim: bool = False) -> None:
        if not self._quiet:
            text = visible(text)
            click.echo(f"{_DIM}{text}{_PLAIN}" if dim else text, nl=False, color=self._color)
