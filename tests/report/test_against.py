"""Two reports compared: what changed, tested on the items of both; the earlier one's file may be a stranger's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sftkey.cli.main import sftkey
from sftkey.evaluation.statistics import paired_test, unpaired_test
from sftkey.report.against import against_table
from sftkey.report.outcomes import FILE, as_lines, read_old
from sftkey.report.tables import Table, TableCell
from sftkey.util.errors import UserError
from support.output_roots import Outcome, Outputs

RIGHT, WRONG = (1.0, 1.0), (0.0, 1.0)
OLD = [RIGHT] * 4 + [WRONG] * 16
NEW = [WRONG] + [RIGHT] * 15 + [WRONG] * 4


def root_with(folder: Path, items: list[Outcome], **kwargs: Any) -> Path:
    outputs = Outputs(folder / "outputs")
    outputs.stage("tag", "sft-tag")
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", items, **kwargs)
    return outputs.root


def line_of(table: Table, metric: str) -> dict[str, TableCell]:
    (row,) = [row for row in table.rows if row[3].text == metric]
    return dict(zip(table.columns, row, strict=True))


def test_the_same_items_are_tested_in_pairs(tmp_path: Path) -> None:
    old, new = (read_old(root_with(tmp_path / name, items)) for name, items in (("a", OLD), ("b", NEW)))
    table = against_table(new, old, "old")
    acc = line_of(table, "Acc")
    expected = paired_test(np.array([acc for acc, _ in OLD]), np.array([acc for acc, _ in NEW]))
    assert (acc["Old"].text, acc["New"].text) == ("0.2000", "0.7500")
    assert (acc["Only old"].text, acc["Only new"].text) == ("1", "12") == (
        str(expected.first_only), str(expected.second_only)
    )  # fmt: skip
    assert acc["p"].values["p"] == expected.p
    assert (acc["Verdict"].text, acc["Verdict"].bold) == ("higher", True)
    assert line_of(table, "Fmt")["Verdict"].text == "the same"


def test_items_of_one_report_only_are_said(tmp_path: Path) -> None:
    old = read_old(root_with(tmp_path / "a", OLD))
    new = read_old(root_with(tmp_path / "b", NEW[:10], first_item=15, version="0.4.12"))
    table = against_table(new, old, "old")
    assert "on the 5 items of both, of 20 and 10" in table.footnotes
    assert "lm-eval: 0.4.11, now 0.4.12" in table.footnotes


def test_other_items_are_tested_without_pairs(tmp_path: Path) -> None:
    old = read_old(root_with(tmp_path / "a", OLD))
    new = read_old(root_with(tmp_path / "b", NEW, first_item=500))
    acc = line_of(against_table(new, old, "old"), "Acc")
    expected = unpaired_test(np.array([acc for acc, _ in OLD]), np.array([acc for acc, _ in NEW]))
    assert (acc["p"].values["p"], acc["Only old"].text) == (expected.p, "\u2013")
    assert acc["Difference"].values["difference"] == pytest.approx(0.55)
    # All of both in the format, but of other items.
    assert line_of(against_table(new, old, "old"), "Fmt")["Verdict"].text == "not significant"


def test_what_is_in_one_report_only(tmp_path: Path) -> None:
    old = read_old(root_with(tmp_path / "a", OLD))
    outputs = Outputs(tmp_path / "b" / "outputs")
    outputs.stage("key", "key-tag")
    outputs.evaluate("outputs/key", "sftkey_gsm8k", NEW, samples=False)
    new = read_old(outputs.root)
    assert {(row[1].text, row[-1].text) for row in against_table(new, old, "old").rows} == {
        ("SFT-Tag", "gone"),
        ("Key-Tag", "new"),
    }
    again = {row[-1].text for row in against_table(new, new, "old").rows}
    assert again == {"not tested"}


@pytest.mark.parametrize(("first", "second"), [(0.2, 0.8), (0.5, 0.5), (0.9, 0.3)])
def test_unpaired(first: float, second: float) -> None:
    one, other = (np.array([1.0] * int(100 * rate) + [0.0] * int(100 * (1 - rate))) for rate in (first, second))
    test = unpaired_test(one, other)
    assert test.difference == pytest.approx(other.mean() - one.mean())
    assert test.interval.low <= test.difference <= test.interval.high
    assert (test.p < 0.001) == (first != second)
    # two independent proportions: the width of a normal interval
    width = 2 * 1.96 * np.sqrt((one.var() + other.var()) / 100)
    assert test.interval.high - test.interval.low == pytest.approx(width, rel=0.1)


def test_an_unpaired_test_rejects_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    rejected = sum(
        unpaired_test(*(generator.integers(0, 2, 40).astype(float) for _ in range(2))).p < 0.05 for _ in range(200)
    )
    assert rejected <= 20


def test_command_with_the_folder_of_a_report_and_with_an_output_root(tmp_path: Path) -> None:
    old, new = root_with(tmp_path / "a", OLD), root_with(tmp_path / "b", NEW)
    run = CliRunner().invoke
    assert run(sftkey, ["report", str(old), "-o", str(tmp_path / "old")]).exit_code == 0
    texts = []
    for against in (tmp_path / "old", old):
        target = tmp_path / f"new-{against.name}"
        result = run(sftkey, ["report", str(new), "-o", str(target), "--against", str(against)])
        assert result.exit_code == 0, result.output
        texts.append((target / "tables" / "against.csv").read_text())
        assert f"Against {against.name}" in (target / "index.html").read_text()
    assert texts[0] == texts[1]
    # a report may be written again in its place
    result = run(sftkey, ["report", str(new), "-o", str(tmp_path / "old"), "--against", str(tmp_path / "old")])
    assert result.exit_code == 0
    assert (tmp_path / "old" / "tables" / "against.csv").read_text() == texts[0]


def test_nothing_to_compare_with_is_one_line(tmp_path: Path) -> None:
    new = root_with(tmp_path / "b", NEW)
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(
        sftkey, ["report", str(new), "-o", str(tmp_path / "r"), "--against", str(tmp_path / "empty")]
    )
    assert result.exit_code == 1
    assert "is no report with outcomes.jsonl" in result.output
    assert not (tmp_path / "r").exists()


BAD: list[tuple[str, Any]] = [
    ("reported", {"acc": 2.0, "fmt": 1.0, "score": 1.0}),
    ("reported", {"acc": 1.0}),
    ("reported", None),
    ("items", {"key": ["a"], "acc": [1], "fmt": [1], "score": ["=1+1"]}),
    ("items", {"key": ["a", "a"], "acc": [1, 1], "fmt": [1, 1], "score": [1, 1]}),
    ("items", {"key": ["a"], "acc": [1, 0], "fmt": [1], "score": [1]}),
    ("items", {"key": [["a"]], "acc": [1], "fmt": [1], "score": [1]}),
    ("items", {"key": [], "acc": [], "fmt": [], "score": []}),
    ("items", {"key": ["a"], "acc": [float("nan")], "fmt": [1], "score": [1]}),
    ("items", {"key": ["a"], "acc": [1]}),
    ("label", "x" * 5000),
    ("model", 3),
    ("settings", {"judge": "y" * 5000}),
    ("count", -1),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=range(len(BAD)))
def test_a_strangers_file_is_checked(tmp_path: Path, field: str, value: Any) -> None:
    (line,) = as_lines(read_old(root_with(tmp_path / "a", OLD)))
    content = {**json.loads(line), field: value}
    (tmp_path / FILE).write_text(line + json.dumps(content) + "\n")
    with pytest.raises(UserError, match=f"{FILE}, line 2: .*; write that report again") as error:
        read_old(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_its_texts_stay_text(tmp_path: Path) -> None:
    (line,) = as_lines(read_old(root_with(tmp_path / "a", OLD)))
    evil = "<script>evil</script>\x1b[2J\n=1"
    content = {**json.loads(line), "label": evil, "model": evil, "settings": {evil: evil}}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / FILE).write_text(json.dumps(content) + "\n")
    new = root_with(tmp_path / "b", NEW)
    arguments = ["report", str(new), "-o", str(tmp_path / "r"), "--against", str(tmp_path / "old")]
    assert CliRunner().invoke(sftkey, arguments).exit_code == 0
    assert "<script>evil" not in (tmp_path / "r" / "index.html").read_text()
    for path in (tmp_path / "r" / "tables").glob("against.*"):
        assert all(c.isprintable() or c == "\n" for c in path.read_bytes().decode())
