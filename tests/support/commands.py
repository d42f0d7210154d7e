"""Runs the real commands, as a user would type them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent

SFTKEY = (sys.executable, "-c", "import sys; sys.argv[0] = 'sftkey'; from sftkey.cli.main import sftkey; sftkey()")
"""``sftkey``, as its console script starts it; a checkout that was installed before it had one lacks the script."""


def environment(**extra: str) -> dict[str, str]:
    """The user's environment with this Python's commands on the path, off the network."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **extra,
    }


def run(*command: str | Path, cwd: Path, timeout: int = 600, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; stdout and stderr are captured."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        # Local folders called openai/gsm8k share one cache entry, whatever their working directory and rows.
        env=environment(**{"HF_DATASETS_CACHE": str(cwd / "datasets_cache"), **extra}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def train(recipe: Path, *options: str, cwd: Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """``axolotl train RECIPE``."""
    return run("axolotl", "train", recipe, *options, cwd=cwd, timeout=timeout)


def succeeded(result: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The result, after checking that the command ended well."""
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]
    return result
