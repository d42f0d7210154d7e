"""A stage as its output directory tells it; the stage before is told apart from every other, wherever both are by now."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sftkey.report.collect import collect
from sftkey.stages.marker import MARKER_FILE, RUN_FILE, Marker, RunFile
from sftkey.stages.stage import Stage, State, finished_stage
from sftkey.util.errors import UserError

OLD = Path(__file__).parent / "written_by_9c54c77" / "old"
SECOND = ("stage2", "deep/er/stage2")
"""Two second stages from one Stage 1: beside it, and elsewhere below the same root."""


def old_marker(name: str) -> dict[str, Any]:
    """What commit 9c54c77 wrote: no id."""
    return json.loads((OLD / name / MARKER_FILE).read_text())


def write(folder: Path, marker: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER_FILE).write_text(json.dumps(marker))


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
@pytest.mark.parametrize(
    ("ids", "fate"),
    # Without an id, the time when it finished is all that tells two trainings apart.
    [*itertools.product(["both", "second", "none"], ["kept", "deleted", "anew"]), ("both", "anew at once")],
)
def test_the_stage_before_is_found_or_known_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: str, absolute: bool, moved: bool, fate: str
) -> None:
    monkeypatch.chdir(tmp_path)
    root, start = tmp_path / "outputs", str(tmp_path / "outputs") if absolute else "outputs"
    first = old_marker("stage1")
    first["recipe"]["config"]["output_dir"] = f"{start}/stage1"
    if ids == "both":
        first["id"] = "1" * 32
    write(root / "stage1", first)
    for name, copy in itertools.product(SECOND, (True, False)):
        marker = old_marker("stage2")
        if ids != "none":
            marker |= {"id": f"{name} {copy}", "after": {**marker["after"], "id": first.get("id")}}
        marker["after"] |= {"output_dir": f"{start}/stage1", "stage": first if copy else None}
        marker["recipe"]["config"]["output_dir"] = f"{start}/{name}-{copy}"
        write(root / f"{name}-{copy}", marker)
    if fate == "deleted":
        shutil.rmtree(root / "stage1")
    elif fate != "kept":
        at = first["finished_at"] if fate == "anew at once" else "2027-01-01T00:00:00+00:00"
        write(root / "stage1", {**first, "finished_at": at, **({"id": "2" * 32} if "id" in first else {})})
    if moved:
        root = root.rename(tmp_path / "elsewhere")
    collection = collect([root])
    for name, copy in itertools.product(SECOND, (True, False)):
        folder = root / f"{name}-{copy}"
        stage, reported = finished_stage(folder), collection.stages[folder]
        if fate == "kept":
            assert stage.before is not None
            assert stage.before.output_dir.resolve() == root / "stage1"
            assert not stage.before.recorded_only
            assert reported.before is collection.stages[root / "stage1"]
            continue
        assert reported.before is None
        assert any(
            str(folder) in note and ("isn't there" if fate == "deleted" else "was trained again") in note
            for note in collection.ledger.notes
        )
        if copy:
            before, last = stage.chain
            assert before.recorded_only
            assert before.marker == Marker.model_validate(first)
            assert (before.method, last.method) == ("sft-tag", "key-tag")
        else:
            with pytest.raises(UserError, match="there is no sftkey_stage" if fate == "deleted" else "finished at"):
                _ = stage.before


def test_two_copies_of_a_stage_before_are_one_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied root links inside itself, also while the original is still there."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD, tmp_path / "outputs" / "old")
    shutil.copytree(OLD, tmp_path / "copy")
    stages = collect([tmp_path / "copy"]).stages
    assert {folder.parent for folder in stages} == {tmp_path / "copy"}
    assert stages[tmp_path / "copy" / "stage2"].before is stages[tmp_path / "copy" / "stage1"]


def test_an_interrupted_stage_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD, tmp_path / "outputs" / "old")
    stage = Stage.read("outputs/old/cut")
    assert (stage.state, stage.method) == (State.UNFINISHED, "key-tag")
    assert stage.resume_from == Path("outputs/old/cut/checkpoint-4")
    assert [part.output_dir for part in stage.chain] == [Path("outputs/old/stage1"), Path("outputs/old/cut")]
    with pytest.raises(UserError, match=r"cut hasn't finished: there is no outputs/old/cut/sftkey_stage\.json"):
        finished_stage("outputs/old/cut")
    with pytest.raises(UserError, match="nothing isn't there"):
        finished_stage("outputs/nothing")
    assert Stage.read("outputs/nothing").state is State.NOT_STARTED


def test_stages_that_start_from_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, other in (("one", "two"), ("two", "one"), ("self", "self")):
        marker = old_marker("stage2")
        marker |= {"id": name, "after": {"output_dir": f"outputs/{other}", "id": other}}
        write(tmp_path / "outputs" / name, marker)
        with (
            pytest.raises(UserError, match="there is no") if name == "one" else pytest.raises(UserError, match="circle")
        ):
            _ = Stage.read(f"outputs/{name}").chain
    lengths = [len(stage.chain) for stage in collect([tmp_path / "outputs"]).stages.values()]
    assert sorted(lengths) == [1, 1, 2]


def test_a_wrong_shape_names_file_and_key(tmp_path: Path) -> None:
    marker = old_marker("stage2")
    for change, key in (
        ({"finished_at": None}, "finished_at"),
        ({"after": {"finished_at": "x"}}, r"after\.output_dir"),
        ({"after": {"output_dir": "x", "stage": {**marker, "method": ["sft"]}}}, r"after\.stage\.method"),
        ({"data": [{"path": "x"}, 3]}, r"data\.1"),
        ({"recipe": {"config": "x"}}, r"recipe\.config"),
    ):
        write(tmp_path, {**marker, **change})
        with pytest.raises(UserError, match=rf"sftkey_stage\.json has the wrong shape: {key}: ") as error:
            Marker.read(tmp_path)
        assert "\n" not in str(error.value)
    (tmp_path / RUN_FILE).write_text('{"schema": 1, "settings": []}')
    with pytest.raises(UserError, match=r"sftkey_run\.json has the wrong shape: settings: "):
        RunFile.read(tmp_path)


def test_null_is_what_is_not_there(tmp_path: Path) -> None:
    marker = old_marker("stage2")
    empty = ("settings", "versions", "training", "data", "tokenizer", "recipe")
    inside = {
        "recipe": {"name": None, "config": None},
        "training": {"steps": 8, "losses": None, "eval_losses": None},
        "data": [{"path": "x", "rows_skipped": None}],
        "after": {**marker["after"], "stage": {**marker, "schema": None, **dict.fromkeys(empty)}},
    }
    without = {
        "recipe": {},
        "training": {"steps": 8},
        "data": [{"path": "x"}],
        "after": {
            **marker["after"],
            "stage": {key: value for key, value in marker.items() if key not in ("schema", *empty)},
        },
    }
    for nulls, absent in (
        ({**marker, **dict.fromkeys(empty)}, {key: value for key, value in marker.items() if key not in empty}),
        ({**marker, **inside}, {**marker, **without}),
    ):
        write(tmp_path / "nulls", nulls)
        write(tmp_path / "absent", absent)
        assert Marker.read(tmp_path / "nulls") == Marker.read(tmp_path / "absent")
    (tmp_path / RUN_FILE).write_text('{"schema": 1, "settings": null}')
    assert Stage.read(tmp_path).config == {}


def test_what_a_newer_version_adds_is_kept(tmp_path: Path) -> None:
    marker = old_marker("stage2")
    marker |= {"new": {"er": 1}}
    marker["training"]["joules"] = 3
    marker["after"]["stage"]["new"] = [1]
    write(tmp_path, marker)
    read = Marker.read(tmp_path)
    assert read is not None
    assert read.content == marker
