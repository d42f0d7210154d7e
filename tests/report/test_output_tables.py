"""What Acc is made of and what the outputs are like, against figures computed by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from sftkey.report.collect import collect
from sftkey.report.output_tables import decomposition_table, output_table
from sftkey.report.runs import runs_of
from sftkey.report.scores import Scores, scores_of
from support.output_roots import Outputs


def scores_in(outputs: Outputs) -> Scores:
    return scores_of(runs_of(collect([outputs.root])))


def edit_samples(outputs: Outputs, changes: dict[int, dict[str, object]]) -> None:
    """Change fields of some lines of the one file of samples."""
    (path,) = outputs.root.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for index, fields in changes.items():
        lines[index] |= fields
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_parts_of_acc(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag")
    items = [(1.0, 1.0)] * 3 + [(0.0, 1.0)] + [(1.0, 0.0)] + [(0.0, 0.0)] * 5
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", items)
    edit_samples(outputs, {3: {"verdict": "can't tell"}, 8: {"extracted": None}, 9: {"extracted": None}})
    table = decomposition_table(scores_in(outputs))
    (row,) = table.rows
    assert [cell.text for cell in row[3:]] == [
        "10", "0.4000", "0.4000", "0.7500", "0.1667", "0.2000", "0.1000"
    ]  # fmt: skip
    (line,) = table.frame.to_dict("records")
    assert (line["acc well-formed of"], line["acc others of"]) == (4, 6)


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_add_up(outputs: Outputs, seed: int) -> None:
    dice = random.Random(seed)
    outputs.stage("tag", "sft-tag")
    items = [(float(dice.random() < 0.5), float(dice.random() < seed / 4)) for _ in range(30)]
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", items)
    (line,) = decomposition_table(scores_in(outputs)).frame.to_dict("records")
    parts = [(line["fmt"], line["acc well-formed"]), (1 - line["fmt"], line["acc others"])]
    assert sum(weight * value for weight, value in parts if weight) == pytest.approx(line["acc"])


def test_lengths_and_what_was_cut_off(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag")
    texts = {0: "<Thinking>" + "x" * 100 + "</Thinking><Answer>1</Answer>", 1: "<Thinking>" + "y" * 300, 2: "no tag"}
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0), (0.0, 0.0), (0.0, 0.0)], texts=texts)
    edit_samples(outputs, {1: {"format_failure": "thinking cut off"}, 2: {"format_failure": "no thinking"}})
    (line,) = output_table(scores_in(outputs)).frame.to_dict("records")
    assert (line["output median"], line["output mean"]) == (len(texts[0]), sum(map(len, texts.values())) / 3)
    assert line["thinking median"] == 200  # of the two that have one
    assert (line["cut off"], line["cut off of"]) == (pytest.approx(1 / 3), 3)


def test_lengths_are_of_the_whole_text(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag")
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0)], texts={0: "<Thinking>" + "x" * 50_000})
    (line,) = output_table(scores_in(outputs)).frame.to_dict("records")
    assert (line["output median"], line["thinking median"]) == (50_010, 50_000)


def test_thinking_in_another_format(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag")
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0)], texts={0: "<think>\n" + "x" * 70 + "\n</think>\n\n4"})
    scores = scores_in(outputs)
    (line,) = output_table(scores).frame.to_dict("records")
    assert line["thinking median"] == 70
    evaluation = scores.rows[0].evaluations["gsm8k"]
    assert evaluation.answer("<think>\nx\n</think>\n\n4") == "4"
    assert evaluation.answer("<Thinking>x</Thinking><Answer> 5 </Answer>") == "5"
    assert evaluation.answer("nothing") is None


def test_thinking_of_an_untagged_output(outputs: Outputs) -> None:
    outputs.stage("sft", "sft")
    texts = {0: "Two and two.\n#### 4", 1: "Two and two, cut"}
    outputs.evaluate("outputs/sft", "sftkey_gsm8k_plain", [(1.0, 1.0), (0.0, 0.0)], texts=texts)
    edit_samples(outputs, {1: {"format_failure": "no answer"}})
    table = output_table(scores_in(outputs))
    (line,) = table.frame.to_dict("records")
    assert line["thinking median"] == len("Two and two.")
    (note,) = table.footnotes
    assert "an untagged form has no closing tag" in note


def test_the_judges_share_and_its_errors(outputs: Outputs, tmp_path: Path) -> None:
    outputs.stage("tag", "sft-tag")
    results = outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0)] * 4, judge_mode="fallback")
    edit_samples(outputs, {0: {"decided_by": "judge"}, 1: {"decided_by": "cache"}})
    table = output_table(scores_in(outputs))
    assert "Judge misses" not in table.columns
    assert dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))["Judged"] == "0.5000"
    content = json.loads(results.read_text())
    content["results"]["sftkey_gsm8k"] |= {"judge_sensitivity,none": 0.95, "judge_specificity,none": 0.85}
    results.write_text(json.dumps(content))
    (line,) = output_table(scores_in(outputs)).frame.to_dict("records")
    assert (line["judge misses"], line["judge false yes"]) == (pytest.approx(0.05), pytest.approx(0.15))
