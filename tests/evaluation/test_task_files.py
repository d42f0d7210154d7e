"""What is in a folder of tasks, read without running anything."""

from __future__ import annotations

from pathlib import Path

from sftkey.evaluation.task_files import tasks_in, values_in


def test_names_and_values_are_read_in_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"group: mine  # caf\xe9\ntask:\n  - inner\n")
    (tmp_path / "b.yaml").write_text("task: 'one'\ndataset: \"own\" # rows of the stage\n")
    (tmp_path / "c.yaml").write_text("task: two\ndataset: own_lab.rows\n# dataset: own\n")
    found = tasks_in(tmp_path)
    assert {name: path.name for name, path in found.items()} == {"mine": "a.yaml", "one": "b.yaml", "two": "c.yaml"}
    assert [values_in(found[name], "group") for name in ("mine", "one")] == [["mine"], []]
    assert [values_in(found[name], "dataset") for name in ("one", "two")] == [["own"], ["own_lab.rows"]]
