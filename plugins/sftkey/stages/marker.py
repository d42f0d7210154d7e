"""What a stage leaves in its output directory: the run file when it starts, the completion marker when it is done.

``output_dir`` holds a config, a tokenizer and even weights long before a stage is done (and after Ctrl-C). The marker is
written last and atomically, so only this file tells that the stage finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile, read_json

MARKER_FILE = "sftkey_stage.json"
RUN_FILE = "sftkey_run.json"
LOG_FILE = "trainer_state.json"
"""The trainer's log, in the output directory and in each checkpoint, where it is the last file that is written."""

SCHEMA = 1

# The report shows these texts, so none may be longer than what it can be.
_Word = Annotated[str, Field(max_length=100)]
_Path = Annotated[str, Field(max_length=4096)]

_File = TypeVar("_File", "Marker", "RunFile")


class _Part(BaseModel):
    """What another version adds is kept, so that a copy of a marker is a whole one."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True, serialize_by_alias=True, populate_by_name=True)


class RecipeCopy(_Part):
    """The recipe as it was run: the file's name, and the keys with the command line's values."""

    name: str = ""
    config: dict[str, Any] = Field(default_factory=dict)


class TokenizerRecord(_Part):
    """The tokenizer that was saved; ``sha256`` is that of ``tokenizer.json``, ``size`` counts added tokens too."""

    sha256: str | None = None
    eos_token: str | None = None
    size: int | None = None


class DataRecord(_Part):
    """One data set: what names it, the commit on the Hub, and how many of its rows were used."""

    path: _Path | None = None
    name: str | None = None
    split: str | None = None
    type: str | dict[str, Any] | None = None
    revision: str | None = None
    data_files: Any = None
    commit: str | None = None
    rows_used: int | None = None
    rows_skipped: dict[str, int] = Field(default_factory=dict)


class TrainingRecord(_Part):
    """How long it trained (seconds of wall time), on how many processes, and the losses at the end."""

    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    world_size: int | None = None
    train_loss: float | None = None
    losses: dict[str, int | float] = Field(default_factory=dict)
    eval_losses: dict[str, int | float] = Field(default_factory=dict)


class After(_Part):
    """The stage that this one started from.

    Attributes:
        output_dir: Where it was, as the recipe names it.
        id: Its id; ``None`` where one of the two was written before markers had ids.
        method: Its method.
        finished_at: When it finished, as in its marker.
        stage: A copy of its marker, with that of the stage before in it: it outlives the directory.
    """

    output_dir: _Path
    id: _Word | None = None
    method: _Word | None = None
    finished_at: _Word | None = None
    stage: Marker | None = None

    def names(self, marker: Marker) -> bool:
        """Whether `marker` is that of the stage that was started from, and not of a later training in its place."""
        if self.id is not None:
            return marker.id == self.id
        return self.finished_at in (None, marker.finished_at)


class Marker(_Part):
    """The completion marker of a stage (``sftkey_stage.json``).

    Attributes:
        id: Random; ``None`` in markers written before 0.2.
        finished_at: ISO 8601, UTC.
        method: The value of ``sftkey_method``.
        base_model: What it started from: a model, or the output directory of the stage before.
        base_model_commit: The model's commit on the Hub.
        recipe: The recipe as it was run.
        settings: What of the recipe decides the weights; see `sftkey.recipes.settings.training_settings`.
        after: The stage that it started from; ``None`` for a first stage.
        tags: ``tokens`` or ``text``.
        chat_template: Name and SHA-256 of the chat template.
        tokenizer: The tokenizer.
        data: The training data, in the recipe's order.
        versions: Versions of Python and packages.
        training: Steps, time and losses.
    """

    schema_: int = Field(default=SCHEMA, alias="schema")
    finished_at: _Word
    method: _Word
    base_model: _Path
    id: _Word | None = None
    base_model_commit: str | None = None
    recipe: RecipeCopy = Field(default_factory=RecipeCopy)
    settings: dict[str, Any] = Field(default_factory=dict)
    after: After | None = None
    tags: str | None = None
    chat_template: dict[str, str] | None = None
    tokenizer: TokenizerRecord = Field(default_factory=TokenizerRecord)
    data: list[DataRecord] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)
    training: TrainingRecord = Field(default_factory=TrainingRecord)

    @staticmethod
    def read(output_dir: str | Path) -> Marker | None:
        """The marker of a finished stage, or ``None`` where the stage hasn't finished.

        Raises:
            UserError: The file isn't a marker, or was written by a newer version.
        """
        return _read(Path(output_dir) / MARKER_FILE, Marker)

    @property
    def content(self) -> dict[str, Any]:
        """The marker as JSON holds it."""
        return self.model_dump(exclude_unset=True)


class RunFile(_Part):
    """Written when a stage starts (``sftkey_run.json``): what a resumed run must share.

    Attributes:
        started_at: ISO 8601, UTC.
        settings: As in `Marker`.
        after: The stage that it started from, without the copy of its marker.
        world_size: Number of training processes.
        pid: The first process.
    """

    schema_: int = Field(default=SCHEMA, alias="schema")
    started_at: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    after: After | None = None
    world_size: int | None = None
    pid: int | None = None

    @staticmethod
    def read(output_dir: str | Path) -> RunFile | None:
        """What was written when the stage in `output_dir` last started, or ``None``.

        Raises:
            UserError: The file isn't a run file, or was written by a newer version.
        """
        return _read(Path(output_dir) / RUN_FILE, RunFile)

    @property
    def content(self) -> dict[str, Any]:
        """The run file as JSON holds it."""
        return self.model_dump(exclude_unset=True)


def parse(model: type[_File], content: dict[str, Any]) -> _File:
    """A marker or a run file from what its file holds.

    Raises:
        UnreadableFile: It has another shape; names the key.
    """
    if content.get("schema", SCHEMA) != SCHEMA:
        raise UnreadableFile("has a schema this version of sftkey doesn't know; upgrade sftkey")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnreadableFile(f"has the wrong shape: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _read(path: Path, model: type[_File]) -> _File | None:
    if not path.exists():
        return None
    try:
        content = read_json(path)
    except UnreadableFile as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run the stage again") from error
    try:
        return parse(model, content)
    except UnreadableFile as error:
        raise UserError(f"{path} {error}") from error
