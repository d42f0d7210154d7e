"""The marker that a finished stage gets: an id of its own, and a link to the stage before by that one's id."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sftkey.stages.completion import after_stage, make_marker, training_record
from sftkey.stages.marker import MARKER_FILE, After, Marker, TrainingRecord
from sftkey.stages.stage import Stage
from sftkey.util.files import write_atomically

RECIPE = {
    "base_model": "Qwen/Qwen3-8B-Base",
    "sftkey_method": "sft-tag",
    "strict": False,
    "datasets": [{"path": "openai/gsm8k", "name": "main", "type": "sftkey.datasets.gsm8k"}],
}


def finish(folder: Path, after: After | None = None, **changes: Any) -> Stage:
    marker = make_marker(
        folder,
        {**RECIPE, **changes},
        f"{folder.name}.yml",
        settings={"seed": 1},
        base_model="Qwen/Qwen3-8B-Base",
        base_model_commit=None,
        after=after,
        end_of_turn="<|im_end|>",
        tokenizer_size=None,
        rows=[{"rows_used": 7, "rows_skipped": {"no answer": 1}, "commit": "c" * 40}],
        training=training_record([], steps=3, epochs=1.0, seconds=1.26, world_size=2),
    )
    write_atomically(folder / MARKER_FILE, marker.content)
    assert Marker.read(folder) == marker
    return Stage.read(folder)


def test_a_chain_is_linked_by_ids(tmp_path: Path) -> None:
    first = finish(tmp_path / "one")
    second = finish(tmp_path / "two", after_stage(first, str(tmp_path / "one")), sftkey_method="key-tag")
    assert first.marker is not None
    assert second.marker is not None
    assert second.after is not None
    assert len(first.marker.id or "") == 32
    assert first.marker.id == second.after.id != second.marker.id
    assert [stage.marker for stage in second.chain] == [first.marker, second.marker]
    # Whole, and the same to the last key, for when the first directory is gone.
    content = json.loads((tmp_path / "two" / MARKER_FILE).read_text())
    assert content["after"]["stage"] == json.loads((tmp_path / "one" / MARKER_FILE).read_text())
    assert content["schema"] == 1
    assert content["data"][0] == {
        **{"path": "openai/gsm8k", "name": "main", "split": None, "type": "sftkey.datasets.gsm8k", "revision": None},
        **{"data_files": None, "rows_used": 7, "rows_skipped": {"no answer": 1}, "commit": "c" * 40},
    }
    assert "strict" not in content["recipe"]["config"]
    assert finish(tmp_path / "three").after is None


def test_a_chain_outlives_the_directories_of_its_first_stages(tmp_path: Path) -> None:
    first = finish(tmp_path / "one")
    second = finish(tmp_path / "two", after_stage(first, str(tmp_path / "one")), sftkey_method="key-tag")
    third = finish(tmp_path / "three", after_stage(second, str(tmp_path / "two")), sftkey_method="key-tag")
    markers = [stage.marker for stage in third.chain]
    assert not any(stage.recorded_only for stage in third.chain)
    for name in ("one", "two"):
        shutil.rmtree(tmp_path / name)
    chain = Stage.read(tmp_path / "three").chain
    assert [stage.marker for stage in chain] == markers
    assert [stage.recorded_only for stage in chain] == [True, True, False]


def test_a_run_file_links_without_the_copy(tmp_path: Path) -> None:
    first = finish(tmp_path / "one")
    after = after_stage(first, "one", copy=False)
    assert after is not None
    assert after.model_dump(exclude_unset=True).keys() == {"output_dir", "id", "method", "finished_at"}
    assert after_stage(None, "one") is None


def test_a_training_is_summed_up() -> None:
    log = [
        {"step": 2, "loss": 2.0, "loss_answer": 1.5, "grad_norm": 9.0},
        {"step": 2, "eval_loss": 0.7, "eval_tokens_answer": 40},
        {"step": 3, "loss": 0.5, "loss_answer": 0.25, "acc_answer": 1.0},
        {"step": 3, "train_loss": 7.0},
    ]
    assert training_record(log, steps=3, epochs=1.5, seconds=12.34, world_size=2) == TrainingRecord(
        steps=3,
        epochs=1.5,
        seconds=12.3,
        world_size=2,
        train_loss=1.5,
        losses={"loss": 0.5, "loss_answer": 0.25, "acc_answer": 1.0},
        eval_losses={"eval_loss": 0.7, "eval_tokens_answer": 40},
    )
    # Where nothing was logged on the way, the trainer's own mean is all that there is.
    assert training_record(log[-1:], steps=3, epochs=1.5, seconds=1, world_size=1).train_loss == 7.0
