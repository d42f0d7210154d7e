"""The folder of the shipped lm-eval tasks: in the installed package, or beside ``plugins/`` in a checkout."""

from __future__ import annotations

from pathlib import Path

from sftkey.util.errors import UserError


def tasks_folder() -> Path:
    """Find it; lm-eval's own copy, in ``lm_eval/tasks/sftkey``, may be missing or of another version.

    Raises:
        UserError: It isn't there; the installation is broken.
    """
    installed = Path(__file__).resolve().parent / "tasks"
    for folder in (installed, installed.parents[3] / "tasks"):
        if (folder / "sftkey_gsm8k.yaml").is_file():
            return folder
    raise UserError(f"no tasks in {installed}: the installation is incomplete; install sftkey again")
