"""What an evaluation needs, looked at before anything is trained: lm-eval, the tasks, their rows, the judge."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.evaluation.task_files import tasks_folder, tasks_in, values_in
from sftkey.recipes.own_data import KEYS
from sftkey.recipes.settings import plain
from sftkey.stages.evaluate import EvaluationSettings, asks_own_rows, is_evaluated, tasks_of
from sftkey.stages.launch import needs_command
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError, nearest

JUDGE_SECONDS = 20.0
"""How long the judge may take for the one question that is put to it."""


class Tasks(Protocol):
    """lm-eval's task manager, as far as it is used here."""

    all_tasks: list[str]

    def match_tasks(self, task_list: list[str]) -> list[str]:
        """The names that patterns stand for."""

    def load_task_or_group(self, task_list: str) -> object:
        """Load a task, with its rows."""


FindTasks = Callable[[str | None, bool], Tasks]
"""`sftkey.evaluation.lm_eval_tasks.task_manager`, which imports lm-eval."""


def check_evaluation(stages: Sequence[Stage], settings: EvaluationSettings, find_tasks: FindTasks) -> None:
    """Refuse what would fail once the stages are trained. Of an evaluation that is done, nothing is looked at.

    Args:
        stages: The stages to be evaluated, trained or not.
        settings: What is to be evaluated.
        find_tasks: Called where a task isn't one of the shipped ones.

    Raises:
        MissingExtra: lm-eval isn't installed.
        UserError: There is no such task, its rows can't be read or none is left, or the judge doesn't answer.
    """
    waiting = [stage for stage in stages if not (stage.finished and is_evaluated(stage, settings))]
    if not waiting:
        return
    needs_command("lm_eval")
    names = dict.fromkeys(name for stage in waiting for name in settings.tasks or tasks_of(stage))
    _check_tasks(list(names), settings, find_tasks)
    seen: list[object] = []
    for stage in waiting:
        data = [plain(stage.config.get(key)) for key in KEYS]
        if asks_own_rows(stage, settings) and data not in seen:
            from sftkey.evaluation.own_rows import own_rows

            seen.append(data)
            own_rows(stage.config, str(stage.recipe))
    if judge := _judge():
        check_judge(judge)


def _judge() -> JudgeSettings | None:
    try:
        return JudgeSettings.from_environment()
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_tasks(names: Sequence[str], settings: EvaluationSettings, find_tasks: FindTasks) -> None:
    folder = settings.include_path
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"--include-path: there is no folder {folder}; it is the one with your task's YAML file")
    own, shipped = tasks_in(Path(folder)) if folder is not None else {}, tasks_in(tasks_folder())
    others = [name for name in names if name in own or name not in shipped]
    if not others:
        return
    # All of lm-eval's take seconds to find.
    alone = folder is not None and all(name in own and not values_in(own[name], "group") for name in others)
    manager = find_tasks(folder, not alone)
    for name in others:
        if name.endswith((".yaml", ".yml")) or Path(name).is_dir():
            if not Path(name).exists():
                raise UserError(f"there is no task file {name}")
        elif not manager.match_tasks([name]):
            close = nearest(name, [*own, *shipped, *manager.all_tasks])
            raise UserError(
                f"there is no task {name!r}; did you mean {close!r}? One of your own is found with --eval-include-path DIR "
                "(sftkey eval: --include-path)"
            )
        elif name in own:
            _load(name, own[name], lambda name=name: manager.load_task_or_group(name))  # type: ignore[misc]


def _load(name: str, path: Path, load: Callable[[], object]) -> None:
    """Load a task of the user's own as lm-eval will, which reads its rows."""
    if "own" in values_in(path, "dataset"):
        return  # they are known once the stage is trained; `own_rows` looks at them
    try:
        load()
    except UserError:
        raise
    except Exception as error:  # whatever a file or code of the user's own raises
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"task {name} ({path}) can't be loaded ({reason})") from error


def check_judge(settings: JudgeSettings) -> None:
    """Put one question to the judge.

    Args:
        settings: Where it is; asked once, within `JUDGE_SECONDS`, past its cache.

    Raises:
        UserError: It doesn't answer.
    """
    from sftkey.evaluation.judge.client import NO_VERDICT, judge
    from sftkey.evaluation.judge.prompt import JudgeItem

    with tempfile.TemporaryDirectory() as empty:
        quick = replace(
            settings, max_retries=0, timeout=min(settings.timeout, JUDGE_SECONDS), cache_dir=Path(empty), concurrency=1
        )
        (said,) = judge([JudgeItem("What is 1 + 1?", "2", "2")], quick, progress=False, report=False)
    if said.source == "unresolved" and not said.detail.startswith(NO_VERDICT):
        raise UserError(
            f"the judge {settings.model} at {settings.base_url} doesn't answer ({said.detail}); start it, correct "
            "SFTKEY_JUDGE_*, or set SFTKEY_JUDGE_MODE=off: `sftkey judge` can judge the samples later"
        )
