"""Prepared data that was cut off while being saved is made again; whole data is left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sftkey.axolotl.plugin import SFTKeyPlugin
from sftkey.axolotl.prepared_data import is_whole, remove_half_written
from support.axolotl_recipes import write_recipe

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fresh_axolotl")]


def unfinished(folder: Path) -> None:
    (folder / "state.json").unlink()
    (folder / "dataset_info.json").unlink()


def only_the_first_json(folder: Path) -> None:
    (folder / "dataset_info.json").unlink()


def torn(folder: Path) -> None:
    path = folder / "dataset_info.json"
    path.write_text(path.read_text()[:-20])


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def without_a_shard(folder: Path) -> None:
    next(folder.glob("data-*.arrow")).unlink()


CUTS = (unfinished, only_the_first_json, torn, empty, without_a_shard)


@pytest.mark.parametrize("cut", CUTS)
def test_only_what_is_not_whole_is_removed(tmp_path: Path, cut: Callable[[Path], None]) -> None:
    prepared = tmp_path / "prepared"
    for name in ("whole", "half"):
        Dataset.from_dict({"input_ids": [[1], [2], [3]]}).save_to_disk(str(prepared / name), num_shards=2)
    (prepared / "sftkey_rows.json").write_text("{}")
    assert remove_half_written(prepared) == []
    cut(prepared / "half")
    assert remove_half_written(prepared) == [prepared / "half"]
    assert is_whole(prepared / "whole")
    assert (prepared / "sftkey_rows.json").exists()
    assert not (prepared / "half").exists()


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    assert remove_half_written(tmp_path / "prepared") == []
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("cut", CUTS)
def test_axolotl_prepares_the_data_again(
    stage1_recipe: dict[str, Any], tmp_path: Path, cut: Callable[[Path], None]
) -> None:
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets

    cfg = load_cfg(str(write_recipe(tmp_path / "recipe.yml", stage1_recipe)))
    rows = load_datasets(cfg=cfg, cli_args=TrainerCliArgs()).train_dataset.to_list()
    (folder,) = (path for path in Path(cfg.dataset_prepared_path).iterdir() if path.is_dir())
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    cut(folder)
    plugin = SFTKeyPlugin()
    plugin.load_datasets(cfg)
    plugin._release_lock()
    assert load_datasets(cfg=cfg, cli_args=TrainerCliArgs()).train_dataset.to_list() == rows
    assert is_whole(folder)
    state = json.loads((folder / "state.json").read_text())
    assert len(state["_data_files"]) == len(json.loads((kept / "state.json").read_text())["_data_files"])
