"""A stage on disk: its output directory, what it recorded there, and the stages that led to it."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from sftkey.recipes.load import DEFAULT_OUTPUT_DIR
from sftkey.stages.checkpoints import checkpoints
from sftkey.stages.links import find_before
from sftkey.stages.marker import MARKER_FILE, After, DataRecord, Marker, RunFile, TrainingRecord
from sftkey.util.errors import UserError


class State(enum.Enum):
    """How far a stage is."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Stage:
    """One stage, finished or not: as its output directory tells it, or as a recipe plans it.

    Attributes:
        output_dir: Where its weights go.
        config: The recipe: of a planned stage the keys with the command line's values, of a finished one those it was
            run with, of an interrupted one its training settings.
        marker: The completion marker; ``None`` until it is finished.
        run: The run file, while it is under way.
        recipe: The recipe file; of a stage that was read from its directory only its name.
        recorded_only: Whether its directory is gone, or holds another stage, and only the copy of its marker in the stage
            after it is left.
        linked: Whether the stage before is known from elsewhere, such as ``sftkey_after``; it is `linked_before` then.
        linked_before: See `linked`.
        arguments: The options of a planned stage that ``axolotl train`` gets.
        as_trained: Whether a planned stage was trained into another place than its recipe says: its settings are its own.
        part: What of a planned stage the next one starts from: a checkpoint's folder, `MERGED_FOLDER`, or empty for the
            weights that it ended with.
        remarks: What to say of a planned stage although it goes on.
    """

    output_dir: Path
    config: Mapping[str, Any] = field(repr=False)
    marker: Marker | None = field(default=None, repr=False)
    run: RunFile | None = field(default=None, repr=False)
    recipe: Path = Path()
    recorded_only: bool = False
    linked: bool = False
    linked_before: Self | None = field(default=None, repr=False)
    arguments: tuple[str, ...] = ()
    as_trained: bool = False
    part: str = ""
    remarks: tuple[str, ...] = ()

    @classmethod
    def read(cls, output_dir: str | Path) -> Self:
        """Read what a stage left in its output directory.

        Raises:
            UserError: The marker or the run file is broken.
        """
        marker = Marker.read(output_dir)
        if marker is not None:
            return cls(Path(output_dir), marker.recipe.config, marker, recipe=Path(marker.recipe.name))
        run = RunFile.read(output_dir)
        return cls(Path(output_dir), run.settings if run else {}, run=run)

    @classmethod
    def of_recipe(cls, recipe: Path, config: Mapping[str, Any], arguments: tuple[str, ...] = ()) -> Self:
        """Plan a stage: a recipe with the overrides that hold for it, and what is in its output directory by now.

        Raises:
            UserError: The marker or the run file there is broken.
        """
        output_dir = Path(str(config.get("output_dir") or DEFAULT_OUTPUT_DIR))
        marker = Marker.read(output_dir)
        run = None if marker else RunFile.read(output_dir)
        return cls(output_dir, config, marker, run, recipe, linked=True, arguments=arguments)

    @property
    def place(self) -> str:
        """Where the weights of a planned stage are that the next one starts from, as its recipe writes it."""
        return os.path.join(str(self.config.get("output_dir") or DEFAULT_OUTPUT_DIR), self.part).removesuffix("/")

    @property
    def is_adapter(self) -> bool:
        """Whether it trains an adapter, and these are not its merged weights."""
        return bool(self.config.get("adapter")) and not (self.marker and self.marker.merged)

    @property
    def on_ray(self) -> bool:
        """Whether Ray's workers train it."""
        return bool(self.config.get("use_ray"))

    @property
    def method(self) -> str:
        """The value of ``sftkey_method``; empty where an unfinished stage doesn't say it."""
        return self.marker.method if self.marker else str(self.config.get("sftkey_method") or "")

    @property
    def base_model(self) -> str | None:
        """What it started from: a model, or the output directory of the stage before."""
        base = self.marker.base_model if self.marker else self.config.get("base_model")
        return None if base is None else str(base)

    @property
    def finished_at(self) -> str | None:
        """When it finished, ISO 8601; ``None`` before."""
        return self.marker.finished_at if self.marker else None

    @property
    def data(self) -> list[DataRecord]:
        """The training data of a finished stage, with the rows used and skipped; empty before."""
        return self.marker.data if self.marker else []

    @property
    def training(self) -> TrainingRecord:
        """Steps, time and losses of a finished stage; empty before."""
        return self.marker.training if self.marker else TrainingRecord()

    @property
    def finished(self) -> bool:
        """Whether it has its completion marker."""
        return self.marker is not None

    @property
    def state(self) -> State:
        """How far it is."""
        if self.finished:
            return State.FINISHED
        return State.UNFINISHED if self.run is not None or self.checkpoints else State.NOT_STARTED

    @cached_property
    def checkpoints(self) -> tuple[Path, ...]:
        """The whole checkpoints, oldest first."""
        return tuple(checkpoints(self.output_dir)[0])

    @property
    def resume_from(self) -> Path | None:
        """The checkpoint that it goes on from; ``None`` where it is finished or starts at the beginning."""
        config = self.config
        if not self.finished and config.get("resume_from_checkpoint"):
            return Path(str(config["resume_from_checkpoint"]))
        if self.finished or config.get("auto_resume_from_checkpoints") is False or config.get("save_only_model"):
            return None
        return self.checkpoints[-1] if self.checkpoints else None

    @cached_property
    def after(self) -> After | None:
        """What it recorded of the stage that it started from; ``None`` for a first stage."""
        if self.marker or self.run is None or self.run.after or not self.run.settings.get("sftkey_after"):
            written = self.marker or self.run
            return written.after if written else None
        # Before 0.2 a run file didn't say it; the weights of the stage before are where the recipe's model would be.
        start = self.run.settings.get("lora_model_dir") or self.run.settings.get("base_model")
        return After(output_dir=start[:4096]) if start and isinstance(start, str) else None

    @cached_property
    def before(self) -> Self | None:
        """The stage that it started from; ``None`` for a first stage.

        Raises:
            UserError: That stage isn't there, or was trained again since, and there is no copy of its marker.
        """
        if self.linked or self.after is None:
            return self.linked_before
        found, instead = find_before(self, self._read_finished)
        if found is not None:
            return found
        if self.after.stage is not None:
            copy = self.after.stage
            place, recipe = Path(self.after.output_dir), Path(copy.recipe.name)
            return type(self)(place, copy.recipe.config, copy, recipe=recipe, recorded_only=True)
        if instead is not None and instead.marker is not None:
            raise UserError(
                f"{instead.output_dir} finished at {instead.marker.finished_at}, but {self.output_dir} started from what "
                f"finished there at {self.after.finished_at}: its recipe may be another one by now. Train {self.output_dir} "
                f"again, or share {instead.output_dir} itself"
            )
        recorded = Path(self.after.output_dir)
        raise UserError(
            f"{self.output_dir} started from {recorded}, and there is no {MARKER_FILE} there, nor in "
            f"{self.output_dir.resolve().parent / recorded.name}; both stages' recipes are needed to run it again. Run this "
            "where the outputs are, or put the stage before there"
        )

    @classmethod
    def _read_finished(cls, place: Path) -> Self | None:
        # os.path, because a place may be in a folder that can't be entered.
        return cls.read(place) if os.path.isfile(place / MARKER_FILE) else None

    @property
    def chain(self) -> tuple[Self, ...]:
        """All stages from the first to this one.

        Raises:
            UserError: See `before`.
        """
        chain: tuple[Self, ...] = (self,)
        while (before := chain[0].before) is not None:
            if any(before.marker is not None and before.marker == stage.marker for stage in chain):
                raise UserError(f"{before.output_dir}: the stages start from each other in a circle")
            chain = (before, *chain)
        return chain


def finished_stage(output_dir: str | Path) -> Stage:
    """Read a stage that has finished, from its output directory.

    Raises:
        UserError: It hasn't finished, isn't there, or its marker is broken.
    """
    output_dir = Path(output_dir)
    stage = Stage.read(output_dir)
    if not stage.finished:
        what = "hasn't finished: there is no" if output_dir.is_dir() else "isn't there: no"
        raise UserError(f"{output_dir} {what} {output_dir / MARKER_FILE}")
    return stage
