"""What a stage is made from, compared when it is started, resumed or called finished: each change is refused or accepted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sftkey.recipes.settings import training_settings
from sftkey.stages.completion import after_stage, make_marker
from sftkey.stages.content import changed_weights, data_content, weights_in
from sftkey.stages.handover import start_settings
from sftkey.stages.lineage import lineage_of
from sftkey.stages.lineage_check import check_rows, check_stage
from sftkey.stages.marker import MARKER_FILE, RUN_FILE, DataContent, Lineage, Marker, RunFile, TrainingRecord
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically


class Chain:
    """Two stages in a folder, finished or interrupted without training anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "rows.jsonl"
        self.data.write_text("".join(f'{{"question": {n}}}\n' for n in range(8)))
        entry = {"path": str(self.data), "type": "sftkey.datasets.columns"}
        self.recipes: dict[str, dict[str, Any]] = {
            "s1": {"base_model": "x/y", "sftkey_method": "sft-tag", "datasets": [entry], "output_dir": f"{folder}/s1"},
            "s2": {"sftkey_method": "key-tag", "sftkey_after": "s1", "datasets": [entry], "output_dir": f"{folder}/s2"},
        }

    def stage(self, name: str) -> tuple[Stage, dict[str, Any]]:
        """The stage as its recipe plans it, and the recipe with what it starts from."""
        recipe = self.recipes[name]
        before = self.stage("s1")[0] if name == "s2" else None
        linked = {**recipe, **(start_settings(recipe, before) if before else {})}
        stage = Stage.of_recipe(Path(f"{name}.yml"), linked)
        return Stage(**{**vars_of(stage), "linked_before": before}), linked

    def finish(self, name: str, content: str = "w", **more: Any) -> None:
        stage, linked = self.stage(name)
        stage.output_dir.mkdir(exist_ok=True)
        (stage.output_dir / "model.safetensors").write_text(content)
        marker = make_marker(
            stage.output_dir,
            self.recipes[name],
            f"{name}.yml",
            settings=training_settings(linked),
            base_model=str(linked["base_model"]),
            base_model_commit=None,
            after=after_stage(stage.before, linked["base_model"]),
            end_of_turn=None,
            tokenizer_size=None,
            rows=[{"rows_used": 8}],
            training=TrainingRecord(),
            lineage=lineage_of(linked),
        )
        write_atomically(stage.output_dir / MARKER_FILE, {**marker.content, **more})

    def interrupt(self, name: str) -> None:
        stage, linked = self.stage(name)
        run = RunFile(
            settings=training_settings(linked),
            after=after_stage(stage.before, linked["base_model"], copy=False),
            lineage=lineage_of(linked),
        )
        write_atomically(stage.output_dir / RUN_FILE, run.content)
        checkpoint = stage.output_dir / "checkpoint-2"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text("{}")

    def check(self, name: str) -> list[str]:
        stage, linked = self.stage(name)
        return check_stage(stage, linked, lineage_of(linked), training_settings(linked))


def vars_of(stage: Stage) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in stage.__dataclass_fields__}


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def shorter(chain: Chain) -> None:
    chain.data.write_text("".join(chain.data.read_text().splitlines(keepends=True)[:3]))


def same_size_and_time(chain: Chain) -> None:
    status = chain.data.stat()
    other = chain.folder / "other.jsonl"
    other.write_text(chain.data.read_text().replace("7", "9"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(chain.data)


def linked_elsewhere(chain: Chain) -> None:
    other = chain.folder / "elsewhere.jsonl"
    other.write_text('{"question": "other"}\n')
    chain.data.unlink()
    chain.data.symlink_to(other)


def shuffled(chain: Chain) -> None:
    chain.data.write_text("".join(reversed(chain.data.read_text().splitlines(keepends=True))))


REPLACED = [shorter, same_size_and_time, linked_elsewhere, shuffled]


@pytest.mark.parametrize("replace", REPLACED)
@pytest.mark.parametrize("name", ["s1", "s2"])
@pytest.mark.parametrize("finished", [True, False])
def test_replaced_data_is_refused_or_accepted(
    chain: Chain, name: str, finished: bool, replace: Callable[[Chain], None]
) -> None:
    if name == "s2":
        chain.finish("s1")
    (chain.finish if finished else chain.interrupt)(name)
    assert chain.check(name) == []
    replace(chain)
    with pytest.raises(
        UserError, match=r"datasets\[0\] holds other rows than it was .*sftkey_accept_changes: \[data\]"
    ) as error:
        chain.check(name)
    assert str(chain.folder / name) in str(error.value)
    chain.recipes[name]["sftkey_accept_changes"] = ["data"]
    assert ["accepted" in line for line in chain.check(name)] == [True]


@pytest.mark.parametrize("replace", REPLACED)
def test_a_stage_does_not_start_on_other_rows_than_the_one_before(
    chain: Chain, replace: Callable[[Chain], None]
) -> None:
    chain.finish("s1")
    assert chain.check("s2") == []
    replace(chain)
    with pytest.raises(UserError, match=r"holds other rows than .*s1 was trained on.*sftkey_other_data: true"):
        chain.check("s2")
    chain.recipes["s2"]["sftkey_other_data"] = True
    assert chain.check("s2") == []


def test_data_that_is_gone_or_touched_is_no_change(chain: Chain) -> None:
    chain.finish("s1")
    os.utime(chain.data, ns=(1, 1))
    assert chain.check("s1") == []
    chain.data.unlink()
    assert chain.check("s1") == []


@pytest.mark.parametrize("finished", [True, False])
def test_a_retrained_stage_before(chain: Chain, finished: bool) -> None:
    chain.finish("s1")
    (chain.finish if finished else chain.interrupt)("s2")
    assert chain.check("s2") == []
    chain.finish("s1", "other weights")
    with pytest.raises(UserError, match=r"s2 was trained from an earlier .*s1, .*sftkey_accept_changes: \[before\]"):
        chain.check("s2")
    chain.recipes["s2"]["sftkey_accept_changes"] = ["before"]
    assert len(chain.check("s2")) == 1


@pytest.mark.parametrize("copied", [True, False])
def test_weights_that_were_replaced_in_a_finished_stage(chain: Chain, copied: bool) -> None:
    chain.finish("s1")
    weights = chain.folder / "s1" / "model.safetensors"
    if copied:
        other = chain.folder / "other.safetensors"
        other.write_text("v")
        os.utime(other, (1, 1))
        other.replace(weights)
    else:
        weights.write_text("longer")
    with pytest.raises(UserError, match=r"model\.safetensors: not what it finished with"):
        chain.check("s1")
    with pytest.raises(UserError, match=r"s1: model\.safetensors isn't what that stage finished with"):
        chain.check("s2")
    chain.recipes["s1"]["sftkey_accept_changes"] = ["weights"]
    chain.recipes["s2"]["sftkey_accept_changes"] = ["before"]
    assert chain.check("s1") + chain.check("s2") != []
    weights.unlink()
    assert chain.check("s1") == []


@pytest.mark.parametrize("finished", [True, False])
def test_a_checkpoint_of_another_stage_is_not_resumed(chain: Chain, finished: bool) -> None:
    chain.interrupt("s1")
    if finished:
        chain.finish("s1")
    else:
        chain.finish("s1")
        (chain.folder / "s1" / MARKER_FILE).rename(chain.folder / "marker")
    chain.recipes["s2"]["resume_from_checkpoint"] = str(chain.folder / "s1" / "checkpoint-2")
    with pytest.raises(
        UserError, match=r"resume_from_checkpoint: .*settings \(.*sftkey_method: 'sft-tag' -> 'key-tag'"
    ):
        chain.check("s2")


def test_a_checkpoint_of_ones_own_is_resumed_also_from_another_place(chain: Chain) -> None:
    chain.finish("s1")
    chain.interrupt("s2")
    chain.recipes["s2"]["resume_from_checkpoint"] = str(chain.folder / "s2" / "checkpoint-2")
    assert chain.check("s2") == []
    chain.recipes["s2"]["output_dir"] = str(chain.folder / "s2b")
    assert chain.check("s2") == []
    chain.finish("s1", "other weights")
    with pytest.raises(UserError, match=r"resume_from_checkpoint: .*trained from an earlier"):
        chain.check("s2")


def test_a_checkpoint_of_nobody_is_not_resumed(chain: Chain) -> None:
    chain.recipes["s1"]["resume_from_checkpoint"] = str(chain.folder / "stray" / "checkpoint-2")
    with pytest.raises(UserError, match="is no whole checkpoint"):
        chain.check("s1")
    (chain.folder / "stray" / "checkpoint-2").mkdir(parents=True)
    (chain.folder / "stray" / "checkpoint-2" / "trainer_state.json").write_text("{}")
    with pytest.raises(UserError, match="says which stage it is a checkpoint of"):
        chain.check("s1")


@pytest.mark.parametrize(
    ("key", "value", "has"),
    [
        ("lora_r", 32, "lora_r: 8"),
        ("lora_alpha", 128, "lora_alpha: 16"),
        ("lora_dropout", 0.1, "lora_dropout: 0.0"),
        ("lora_target_modules", ["q_proj"], r"lora_target_modules: \['(?:k_proj', 'q_proj|q_proj', 'k_proj)'\]"),
        ("lora_target_linear", True, "lora_target_linear: False"),
        ("lora_modules_to_save", ["lm_head"], "no lora_modules_to_save"),
        ("peft_use_dora", True, "peft_use_dora: False"),
    ],
)
@pytest.mark.parametrize("trained", [True, False])
def test_an_adapter_that_is_trained_on_keeps_its_shape(
    chain: Chain, key: str, value: Any, has: str, trained: bool
) -> None:
    shape = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_modules": ["q_proj", "k_proj"]}
    for recipe in chain.recipes.values():
        recipe.update(shape)
    if trained:
        chain.finish("s1")
        config = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["k_proj", "q_proj"]}
        (chain.folder / "s1" / "adapter_config.json").write_text(json.dumps(config))
    assert chain.check("s2") == []
    chain.recipes["s2"][key] = value
    if not trained and key == "lora_modules_to_save":  # what the adapter saves is known once it is there
        assert chain.check("s2") == []
        return
    with pytest.raises(UserError, match=rf"^{key}: .*is trained on as it is, with {has}"):
        chain.check("s2")


def test_a_marker_without_a_record_is_used_with_one_remark(chain: Chain) -> None:
    chain.finish("s1", lineage=None, weights={})
    shorter(chain)
    (line,) = chain.check("s1")
    assert "made by an earlier version" in line
    assert chain.check("s2") == [line]


@pytest.mark.parametrize("finished", [True, False])
def test_a_reference_model_that_was_trained_anew(chain: Chain, tmp_path: Path, finished: bool) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / "model.safetensors").write_text("then")
    chain.recipes["s1"] |= {"sftkey_objective": "rho-1", "sftkey_reference_model": str(reference)}
    (chain.finish if finished else chain.interrupt)("s1")
    assert chain.check("s1") == []
    (reference / "model.safetensors").write_text("now")
    with pytest.raises(UserError, match=r"compared with other weights of its reference model.*sftkey_accept_changes"):
        chain.check("s1")
    chain.recipes["s1"]["sftkey_accept_changes"] = ["before"]
    assert chain.check("s1")


def test_another_commit_or_number_of_rows_on_resumption() -> None:
    entry = DataContent(commit="a" * 40, rows_used=8)
    now = Lineage(data=[entry])
    assert check_rows({}, now, now, None) == []
    for change, what in (({"commit": "b" * 40}, "another commit"), ({"rows_used": 3}, r"number of rows .*\(8 -> 3\)")):
        other = Lineage(data=[entry.model_copy(update=change)])
        with pytest.raises(UserError, match=what):
            check_rows({}, other, now, None)
        assert len(check_rows({"sftkey_accept_changes": ["data"]}, other, now, None)) == 1


def test_weights_are_read_once_they_are_newer_than_the_marker(chain: Chain, tmp_path: Path) -> None:
    chain.finish("s1")
    folder = chain.folder / "s1"
    assert weights_in(folder, read=False) == weights_in(folder) is not None
    (folder / "model.safetensors").write_text("v")
    assert weights_in(folder, read=False) is None
    marker = Marker.read(folder)
    assert marker is not None
    assert changed_weights(folder, marker) == ["model.safetensors"]
    assert weights_in(tmp_path / "nowhere") is None


def test_content_of_folders_and_of_the_hub(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "rows" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "rows" / name).write_text(name)
    folder = data_content({"path": str(tmp_path / "rows")})
    assert folder.files == 2
    assert folder == data_content({"path": "json", "data_files": {"train": [str(tmp_path / "rows" / "*.jsonl")]}})
    (tmp_path / "rows" / "b.jsonl").rename(tmp_path / "rows" / "c.jsonl")
    assert folder.sha256 != data_content({"path": str(tmp_path / "rows")}).sha256
    assert data_content({"path": "openai/gsm8k"}).sha256 is None
