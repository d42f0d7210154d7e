"""Whatever lies in an output directory: nothing is lost, and only a whole checkpoint of this run is gone on from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.stages.checkpoints import CHECKPOINT_FILE, CheckpointRecord, checkpoints, survey
from sftkey.stages.manifest import identity, record_files
from sftkey.stages.marker import RunFile
from sftkey.stages.resuming import Resumption, resume
from sftkey.stages.saving import Saving
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically

OWN, OTHER = "1" * 32, "2" * 32
STATE, RNG = "trainer_state.json", "rng_state.pth"


def write(folder: Path, *names: str) -> None:
    """What the trainer and others leave in a checkpoint; each file has a content of its own."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path} content") if name != STATE else path.write_text('{"global_step": 8}')


def vouched(folder: Path, run: str) -> None:
    write(folder, "model.safetensors", "optimizer.pt", "scheduler.pt", RNG, STATE)
    files = record_files(folder, (path.name for path in folder.iterdir() if path.name != CHECKPOINT_FILE))
    write_atomically(
        folder / CHECKPOINT_FILE, CheckpointRecord(run=run, files=files, sha256=identity(files)).model_dump()
    )


def begun(folder: Path, run: str) -> None:
    write(folder, "model.safetensors")
    write_atomically(folder / CHECKPOINT_FILE, CheckpointRecord(run=run).model_dump())


def flipped(folder: Path) -> None:
    vouched(folder, OWN)
    path = folder / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def shorter(folder: Path) -> None:
    vouched(folder, OWN)
    (folder / "model.safetensors").write_text("cut")


def without_scheduler(folder: Path) -> None:
    vouched(folder, OWN)
    (folder / "scheduler.pt").unlink()


def other_shape(folder: Path) -> None:
    vouched(folder, OWN)
    (folder / CHECKPOINT_FILE).write_text('{"schema": 1, "run": ["x"], "files": 5}')


def entry_removed(folder: Path) -> None:
    vouched(folder, OWN)
    record = json.loads((folder / CHECKPOINT_FILE).read_text())
    del record["files"]["scheduler.pt"]
    (folder / CHECKPOINT_FILE).write_text(json.dumps(record))


def outside(folder: Path) -> None:
    vouched(folder, OWN)
    record = json.loads((folder / CHECKPOINT_FILE).read_text())
    record["files"]["../../../../../../dev/zero"] = record["files"].pop("scheduler.pt")
    (folder / CHECKPOINT_FILE).write_text(json.dumps(record))


def a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file with the name of a checkpoint")


def a_link(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to("nowhere")


KINDS: dict[str, Callable[[Path], None]] = {
    "own": lambda folder: vouched(folder, OWN),
    "begun": lambda folder: begun(folder, OWN),
    "flipped": flipped,
    "shorter": shorter,
    "without scheduler": without_scheduler,
    "other shape": other_shape,
    "entry removed": entry_removed,
    "names outside": outside,
    "another run's": lambda folder: vouched(folder, OTHER),
    "another run's, begun": lambda folder: begun(folder, OTHER),
    "unlisted": lambda folder: write(folder, "model.safetensors", "optimizer.pt", RNG, STATE),
    "of two processes": lambda folder: write(folder, "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth", STATE),
    "without random states": lambda folder: write(folder, "optimizer.pt", STATE),
    "without trainer_state": lambda folder: write(folder, "model.safetensors", "optimizer.pt", RNG),
    "DeepSpeed": lambda folder: write(folder, "global_step8/mp_rank_00_model_states.pt", "latest"),
    "Lightning": lambda folder: write(folder, "epoch=1-step=8.ckpt", "hparams.yaml"),
    "NeMo": lambda folder: write(folder, "weights/common.pt", "context/io.json"),
    "JAX": lambda folder: write(folder, "checkpoint", "params/0"),
    "empty": lambda folder: folder.mkdir(parents=True),
    "a file": a_file,
    "a link": a_link,
}
RUNS = {
    "none": None,
    "own": RunFile(id=OWN, world_size=1),
    "before 0.2": RunFile(world_size=1),
    "resumed from before 0.2": RunFile(id=OWN, world_size=1, unlisted=["checkpoint-8", "checkpoint-16"]),
}


def start(folder: Path, run: RunFile | None, *, automatic: bool = True, named: Path | None = None) -> Resumption:
    return resume(folder, run, survey(folder, run, {}, 1), automatic=automatic, named=named)


def contents(folder: Path) -> list[tuple[str, ...]]:
    """What is in each entry of a folder, whatever its name."""
    found = []
    for entry in folder.iterdir():
        files = sorted(path for path in entry.rglob("*") if path.is_file()) if entry.is_dir() else [entry]
        found.append(
            tuple(
                f"{path.relative_to(entry)}={path.readlink() if path.is_symlink() else path.read_bytes()!r}"
                for path in files
            )
        )
    return sorted(found)


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.dictionaries(st.sampled_from([8, 16, 24, 32]), st.sampled_from(sorted(KINDS)), min_size=1),
    taken=st.sets(st.sampled_from(["set-aside-checkpoint-8", "set-aside-checkpoint-16"])),
    run=st.sampled_from(sorted(RUNS)),
    automatic=st.booleans(),
    named=st.sampled_from([None, 8, 16, 24, 32]),
)
def test_nothing_is_lost(kinds: dict[int, str], taken: set[str], run: str, automatic: bool, named: int | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step, kind in kinds.items():
            KINDS[kind](folder / f"checkpoint-{step}")
        for place in taken:
            write(folder / place, "of an earlier time")
        ours = RUNS[run]
        removable = [
            step for step, kind in kinds.items() if kind == "begun" and ours and ours.id == OWN and step != named
        ]
        lost = [
            entry
            for step in removable
            for entry in [
                tuple(
                    f"{path.name}={path.read_bytes()!r}" for path in sorted((folder / f"checkpoint-{step}").iterdir())
                )
            ]
        ]
        before = contents(folder)
        explicit = folder / f"checkpoint-{named}" if named else None
        resumption: Resumption | None = None
        with suppress(UserError):
            resumption = start(folder, ours, automatic=automatic, named=explicit)
        if resumption is None:
            assert explicit is not None, "only what is named is refused"
            assert contents(folder) == before
            return
        for entry in lost:
            before.remove(entry)
        assert contents(folder) == before

        def usable(step: int) -> bool:
            if kinds[step] == "own":
                return ours is not None and ours.id == OWN
            return (
                kinds[step] == "unlisted"
                and ours is not None
                and (not ours.id or f"checkpoint-{step}" in ours.unlisted)
            )

        expected = max((step for step in kinds if usable(step)), default=None) if automatic else None
        chosen = explicit if explicit else folder / f"checkpoint-{expected}" if expected else None
        assert resumption.checkpoint == chosen
        # What keeps its name is in nobody's way: this run's own, no later step. Older ones are read when they are needed.
        last = named if named else expected
        kept = {int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")}
        unread = {"flipped", "shorter", "without scheduler"} if ours and ours.id == OWN else set()
        own = {step for step in kinds if usable(step) or kinds[step] in unread}
        assert kept <= {step for step in kinds if step == named or (step in own and last and step <= last)}
        assert (resumption.id == OWN) is bool(ours and ours.id and last and last in own)
        assert len(resumption.remarks) >= len(kinds) - len(kept)


@pytest.mark.parametrize("kind", ["begun", "flipped", "other shape", "names outside", "a file", "a link"])
def test_what_is_named_is_whole_or_refused(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "elsewhere" / "checkpoint-8")
    KINDS["own"](tmp_path / "checkpoint-16")
    with pytest.raises(UserError, match=r"^resume_from_checkpoint: .*checkpoint-8"):
        start(tmp_path, RUNS["own"], named=tmp_path / "elsewhere" / "checkpoint-8")
    assert (tmp_path / "checkpoint-16").is_dir()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("flipped", "optimizer.pt: its content is not what was saved"),
        ("shorter", "model.safetensors: 3 bytes, saved with"),
        ("without scheduler", "scheduler.pt: missing"),
        ("other shape", f"{CHECKPOINT_FILE} has the wrong shape: run: Input should be a valid string"),
        ("entry removed", f"{CHECKPOINT_FILE} was changed: it doesn't list scheduler.pt"),
        ("names outside", "names no file inside the folder"),
        ("another run's", "another run wrote it"),
        ("of two processes", f"holds no {CHECKPOINT_FILE}, so this run did not write it"),
        ("without trainer_state", f"holds no {CHECKPOINT_FILE}, so this run did not write it"),
        ("a file", "so this run did not write it"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, kind: str, said: str) -> None:
    KINDS["own"](tmp_path / "checkpoint-8")
    KINDS[kind](tmp_path / "checkpoint-16")
    resumption = start(tmp_path, RUNS["own"])
    assert resumption.checkpoint == tmp_path / "checkpoint-8"
    (remark,) = resumption.remarks
    assert remark.startswith(f"{tmp_path / 'checkpoint-16'} is not used and now called set-aside-checkpoint-16: ")
    assert said in remark


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("of two processes", "holds no random states of 1 process"),
        ("without random states", "holds no random states of 1 process"),
        ("without trainer_state", "trainer_state.json: can't be read: No such file"),
    ],
)
def test_an_earlier_version_s_checkpoints_are_as_whole_as_it_saw_them(tmp_path: Path, kind: str, said: str) -> None:
    KINDS["unlisted"](tmp_path / "checkpoint-8")
    KINDS[kind](tmp_path / "checkpoint-16")
    resumption = start(tmp_path, RUNS["before 0.2"])
    assert resumption.checkpoint == tmp_path / "checkpoint-8"
    assert resumption.unlisted == ["checkpoint-8"]
    aside, remark = resumption.remarks
    assert said in aside
    assert "damage in it can't be told" in remark


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("[]", "holds list where an object is expected"),
        ('{"global_step": "8"}', "has the wrong shape: global_step"),
        ('{"global_step": -1}', "has the wrong shape: global_step"),
        ('{"log_history": {"loss": 1}}', "has the wrong shape: log_history"),
        ('{"log_history": [1, 2]}', "has the wrong shape: log_history.0"),
        ('{"stateful_callbacks": []}', "has the wrong shape: stateful_callbacks"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "\udcff"}', "not UTF-8"),
    ],
)
def test_a_state_of_another_shape(tmp_path: Path, state: str, said: str) -> None:
    KINDS["unlisted"](tmp_path / "checkpoint-8")
    (tmp_path / "checkpoint-8" / STATE).write_bytes(state.encode("utf-8", "surrogateescape"))
    (found,) = survey(tmp_path, RUNS["before 0.2"], {}, 1)
    assert said in str(found.fault)
    assert STATE in str(found.fault)
    assert checkpoints(tmp_path) == ([], [tmp_path / "checkpoint-8"])


def test_saving(tmp_path: Path) -> None:
    """Whole only at the end, the oldest removed only then, and never one of another run."""
    saving = Saving(RunFile(id=OWN, world_size=1), limit=1)
    vouched(tmp_path / "checkpoint-1", OTHER)
    for step in (8, 16):
        path = tmp_path / f"checkpoint-{step}"
        saving.begin(path)
        write(path, "model.safetensors", "shards/rank1.distcp", RNG, STATE)
        whole, partial = checkpoints(tmp_path)
        assert (path in partial, path in whole) == (True, False)
        assert (tmp_path / "checkpoint-8").is_dir()
        saving.complete(path)
        saving.finish()
    whole, partial = checkpoints(tmp_path)
    assert ([path.name for path in whole], partial) == (["checkpoint-1", "checkpoint-16"], [])
    record = CheckpointRecord.read(tmp_path / "checkpoint-16")
    assert record is not None
    assert record.files is not None
    assert record.files.keys() == {"model.safetensors", "shards/rank1.distcp", RNG, STATE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-16"]


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(2, 8, [8, 32]), (1, 8, [8, 32]), (1, None, [32]), (3, 16, [16, 24, 32]), (None, None, [8, 16, 24, 32])],
)
def test_rotation_keeps_the_best(tmp_path: Path, limit: int | None, best: int | None, left: list[int]) -> None:
    saving = Saving(RunFile(id=OWN, world_size=1), limit=limit)
    for step in (8, 16, 24, 32):
        path = tmp_path / f"checkpoint-{step}"
        saving.begin(path)
        write(path, "model.safetensors", RNG, STATE)
        saving.complete(path, best=str(tmp_path / f"checkpoint-{best}") if best else None)
    saving.finish()
    assert sorted(int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir()) == left


def test_what_fails_in_the_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sftkey.stages import saving as module

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    saving = Saving(RunFile(id=OWN))
    saving.begin(tmp_path / "checkpoint-8")
    monkeypatch.setattr(module, "record_files", full)
    saving.complete(tmp_path / "checkpoint-8")
    with pytest.raises(OSError, match="No space left"):
        saving.finish()
    saving.finish()
    assert checkpoints(tmp_path) == ([], [tmp_path / "checkpoint-8"])
    saving.abandon(tmp_path / "checkpoint-8")
    assert list(tmp_path.iterdir()) == []
