"""The lineage of the stage under way: which evaluation rows had been trained on, and the counts of an entry in parts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from sftkey.axolotl.run_lineage import RunLineage
from sftkey.stages.stage import Stage
from sftkey.training.row_ids import ROW_IDS_FILE, read_row_ids, row_ids, write_row_ids


def rows(*numbers: int) -> Dataset:
    return Dataset.from_dict({"input_ids": [[number, 1, 2] for number in numbers], "labels": [[0]] * len(numbers)})


def lineage(folder: Path, before: Path | None = None) -> RunLineage:
    cfg: Any = SimpleNamespace(output_dir=str(folder), get=lambda _: None)
    return RunLineage(cfg, {}, {}, Stage.read(before) if before else None, True)


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
