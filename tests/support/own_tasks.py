"""A task of a user's own, as a folder for ``--include_path``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROW = {"question": "3 + 4?", "thinking": "I add.", "answer": "7"}


def own_task(folder: Path, name: str, *, rows: list[dict[str, Any]] | None = None, keys: str = "") -> None:
    """Write the task ``name`` on rows of one's own.

    Args:
        folder: Where to.
        name: Its name.
        rows: Its rows.
        keys: More lines of its YAML file.
    """
    folder.mkdir(exist_ok=True)
    place = folder / f"{name}.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in ([ROW] if rows is None else rows)))
    (folder / "utils.py").write_text("from sftkey.evaluation.lm_eval_tasks import SFTKeyTask\n")
    lines = ("class: !function utils.SFTKeyTask", f"task: {name}", "dataset: columns", "dataset_path: json")
    kwargs = f"dataset_kwargs: {{data_files: {{test: {place.resolve()}}}}}"
    (folder / f"{name}.yaml").write_text("\n".join((*lines, kwargs, keys)))
