"""The lineage of the stage under way: which evaluation rows had been trained on, and the counts of an entry in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sftkey.stages.run_lineage import RunLineage
from sftkey.stages.stage import Stage
from sftkey.training.row_ids import ROW_IDS_FILE, read_row_ids, row_ids, write_row_ids


def rows(*numbers: int) -> Dataset:
    return Dataset.from_dict({"input_ids": [[number, 1, 2] for number in numbers], "labels": [[0]] * len(numbers)})


def lineage(folder: Path, before: Path | None = None) -> RunLineage:
    return RunLineage({"output_dir": str(folder)}, {}, {}, Stage.read(before) if before else None, True)


@pytest.mark.parametrize("evaluated", [(8, 9), (0, 9), (0, 1, 2), (4,)])
def test_evaluation_rows_that_a_stage_was_trained_on_are_counted(tmp_path: Path, evaluated: tuple[int, ...]) -> None:
    write_row_ids(tmp_path / "s1", row_ids(rows(*range(4))))
    run = lineage(tmp_path / "s2", tmp_path / "s1")
    remarks = run.rows_are_split(rows(4, 5), rows(*evaluated))
    before, here = len({*evaluated} & {*range(4)}), len({*evaluated} & {4, 5})
    said = [f"{count} of the {len(evaluated)} evaluation rows" for count in (here, before) if count]
    assert [remark.partition(" are among")[0] for remark in remarks] == said
    assert (run.record.evaluated_before, run.record.rows_evaluated) == (before + here, len(evaluated))
    assert run.record.rows_trained == len(read_row_ids(tmp_path / "s2")) == 2


def test_rows_of_an_earlier_version_and_a_broken_file_are_none(tmp_path: Path) -> None:
    assert len(read_row_ids(tmp_path)) == 0
    (tmp_path / ROW_IDS_FILE).write_bytes(b"x" * 11)
    assert len(read_row_ids(tmp_path)) == 1


@pytest.mark.parametrize("how", [{"preprocess_shards": 3}, {"name": ["a", "b", "c"]}])
def test_counts_of_an_entry_that_is_loaded_in_parts_are_summed(tmp_path: Path, how: dict[str, Any]) -> None:
    from axolotl.utils.data.shared import datasets_with_name_generator
    from axolotl.utils.dict import DictDefault
    from sftkey.axolotl.strategy import _entry_key, entry_rows, rows_path
    from sftkey.util.files import write_atomically

    entry = DictDefault({"path": "rows.jsonl", "type": "sftkey.datasets.columns", **how})
    cfg = DictDefault({"dataset_prepared_path": str(tmp_path)})
    assert entry_rows(cfg, entry) == {}
    parts = {
        _entry_key(part): {"rows_used": 10**index, "rows_skipped": {"no answer": 1}}
        for index, part in enumerate(datasets_with_name_generator([entry]))
    }
    write_atomically(rows_path(cfg), parts)
    assert entry_rows(cfg, entry) == {"rows_used": 111, "rows_skipped": {"no answer": 3}}
