"""What a stage leaves in its output directory: the run file when it starts, the completion marker when it is done.

``output_dir`` holds a config, a tokenizer and even weights long before a stage is done (and after Ctrl-C). The marker is
written last and atomically, so only this file tells that the stage finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sftkey.stages.manifest import FileRecord
from sftkey.util.errors import UserError
from sftkey.util.files import MARKER_FILE as MARKER_FILE
from sftkey.util.sources import UnreadableFile, read_json
from sftkey.util.text import one_line

RUN_FILE = "sftkey_run.json"
LOG_FILE = "trainer_state.json"
"""The trainer's log, in the output directory and in each checkpoint, where it is the last file that is written."""

SCHEMA = 1

# The report shows these texts, so none may be longer than what it can be.
_Word = Annotated[str, Field(max_length=100)]
_Name = Annotated[str, Field(max_length=255)]
_Path = Annotated[str, Field(max_length=4096)]


class _Part(BaseModel):
    """What another version adds is kept, so that a copy of a marker is a whole one."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True, serialize_by_alias=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, content: Any) -> Any:
        """Someone who edits a marker puts ``null`` where nothing is to be said; the default is in its place."""
        if not isinstance(content, Mapping):
            return content
        defaults = {
            field.alias or name: field.get_default(call_default_factory=True)
            for name, field in cls.model_fields.items()
            if not field.is_required()
        }
        return {key: value for key, value in content.items() if value is not None or defaults.get(key) is None}


class RecipeCopy(_Part):
    """The recipe as it was run: the file's name, and the keys with the command line's values."""

    name: _Name = ""
    config: dict[str, Any] = Field(default_factory=dict)

    @field_validator("config")
    @classmethod
    def _data_are_entries(cls, config: dict[str, Any]) -> dict[str, Any]:
        for key in ("datasets", "test_datasets"):
            entries = config.get(key) or []
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise ValueError(f"{key} isn't a list of entries")
        return config


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


class DataContent(_Part):
    """What one data set held: how many files and bytes, one SHA-256 for them and their names, and for its own module."""

    files: int | None = None
    size: int | None = None
    sha256: _Word | None = None
    code: _Word | None = None
    commit: _Word | None = None
    rows_used: int | None = None


class Lineage(_Part):
    """What a stage is made from, by content; `sftkey.stages.lineage` builds and compares it.

    ``weights`` is the identity of those that it starts from, ``reference`` that of its reference model's, ``adapter`` the
    shape of the adapter that is trained, and ``changes`` what was gone on with although it had changed. ``evaluated_before``
    of the ``rows_evaluated`` had been trained on in this stage or one before.
    """

    weights: _Word | None = None
    reference: _Word | None = None
    tokenizer: _Word | None = None
    template: _Word | None = None
    data: list[DataContent] = Field(default_factory=list)
    adapter: dict[str, Any] = Field(default_factory=dict)
    resumed_from: list[_Path] = Field(default_factory=list)
    changes: list[_Path] = Field(default_factory=list)
    rows_trained: int | None = None
    rows_evaluated: int | None = None
    evaluated_before: int | None = None


class KeptCheckpoint(_Part):
    """Whose weights the stage ended with: the best checkpoint by a metric, or without one those of the last step.

    ``eval_rows_missed`` counts rows of the evaluation split that the last evaluation left out.
    """

    step: int | None = None
    checkpoint: _Word | None = None
    metric: _Word | None = None
    value: float | None = None
    greater_is_better: bool | None = None
    eval_rows_missed: int | None = None


class TrainingRecord(_Part):
    """How long it trained (seconds of wall time), on how many processes, and the losses of what it ended with.

    Without a `kept` checkpoint those are the last ones.
    """

    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    world_size: int | None = None
    train_loss: float | None = None
    losses: dict[str, int | float] = Field(default_factory=dict)
    eval_losses: dict[str, int | float] = Field(default_factory=dict)
    kept: KeptCheckpoint | None = None


class MergeRecord(_Part):
    """Which adapter was merged, and how far the merged weights' logits are from its own, over how many positions.

    ``weights`` is the `sftkey.stages.manifest.identity` of the merged weights.
    """

    adapter: _Path
    weights: str | None = None
    difference: float | None = None
    positions: int | None = None


class After(_Part):
    """The stage that this one started from, and where: its output directory, a checkpoint, or its merged weights.

    ``stage``, a copy of its marker, outlives its directory.
    """

    output_dir: _Path = Field(min_length=1)
    id: _Word | None = None
    method: _Word | None = None
    finished_at: _Word | None = None
    stage: Marker | None = None

    def names(self, marker: Marker) -> bool:
        """Whether `marker` is that of the stage that was started from, and not of a later training in its place."""
        if self.id is not None:
            return marker.id == self.id
        return self.finished_at in (None, marker.finished_at)


def _on_one_line(value: Any) -> Any:
    """The same with every text printable and on one line: a marker may be a stranger's, and its texts become other files'.

    But for what a recipe holds, where a line break may be meant.
    """
    if isinstance(value, Mapping):
        return {
            one_line(str(key)): item if key in ("config", "settings") else _on_one_line(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_on_one_line(item) for item in value]
    return one_line(value) if isinstance(value, str) else value


class _StageFile(_Part):
    """What both files say of a stage; ``settings`` are those of `sftkey.recipes.settings.training_settings`."""

    FILE: ClassVar[str]

    schema_: int = Field(default=SCHEMA, alias="schema")
    settings: dict[str, Any] = Field(default_factory=dict)
    after: After | None = None
    lineage: Lineage | None = None

    @property
    def content(self) -> dict[str, Any]:
        """What the file holds."""
        return self.model_dump(exclude_unset=True)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """Check what the file holds.

        Raises:
            UnreadableFile: It has another shape; names the key.
        """
        if content.get("schema", SCHEMA) != SCHEMA:
            raise UnreadableFile("has a schema this version of sftkey doesn't know; upgrade sftkey")
        try:
            return cls.model_validate(_on_one_line(content))
        except RecursionError:
            raise UnreadableFile("is nested too deeply; delete it and run the stage again") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise UnreadableFile(
                f"has the wrong shape: {key}: {first['msg']}; delete it and run the stage again"
            ) from None

    @classmethod
    def read(cls, output_dir: str | Path) -> Self | None:
        """Read the file in an output directory; ``None`` where there is none.

        Raises:
            UserError: It can't be used, or was written by a newer version.
        """
        path = Path(output_dir) / cls.FILE
        if not path.exists():
            return None
        try:
            content = read_json(path)
        except UnreadableFile as error:
            raise UserError(f"{path} is not valid JSON ({error}); delete it and run the stage again") from error
        try:
            return cls.parse(content)
        except UnreadableFile as error:
            raise UserError(f"{path} {error}") from error


class Marker(_StageFile):
    """The completion marker. ``id`` is random, and missing before 0.2; ``finished_at`` is ISO 8601, UTC.

    In a folder of merged weights it is that of the adapter's stage, with ``merged``.

    ``weights`` are the files that it ended with.
    """

    FILE = MARKER_FILE

    finished_at: _Word
    method: _Word
    base_model: _Path
    id: _Word | None = None
    base_model_commit: str | None = None
    recipe: RecipeCopy = Field(default_factory=RecipeCopy)
    tags: str | None = None
    chat_template: dict[str, str] | None = None
    tokenizer: TokenizerRecord = Field(default_factory=TokenizerRecord)
    data: list[DataRecord] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)
    training: TrainingRecord = Field(default_factory=TrainingRecord)
    merged: MergeRecord | None = None
    weights: dict[_Word, FileRecord] = Field(default_factory=dict)


class RunFile(_StageFile):
    """What a resumed run must share. Its ``after`` holds no copy of the marker of the stage before.

    ``id`` is the same after a resumption, and missing before 0.2; ``unlisted`` names the checkpoints that such a version
    left, which don't say whose they are.
    """

    FILE = RUN_FILE

    id: _Word | None = None
    unlisted: list[str] = Field(default_factory=list)

    started_at: str | None = None
    world_size: int | None = None
    pid: int | None = None
