"""A working directory with two recipes, in which commands run with stand-ins for what takes long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from sftkey.cli.main import sftkey

STAGE1: dict[str, Any] = {
    "base_model": "Qwen/Qwen3-8B-Base",
    "output_dir": "out/stage1",
    "plugins": ["sftkey.SFTKeyPlugin"],
    "sftkey_method": "sft-tag",
    "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
    "learning_rate": 1e-5,
    "num_epochs": 3,
}


class Place:
    """A working directory with two recipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record.jsonl"

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(sftkey, list(arguments), prog_name="sftkey")

    def calls(self) -> list[list[str]]:
        """What has been started since the last look."""
        if not self.record.exists():
            return []
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        seen, self._seen = getattr(self, "_seen", 0), len(lines)
        return lines[seen:]


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output + str(result.exception)
    return result
