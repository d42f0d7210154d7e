"""Recipes that build on each other, as a plan: order, state, and what is refused before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sftkey.recipes.settings import training_settings
from sftkey.stages.chain import Override, plan_chain, refreshed
from sftkey.stages.handover import template_fingerprint, tokenizer_file_sha256
from sftkey.stages.marker import MARKER_FILE, RUN_FILE, SCHEMA
from sftkey.stages.same_data import data_identity
from sftkey.stages.stage import Stage, State
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from support.axolotl_recipes import stage2_of, write_recipe

RATE = Override("learning_rate", "2e-5", ("--learning-rate", "2e-5"))


@pytest.fixture
def recipes(tmp_path: Path) -> tuple[Path, Path]:
    """Two stages."""
    stage1 = {
        "base_model": "Qwen/Qwen3-8B-Base",
        "output_dir": str(tmp_path / "out" / "stage1"),
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
        "learning_rate": 1e-5,
        "num_epochs": 3,
        "save_steps": 10,
    }
    return write_recipe(tmp_path / "stage1.yml", stage1), write_recipe(tmp_path / "stage2.yml", stage2_of(stage1))


def change(path: Path, **changes: Any) -> None:
    import yaml

    recipe = {**yaml.safe_load(path.read_text()), **changes}
    write_recipe(path, {key: value for key, value in recipe.items() if value is not None})


def settings_of(stage: Stage) -> dict[str, Any]:
    base = {} if stage.before is None else {"base_model": str(stage.before.config["output_dir"])}
    return json.loads(json.dumps(training_settings({**stage.config, **base})))


def finish(stage: Stage, at: str = "2026-01-01T00:00:00+00:00", **changes: Any) -> None:
    """Write the marker that training would leave."""
    before = stage.before
    marker = {
        "schema": SCHEMA,
        "finished_at": at,
        "method": stage.method,
        "settings": settings_of(stage),
        "base_model": stage.config["base_model"],
        "after": before and {"output_dir": str(before.output_dir), "finished_at": before.marker.finished_at},
        "tags": "text",
        "chat_template": template_fingerprint(stage.config),
        "tokenizer": {"sha256": tokenizer_file_sha256(stage.output_dir)},
        "data": data_identity(stage.config),
        **changes,
    }
    write_atomically(stage.output_dir / MARKER_FILE, marker)


def interrupt(stage: Stage, *steps: int, **more: Any) -> None:
    """Leave what a killed training leaves: the run file and whole checkpoints, and one that was being saved."""
    write_atomically(stage.output_dir / RUN_FILE, {"schema": SCHEMA, "settings": settings_of(stage), **more})
    for step in steps:
        folder = stage.output_dir / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
    (stage.output_dir / "checkpoint-999").mkdir()


def test_order_and_states(recipes: tuple[Path, Path]) -> None:
    stages = plan_chain(recipes[1])
    assert [stage.recipe for stage in stages] == list(recipes)
    assert [stage.method for stage in stages] == ["sft-tag", "key-tag"]
    assert [stage.state for stage in stages] == [State.NOT_STARTED] * 2
    interrupt(stages[0], 10, 20)
    first, second = plan_chain(recipes[1])
    assert (first.state, second.state) == (State.UNFINISHED, State.NOT_STARTED)
    assert first.resume_from == first.output_dir / "checkpoint-20"
    finish(first)
    first, second = plan_chain(recipes[1])
    assert first.finished
    assert first.resume_from is None
    finish(second)
    assert all(stage.finished for stage in plan_chain(recipes[1]))
    assert refreshed(second).finished
    assert plan_chain(recipes[0])[-1].finished


def test_unfinished_without_a_checkpoint_starts_again(recipes: tuple[Path, Path]) -> None:
    interrupt(plan_chain(recipes[0])[0])
    (stage,) = plan_chain(recipes[0])
    assert stage.state is State.UNFINISHED
    assert stage.resume_from is None


@pytest.mark.parametrize("changes", [{"auto_resume_from_checkpoints": False}, {"save_only_model": True}])
def test_recipes_that_cannot_be_resumed(recipes: tuple[Path, Path], changes: dict[str, Any]) -> None:
    change(recipes[0], **changes)
    interrupt(plan_chain(recipes[0])[0], 10)
    assert plan_chain(recipes[0])[0].resume_from is None


def test_overrides_hold_for_all_stages_but_places_for_the_last(recipes: tuple[Path, Path], tmp_path: Path) -> None:
    place = Override("output_dir", str(tmp_path / "other"), ("--output-dir", str(tmp_path / "other")))
    nested = Override("trl__beta", "0.5", ("--trl.beta=0.5",))
    first, second = plan_chain(recipes[1], [RATE, place, nested])
    assert first.arguments == (*RATE.arguments, *nested.arguments)
    assert second.arguments == (*RATE.arguments, *place.arguments, *nested.arguments)
    assert first.config["learning_rate"] == second.config["learning_rate"] == 2e-5
    assert first.config["trl"] == {"beta": 0.5}
    assert second.output_dir == tmp_path / "other"
    assert first.output_dir == tmp_path / "out" / "stage1"
    first, second = plan_chain(recipes[1], [RATE], last_only=True)
    assert (first.arguments, second.arguments) == ((), RATE.arguments)


def test_ambiguous_overrides(recipes: tuple[Path, Path]) -> None:
    base = Override("base_model", "other", ("--base-model", "other"))
    with pytest.raises(UserError, match=r"--base-model: stage1\.yml and stage2\.yml would each need another value"):
        plan_chain(recipes[1], [base])
    assert plan_chain(recipes[0], [base])[0].config["base_model"] == "other"


@pytest.mark.parametrize("value", ["1e-5", "0.00001", 1e-5])
def test_same_value_differently_spelt(recipes: tuple[Path, Path], value: Any) -> None:
    finish(plan_chain(recipes[0])[0])
    assert plan_chain(recipes[0], [Override("learning_rate", value, ())])[0].finished


def test_other_settings(recipes: tuple[Path, Path]) -> None:
    (stage,) = plan_chain(recipes[0])
    interrupt(stage, 10)
    with pytest.raises(UserError, match=r"stage1 has checkpoints of a run with other settings \(learning_rate: 1e-05"):
        plan_chain(recipes[1], [RATE])
    finish(stage)
    with pytest.raises(UserError, match=r"is finished with other settings \(learning_rate: 1e-05 -> 2e-05\)"):
        plan_chain(recipes[1], [RATE])
    assert [stage.finished for stage in plan_chain(recipes[1], [RATE], last_only=True)] == [True, False]
    # Where things are logged and how often they are saved changes nothing in the weights.
    change(recipes[0], save_steps=5, wandb_project="x", dataloader_num_workers=4)
    assert plan_chain(recipes[0])[0].finished
    change(recipes[0], num_epochs=4)
    with pytest.raises(UserError, match=r"num_epochs: 3 -> 4"):
        plan_chain(recipes[1])


def test_settings_of_an_interrupted_run_without_checkpoints_do_not_matter(recipes: tuple[Path, Path]) -> None:
    interrupt(plan_chain(recipes[0])[0])
    assert plan_chain(recipes[0], [RATE])[0].state is State.UNFINISHED


def test_circle(recipes: tuple[Path, Path]) -> None:
    change(recipes[0], sftkey_after="stage2.yml")
    with pytest.raises(UserError, match=r"in a circle: stage2\.yml -> stage1\.yml -> stage2\.yml"):
        plan_chain(recipes[1])
    change(recipes[0], sftkey_after="./stage1.yml")
    with pytest.raises(UserError, match="circle"):
        plan_chain(recipes[0])


def test_missing_recipe(recipes: tuple[Path, Path]) -> None:
    recipes[0].unlink()
    with pytest.raises(UserError, match=r"sftkey_after: stage1\.yml: there is no file"):
        plan_chain(recipes[1])


def test_two_stages_in_one_place(recipes: tuple[Path, Path], tmp_path: Path) -> None:
    change(recipes[1], output_dir=str(tmp_path / "out" / "." / "stage1"))
    with pytest.raises(UserError, match=r"stage1\.yml and stage2\.yml both write to output_dir"):
        plan_chain(recipes[1])


def test_stage_before_trained_into_another_place(recipes: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    change(recipes[1], base_model=str(elsewhere))
    with pytest.raises(UserError, match=r"base_model: .*elsewhere is neither the output_dir of stage1\.yml"):
        plan_chain(recipes[1])
    (stage,) = plan_chain(recipes[0], [RATE, Override("output_dir", str(elsewhere), ("--output-dir", str(elsewhere)))])
    finish(stage)
    first, second = plan_chain(recipes[1])
    assert first.finished
    assert first.output_dir == elsewhere
    assert second.state is State.NOT_STARTED
    # Its recipe says another rate: it was trained by a command line of its own, which isn't asked for again.
    assert refreshed(second).chain[0].finished


def test_stage_before_half_trained_in_another_place(recipes: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    change(recipes[1], base_model=elsewhere)
    interrupt(plan_chain(recipes[0], [Override("output_dir", elsewhere, ("--output-dir", elsewhere))])[0], 10)
    with pytest.raises(UserError, match=r"stage1\.yml has not finished: .* to go on from checkpoint-10") as error:
        plan_chain(recipes[1])
    assert str(error.value).endswith(f"axolotl train {recipes[0]} --output-dir {elsewhere}")


def test_an_adapter_of_which_only_the_marker_is_left(recipes: tuple[Path, Path]) -> None:
    for recipe in recipes:
        change(recipe, adapter="lora")
    (first,) = plan_chain(recipes[0])
    finish(first)
    place = str(first.output_dir)
    second = plan_chain(recipes[1])[1]
    adapter = {"base_model": first.config["base_model"], "lora_model_dir": place, "tokenizer_config": place}
    finish(second, settings=training_settings({**second.config, **adapter}))
    assert all(stage.finished for stage in plan_chain(recipes[1]))


@pytest.mark.parametrize("value", ["no", "2024-01-01", "3"])
def test_a_data_set_that_yaml_reads_as_something_else(recipes: tuple[Path, Path], value: str) -> None:
    recipes[0].write_text(recipes[0].read_text().replace("name: main", f"name: {value}"))
    with pytest.raises(UserError, match=r"^datasets\[0\]: name: .* is not a text; put it in quotes$"):
        plan_chain(recipes[0])
    for recipe in recipes:
        recipe.write_text(recipe.read_text().replace("name: main", f"name: {value}").replace(value, f"'{value}'"))
    assert plan_chain(recipes[1])[0].config["datasets"][0]["name"] == value


def test_stage_before_trained_again(recipes: tuple[Path, Path]) -> None:
    finish(plan_chain(recipes[0])[0])
    finish(plan_chain(recipes[1])[1])
    assert all(stage.finished for stage in plan_chain(recipes[1]))
    finish(plan_chain(recipes[0])[0], at="2026-02-02T00:00:00+00:00")
    with pytest.raises(UserError, match=r"was trained from an earlier .*stage1, finished 2026-01-01"):
        plan_chain(recipes[1])


def test_what_was_begun_from_an_earlier_stage_before_is_not_gone_on_with(recipes: tuple[Path, Path]) -> None:
    finish(plan_chain(recipes[0])[0], id="1" * 32)
    second = plan_chain(recipes[1])[1]
    after = {"output_dir": "x", "id": "1" * 32, "finished_at": "2026-01-01T00:00:00+00:00"}
    interrupt(second, 10, after=after)
    assert plan_chain(recipes[1])[1].resume_from is not None
    finish(plan_chain(recipes[0])[0], id="2" * 32)
    with pytest.raises(UserError, match=r"stage2 was trained from an earlier .*stage1, finished 2026-01-01"):
        plan_chain(recipes[1])
    # From the beginning it may.
    change(recipes[1], auto_resume_from_checkpoints=False)
    assert plan_chain(recipes[1])[1].resume_from is None


@pytest.mark.parametrize(
    ("stage1", "stage2", "message"),
    [
        ({"sftkey_method": "sft"}, {}, "key-tag builds on tagged data"),
        ({"sftkey_tags": "tokens"}, {}, "set sftkey_tags: tokens here"),
        ({"default_system_message": "Hm."}, {}, "another chat template or system message"),
        ({}, {"datasets": [{"path": "my/own", "type": "sftkey.datasets.gsm8k"}]}, "set sftkey_other_data: true"),
        ({}, {"sftkey_method": "key-tags"}, "did you mean 'key-tag'"),
        ({"sftkey_methods": "x"}, {}, "unknown key 'sftkey_methods'"),
    ],
)
def test_misfits_are_found_before_the_first_stage_is_trained(
    recipes: tuple[Path, Path], stage1: dict[str, Any], stage2: dict[str, Any], message: str
) -> None:
    change(recipes[0], **stage1)
    change(recipes[1], **stage2)
    with pytest.raises(UserError, match=message):
        plan_chain(recipes[1])


def test_planning_needs_neither_torch_nor_axolotl() -> None:
    code = (
        "import sys, sftkey.stages.chain, sftkey.stages.run, sftkey.recipes.matrix\n"
        "print([name for name in ('torch', 'axolotl', 'transformers', 'datasets', 'lm_eval') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
