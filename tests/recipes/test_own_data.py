"""A user's own data as the part of a recipe that names them; the recipes of the matrix for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from sftkey.recipes.matrix import plan_cells
from sftkey.recipes.own_data import OwnData, read_own_data
from sftkey.util.errors import UserError

KEYS = {
    "datasets": [{"path": "svamp/train.jsonl", "type": "sftkey.datasets.columns"}],
    "sftkey_columns": {"answer": "gold"},
    "sftkey_answers": "number",
    "sftkey_held_out": 0.1,
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, with the rows."""
    monkeypatch.chdir(tmp_path)
    Path("svamp").mkdir()
    Path("svamp/train.jsonl").write_text("{}\n")


def write(keys: dict[str, object]) -> Path:
    Path("my.yml").write_text(yaml.safe_dump(keys))
    return Path("my.yml")


def test_a_recipe_or_its_part_about_data_is_read() -> None:
    whole = {"base_model": "x", "sftkey_method": "key", "output_dir": "out", "learning_rate": 1, **KEYS}
    assert read_own_data(write(whole)) == read_own_data(write(KEYS)) == OwnData("svamp_train", "svamp (train)", KEYS)


def test_which_turns_are_trained_is_said_with_the_data() -> None:
    chats = {"datasets": [{"path": "svamp/train.jsonl", "type": "sftkey.datasets.messages"}], "sftkey_turns": "all"}
    assert read_own_data(write(chats)).keys == chats


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "datasets: is empty"),
        ({**KEYS, "datasets": [{"path": "gone.jsonl", "type": "sftkey.datasets.columns"}]}, "there is no gone.jsonl"),
        ({**KEYS, "sftkey_answers": "essay"}, "sftkey_answers: 'essay' is not one of number"),
        ({**KEYS, "sftkey_held_out": 2}, "sftkey_held_out: 2 is not a share"),
        ({**KEYS, "test_datasets": KEYS["datasets"]}, "sftkey_held_out and test_datasets both say"),
        ({"datasets": [{"path": "openai/gsm8k", "type": "sftkey.datasets.gsm8k"}]}, "gsm8k isn't rows of your own"),
        (
            {"datasets": [{"path": "x/y", "type": "sftkey.datasets.gsm8k"}], "sftkey_answers": "text"},
            "sftkey_answers: text is for rows of your own",
        ),
    ],
)
def test_what_is_no_own_data_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=rf"my\.yml: .*{message}"):
        read_own_data(write(keys))


def test_the_matrix_has_cells_of_them_named_and_headed_after_them() -> None:
    own = read_own_data(write({**KEYS, "sequence_len": 2048}))
    cells = plan_cells(["qwen3_8b"], ["gsm8k"], ["SFT", "SFTKey-Tag"], own=[own])
    assert [(cell.dataset, cell.strategy) for cell in cells] == [
        ("gsm8k", "SFT"),
        ("gsm8k", "SFTKey-Tag"),
        ("svamp_train", "SFT"),
        ("svamp_train", "SFTKey-Tag"),
    ]
    for cell in cells[2:]:
        for recipe in cell.recipes:
            assert recipe.file_name.startswith("qwen3_8b_svamp_train_")
            assert recipe.config["output_dir"].startswith("outputs/qwen3_8b/svamp_train/")
            assert "GSM8K" not in recipe.text
            assert recipe.text.startswith("# Qwen3-8B-Base on svamp (train), ")
            assert {key: recipe.config[key] for key in KEYS} == KEYS
            assert recipe.config["micro_batch_size"] * recipe.config["gradient_accumulation_steps"] == 32
    with pytest.raises(UserError, match="two data sets would be called svamp_train"):
        plan_cells(["qwen3_8b"], [], ["SFT"], own=[own, own])
