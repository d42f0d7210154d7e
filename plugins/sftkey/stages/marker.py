"""The completion marker of a stage: written last and atomically, it says what the stage was.

``output_dir`` holds a config, a tokenizer and even weights long before a stage is done (and after Ctrl-C), so only this
file tells that it finished.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sftkey.util.errors import UserError

MARKER_FILE = "sftkey_stage.json"
RUN_FILE = "sftkey_run.json"
"""Written when a stage starts: the settings that a resumed run must share."""

SCHEMA = 1


def read_marker(output_dir: str | Path) -> dict[str, Any] | None:
    """The marker of a finished stage, or ``None`` where the stage hasn't finished.

    Raises:
        UserError: The file isn't a marker, or was written by a newer version.
    """
    return _read(Path(output_dir) / MARKER_FILE)


def read_run(output_dir: str | Path) -> dict[str, Any] | None:
    """What was written when the stage in `output_dir` last started, or ``None``."""
    return _read(Path(output_dir) / RUN_FILE)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no text, or no JSON
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run the stage again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} has a schema this version of sftkey doesn't know; upgrade sftkey")
    return content


def checkpoints(output_dir: str | Path) -> tuple[list[Path], list[Path]]:
    """The checkpoints in `output_dir`, oldest first: those that are whole, and those cut off while being saved.

    ``trainer_state.json`` is the last file that the trainer writes into a checkpoint.
    """
    found = sorted(
        (path for path in Path(output_dir).glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    whole = [path for path in found if _is_json(path / "trainer_state.json")]
    return whole, [path for path in found if path not in whole]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
