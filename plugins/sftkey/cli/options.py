"""Options that commands share: the launcher's arguments and the evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sftkey.cli.console import others_on_stderr

if TYPE_CHECKING:
    from sftkey.recipes.unknown_keys import KnownKeys
    from sftkey.stages.evaluate import EvaluationSettings
    from sftkey.stages.stage import Stage

_LAUNCHER_ARGUMENTS = "sftkey.launcher_arguments"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A number within bounds: ``nan`` lies within all of them, and ``inf`` or ``1e400`` within those that have no end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse what is no finite number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class LauncherArguments(click.Command):
    """A command that keeps what stands after ``--`` apart from its own arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the launcher's arguments out of `args`."""
        if "--" in args:
            position = args.index("--")
            args, after = args[:position], args[position + 1 :]
            ctx.meta[_LAUNCHER_ARGUMENTS] = tuple(after)
        return super().parse_args(ctx, args)


def known_keys() -> KnownKeys:
    """The recipe keys that exist, by Axolotl, which is imported for it."""
    with others_on_stderr():
        from sftkey.axolotl.known_keys import known_keys as ask

    return ask()


def launcher_arguments(ctx: click.Context) -> tuple[str, ...]:
    """What stands after ``--``."""
    found: tuple[str, ...] = ctx.meta.get(_LAUNCHER_ARGUMENTS, ())
    return found


_SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "limit",
        {"type": FiniteRange(min=0, min_open=True), "metavar": "N", "help": "Items per task, or a share below 1."},
    ),
    (
        "backend",
        {"default": "hf", "show_default": True, "metavar": "MODEL", "help": "lm_eval's --model: hf, vllm, ..."},
    ),
    ("tasks", {"metavar": "NAME,...", "help": "Tasks [default: by the recipe's data sets and method]."}),
    ("model-args", {"default": "", "metavar": "KEY=VALUE,...", "help": "More of lm_eval's --model_args."}),
    ("batch-size", {"metavar": "SIZE", "help": "[default: 16 for hf, otherwise auto]"}),
    ("include-path", {"metavar": "DIR", "help": "A folder with tasks of your own, in place of the shipped ones."}),
)


def evaluation_options(function: _Function) -> _Function:
    """``--eval`` and the ``--eval-...`` options."""
    option = click.option("--eval", "evaluate", is_flag=True, help="Evaluate each stage with lm_eval after training.")
    return option(evaluation_setting_options(function))


def evaluation_setting_options(function: _Function) -> _Function:
    """The ``--eval-...`` options alone, for a command that evaluates anyway."""
    for name, settings in reversed(_SETTINGS):
        function = click.option(f"--eval-{name}", **settings)(function)
    return function


def evaluation_command_options(function: _Function) -> _Function:
    """The same settings for the command that does nothing else, as lm_eval calls them."""
    for name, settings in reversed(_SETTINGS):
        option = "--model" if name == "backend" else f"--{name}"
        function = click.option(option, f"eval_{name.replace('-', '_')}", **settings)(function)
    return function


def check_evaluation(stages: Sequence[Stage], settings: EvaluationSettings) -> None:
    """Refuse, before hours of training, an evaluation that would fail after them."""
    from sftkey.stages.evaluation_checks import check_evaluation as check

    def find_tasks(folder: str | None, defaults: bool) -> Any:
        from datasets import disable_progress_bars

        from sftkey.evaluation.lm_eval_tasks import task_manager

        # A task of the user's own reads its rows here, for a moment.
        disable_progress_bars()
        return task_manager(folder, defaults)

    with others_on_stderr():
        check(stages, settings, find_tasks)


def given_evaluation_options(options: Mapping[str, Any]) -> dict[str, str]:
    """The ``--eval-...`` options on the command line, but for the backend, which has a default."""
    names = ("limit", "tasks", "model_args", "batch_size", "include_path")
    values = {f"--eval-{name.replace('_', '-')}": options[f"eval_{name}"] for name in names}
    return {name: str(value) for name, value in values.items() if value}


def evaluation_settings(options: Mapping[str, Any]) -> EvaluationSettings | None:
    """What the ``--eval`` options ask for; ``None`` without ``--eval``.

    Raises:
        click.UsageError: Options of an evaluation without ``--eval``.
    """
    from sftkey.stages.evaluate import EvaluationSettings

    if not options["evaluate"]:
        for name in given_evaluation_options(options):
            raise click.UsageError(f"{name} does nothing without --eval")
        return None
    backend = options["eval_backend"]
    return EvaluationSettings(
        backend=backend,
        model_arguments=options["eval_model_args"],
        tasks=tuple(filter(None, (options["eval_tasks"] or "").split(","))),
        limit=options["eval_limit"],
        batch_size=options["eval_batch_size"] or ("16" if backend == "hf" else "auto"),
        include_path=options["eval_include_path"],
    )
