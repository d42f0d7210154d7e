"""A full disk: what was whole stays whole, nothing half-written stays, and the message says which disk."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from sftkey.util.disk import DiskFull, full_disk
from support.axolotl_recipes import write_recipe
from support.commands import SFTKEY, run, succeeded
from support.loopback_judge import LoopbackServer
from support.output_roots import Outputs
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


def test_judging(tmp_path: Path) -> None:
    """The evaluation stays as it was, the verdicts are kept, and with room the same command asks nobody again."""
    disk = tmp_path / "disk"
    results = Outputs(disk).evaluate("some/model", "sftkey_gsm8k", [(0.0, 1.0)] * 100)
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    size = sum(map(len, before.values()))
    command = (*SFTKEY, "judge", disk, "--mode", "always")
    with LoopbackServer(lambda _: "yes") as server:
        judge = {
            "SFTKEY_JUDGE_BASE_URL": server.base_url,
            "SFTKEY_JUDGE_CACHE": str(tmp_path / "cache"),
            "SFTKEY_JUDGE_FITNESS": "off",
        }
        full = on_a_small_disk(disk, f"{size // 1024 + 16}k", *command, cwd=tmp_path, **judge)
        assert full.returncode == 1, full.stdout + full.stderr
        assert f"the disk at {disk} has" in full.stderr
        assert "Traceback" not in full.stderr
        assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
        asked = len(server.prompts())
        assert asked == 100
        succeeded(run(*command, cwd=tmp_path, **judge))
        assert len(server.prompts()) == asked
        assert json.loads(results.read_text())["results"]["sftkey_gsm8k"]["acc,none"] == 1.0

        # A cache that has no room costs the verdicts' reuse alone.
        (tmp_path / "small").mkdir()
        judge["SFTKEY_JUDGE_CACHE"] = str(tmp_path / "small" / "cache")
        without = on_a_small_disk(tmp_path / "small", "40k", *command, cwd=tmp_path, **judge)
        assert without.returncode == 0, without.stdout + without.stderr
        assert "the judge cache" in without.stderr
        assert "point SFTKEY_JUDGE_CACHE at a folder" in without.stderr
        assert len(server.prompts()) == 2 * asked


@pytest.mark.slow
def test_preparing(tmp_path: Path, tiny_root: Path, stage1_recipe: dict[str, Any]) -> None:
    """What is left of the prepared data is not taken for it."""
    from sftkey.axolotl.prepared_data import remove_half_written

    disk = tmp_path / "disk"
    disk.mkdir()
    recipe = {**stage1_recipe, "dataset_prepared_path": str(disk / "prepared")}
    path = write_recipe(tmp_path / "recipe.yml", recipe)
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    full = on_a_small_disk(disk, "64k", "axolotl", "preprocess", path, cwd=tmp_path, **cache)
    assert full.returncode != 0
    assert f"the disk at {disk} has" in full.stderr, full.stderr[-3000:]
    assert "Traceback" not in full.stderr
    (prepared,) = (disk / "prepared").iterdir()
    remove_half_written(prepared)
    assert not [path for path in prepared.iterdir() if path.is_dir()]
