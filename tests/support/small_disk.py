"""Runs a command that sees a small disk of its own at a folder: a tmpfs in a mount namespace, where the system allows it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.commands import environment


def on_a_small_disk(
    folder: Path, size: str, *command: str | Path, cwd: Path, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. What was in `folder` is copied to the disk before, what is there at the end back.

    Args:
        folder: Where the disk is.
        size: Of the disk, as ``mount`` takes it.
        command: The command.
        cwd: Where to run it.
        **extra: More environment variables.
    """
    in_namespace = ("unshare", "--user", "--map-root-user", "--mount")
    if subprocess.run([*in_namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs user namespaces")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder.with_name(f"{folder.name}.kept")
    script = (
        'set -e; disk=$1 size=$2 kept=$3; shift 3; cp -a "$disk" "$kept"; mount -t tmpfs -o "size=$size" none "$disk"; '
        'cp -a "$kept/." "$disk"; set +e; "$@"; status=$?; rm -rf "$kept"; cp -a "$disk" "$kept"; exit $status'
    )
    result = subprocess.run(
        [*in_namespace, "sh", "-c", script, "sh", str(folder), size, str(kept), *map(str, command)],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    kept.rename(folder)
    return result
