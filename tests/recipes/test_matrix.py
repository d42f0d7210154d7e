"""The paper's table from the shipped recipes: every cell, every stage once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sftkey.datasets.registry import PAPER
from sftkey.format.methods import STRATEGIES
from sftkey.recipes.matrix import (
    PAPER_MODELS,
    PAPER_STRATEGIES,
    notes_of,
    plan_cells,
    recipes_by_model,
    save_recipes,
    slurm_script,
)
from sftkey.stages.chain import plan_chain
from sftkey.util.errors import UserError


def test_the_whole_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = plan_cells(PAPER_MODELS, PAPER, PAPER_STRATEGIES)
    assert len({(cell.model, cell.dataset, cell.strategy) for cell in cells}) == 5 * 4 * 4
    files = save_recipes(cells, tmp_path / "recipes")
    # SFT, Stage 1 (SFT-Tag), Key-Tag, Stage 2.
    assert len(files) == 5 * 4 * 4
    outputs = set()
    for cell in cells:
        stages = plan_chain(tmp_path / "recipes" / cell.recipes[-1].file_name)
        assert [stage.method for stage in stages] == [method.name for method in STRATEGIES[cell.strategy].stages]
        assert all(stage.config["datasets"][0]["type"] == f"sftkey.datasets.{cell.dataset}" for stage in stages)
        outputs |= {str(stage.output_dir) for stage in stages}
    assert len(outputs) == len(files)
    # Writing the same again is fine, another thing isn't.
    save_recipes(cells, tmp_path / "recipes")
    other = plan_cells(PAPER_MODELS[:1], ["gsm8k"], PAPER_STRATEGIES, overrides=["num_epochs=1"])
    with pytest.raises(UserError, match="exist and say something else"):
        save_recipes(other, tmp_path / "recipes")
    save_recipes(other, tmp_path / "recipes", force=True)


def test_untagged_two_stages_share_sft() -> None:
    cells = plan_cells(["qwen3_8b"], ["gsm8k"], ["SFT", "SFTKey"])
    assert [[recipe.config["sftkey_method"] for recipe in cell.recipes] for cell in cells] == [["sft"], ["sft", "key"]]
    assert cells[0].recipes[0].file_name == cells[1].recipes[0].file_name


def test_another_model_by_the_recipes_of_one() -> None:
    (cell,) = plan_cells(["qwen3_8b=my/Tiny-Base"], ["gsm8k"], ["SFTKey-Tag"], output_root="elsewhere")
    first, second = cell.recipes
    assert first.config["base_model"] == "my/Tiny-Base"
    assert second.config["output_dir"] == "elsewhere/tiny/gsm8k/stage2"
    assert second.config["base_model"] == first.config["output_dir"] == "elsewhere/tiny/gsm8k/stage1"


@pytest.mark.parametrize(
    ("models", "datasets", "strategies", "message"),
    [
        (["qwen3_9b"], ["gsm8k"], ["SFT"], "unknown model 'qwen3_9b'; did you mean 'qwen3_8b'"),
        (["qwen3_8b"], ["gsm8"], ["SFT"], "unknown data set 'gsm8'; did you mean 'gsm8k'"),
        (["qwen3_8b"], ["gsm8k"], ["SFTKeyTag"], "unknown strategy 'sftkeytag'; did you mean 'sftkey-tag'"),
        ([], ["gsm8k"], ["SFT"], "^the table has no cells; name at least one model, data set and strategy$"),
        (["qwen3_8b"], ["gsm8k"], [], "^the table has no cells; "),
        (["smollm2_135m"], ["gsm8k"], ["SFT"], "smollm2_135m has no recipe for SFT; it has SFT-Tag, SFTKey-Tag"),
    ],
)
def test_unknown_names(models: list[str], datasets: list[str], strategies: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_cells(models, datasets, strategies)


def test_the_slurm_script_knows_two_stages(tmp_path: Path) -> None:
    (cell,) = plan_cells(["qwen3_8b"], ["gsm8k"], ["SFTKey-Tag"])
    longer = replace(cell, recipes=(*cell.recipes, replace(cell.recipes[-1], file_name="third.yml")))
    with pytest.raises(UserError, match=r"^a chain of 3 stages: the Slurm script knows two$"):
        slurm_script([cell, longer], tmp_path, working_directory=tmp_path, logs=tmp_path, command="")


def test_only_recipes_that_can_be_moved() -> None:
    catalogue = recipes_by_model()
    assert set(PAPER_MODELS) <= set(catalogue)
    assert "demo" not in catalogue
    for model in PAPER_MODELS:
        assert set(catalogue[model]) == set(STRATEGIES)


def test_notes_are_said_once_and_memory_only_where_it_is_short() -> None:
    notes = notes_of(plan_cells(PAPER_MODELS, PAPER, PAPER_STRATEGIES))
    assert [note.split(" ")[0] for note in notes] == ["OpenR1-Math-220k", "CoT-Collection", "CoT-Collection"]
    assert "num_epochs=1" in notes[2]
    larger = notes_of(plan_cells(["qwen3_8b"], ["gsm8k"], ["SFTKey-Tag"], overrides=["micro_batch_size=64"]))
    assert [note.partition(":")[0] for note in larger] == ["qwen3_8b_stage1.yml", "qwen3_8b_stage2.yml"]
    assert all("more than 40 GB" in note for note in larger)
    (unknown,) = notes_of(plan_cells(["qwen3_8b=my/Tiny"], ["gsm8k"], ["SFT"]))
    assert "the shape of my/Tiny isn't known here" in unknown
