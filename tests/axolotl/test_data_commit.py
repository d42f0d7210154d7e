"""The commit of a data set on the Hub is kept with the counts of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetInfo
from sftkey.axolotl.strategy import entry_rows
from sftkey.training.prepare import hub_commit
from support.axolotl_recipes import write_recipe

pytestmark = pytest.mark.filterwarnings("ignore")

COMMIT, OTHER = "e53f048856ff4f594e959d75785d2c2d37b678ee", "0123456789abcdef0123456789abcdef01234567"
ON_THE_HUB = f"hf://datasets/openai/gsm8k@{COMMIT}/main/train-00000-of-00001.parquet"
IN_ITS_CACHE = f"/home/me/.cache/huggingface/hub/datasets--me--rows/snapshots/{COMMIT}/rows.jsonl"
ROW = {"question": "2+3?", "thinking": "2 and 3.", "answer": "5"}


def rows(*files: str) -> Dataset:
    """Rows as `datasets` loads them: with the files that they are from."""
    sizes = {file: {"num_bytes": 1, "checksum": None} for file in files}
    return Dataset.from_list([ROW], info=DatasetInfo(download_checksums=sizes or None))


@pytest.mark.parametrize(
    ("files", "commit"),
    [
        ([ON_THE_HUB], COMMIT),
        ([ON_THE_HUB, ON_THE_HUB.replace("train", "test")], COMMIT),
        ([IN_ITS_CACHE], COMMIT),
        ([ON_THE_HUB, ON_THE_HUB.replace(COMMIT, OTHER)], None),
        (["hf://datasets/openai/gsm8k@main/train.parquet"], None),
        (["/data/rows.jsonl"], None),
        ([], None),
    ],
)
def test_the_commit_is_in_the_addresses_of_the_files(files: list[str], commit: str | None) -> None:
    assert hub_commit(rows(*files)) == commit
    assert hub_commit(rows(*files).select([0])) == commit


@pytest.mark.parametrize(("file", "expected"), [(ON_THE_HUB, {"commit": COMMIT}), ("/data/rows.jsonl", {})])
def test_it_is_kept_with_the_counts(
    stage1_recipe: dict[str, Any], tmp_path: Path, file: str, expected: dict[str, str]
) -> None:
    from axolotl.loaders import load_tokenizer
    from sftkey.cli.inspect import recipe_to_inspect
    from sftkey.datasets import columns

    cfg, _ = recipe_to_inspect(write_recipe(tmp_path / "recipe.yml", stage1_recipe))
    entry = cfg.datasets[0]
    assert len(columns.load(load_tokenizer(cfg), cfg, entry).wrap_dataset(rows(file))) == 1
    assert entry_rows(cfg, entry) == {"rows_used": 1, "rows_skipped": {}, **expected}
