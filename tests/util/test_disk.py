"""A full disk: what was whole stays whole, nothing half-written stays, and the message says which disk."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
from sftkey.util.disk import DiskFull, full_disk
from support.commands import SFTKEY
from support.small_disk import on_a_small_disk

OLD = Path(__file__).parents[1] / "stages" / "written_by_9c54c77"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "x/model.safetensors"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 640 vs 534"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        Exception(
            'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'
        ),
    ],
)
def test_each_library_s_word_for_it(tmp_path: Path, error: Exception) -> None:
    try:
        raise ValueError("something else") from error
    except ValueError as outer:
        found = full_disk(outer, [tmp_path / "not" / "there"])
    assert isinstance(found, DiskFull)
    assert "no space left for" in str(found)
    assert "the disk at /" in str(found)
    assert "bytes free" in str(found)
    assert full_disk(found) is found


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), RuntimeError("CUDA out of memory"), KeyboardInterrupt()]
)
def test_other_errors_are_none(error: BaseException) -> None:
    assert full_disk(error) is None


WRITE = """
import json, sys
from pathlib import Path
from sftkey.stages.bundle import save_bundle, Bundle
from sftkey.stages.marker import RunFile
from sftkey.stages.saving import Saving
from sftkey.stages.checkpoints import checkpoints
from sftkey.util.files import replace_files, write_atomically
disk, said = Path(sys.argv[1]), {}

def tried(name, function):
    try:
        function()
    except OSError as error:
        said[name] = [type(error).__name__, str(error)]

# An old version of everything, then as much as to leave 100 KB.
(disk / "verdicts").write_text("old")
saving = Saving(RunFile(id="1"))
def checkpoint(step, size):
    path = disk / f"checkpoint-{step}"
    saving.begin(path)
    (path / "model.safetensors").write_bytes(bytes(size))
    (path / "trainer_state.json").write_text("{}")
    saving.complete(path)
    saving.finish()
checkpoint(1, 1000)
fill = 0
with open(disk / "fill", "wb", buffering=0) as file:
    try:
        while True:
            fill += file.write(bytes(4096))
    except OSError:
        file.truncate(max(0, fill - 100_000))
big = bytes(400_000)
tried("files", lambda: replace_files({disk / "verdicts": [b"new"], disk / "report": [big]}))
def fails():
    try:
        checkpoint(2, 400_000)
    except OSError:
        saving.abandon(disk / "checkpoint-2")
        raise
tried("checkpoint", fails)
tried("marker", lambda: write_atomically(disk / "sftkey_stage.json", {"x": "y" * 400_000}))
said["whole"] = [path.name for path in checkpoints(disk)[0]]
said["left"] = sorted(path.name for path in disk.iterdir())
print(json.dumps(said))
"""


def test_writing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    result = on_a_small_disk(disk, "1m", sys.executable, "-c", WRITE, disk, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    for name in ("files", "marker"):
        kind, message = said[name]
        assert kind == "DiskFull"
        assert message.startswith(f"no space left for {disk}: the disk at {disk} has ")
    assert said["checkpoint"][0] == "OSError"  # the trainer's own write; the hook of its process names the disk
    assert said["whole"] == ["checkpoint-1"]
    assert said["left"] == ["checkpoint-1", "fill", "verdicts"]
    assert (disk / "verdicts").read_text() == "old"


def test_report_and_share(tmp_path: Path) -> None:
    """Both write beside what an earlier call left; that is the same afterwards, to the byte."""
    shutil.copytree(OLD / "old", tmp_path / "outputs" / "old")
    shutil.copytree(OLD / "recipes", tmp_path / "recipes")
    disk = tmp_path / "disk"
    bundle = disk / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "sftkey_share.json").write_text("{}")
    (bundle / "weights").write_text("old")
    command = (*SFTKEY, "share", "outputs/old/stage2", "--weights", "-o", bundle)
    shared = on_a_small_disk(disk, "40k", *command, cwd=tmp_path)
    assert shared.returncode == 1
    assert f"the disk at {disk} has" in shared.stderr
    assert "Traceback" not in shared.stderr
    assert sorted(path.name for path in disk.rglob("*")) == ["bundle", "sftkey_share.json", "weights"]
    page = disk / "report"
    reported = on_a_small_disk(disk, "200k", *SFTKEY, "report", "outputs/old", "-o", page, cwd=tmp_path)
    assert reported.returncode == 1
    assert f"the disk at {disk} has" in reported.stderr
    assert "Traceback" not in reported.stderr
    assert not list(disk.rglob(".*"))
