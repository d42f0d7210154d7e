"""Cells, averages, differences and caveats against figures computed by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sftkey.evaluation.statistics import mean_interval
from sftkey.report.collect import collect
from sftkey.report.paper import AVERAGE, PUBLISHED
from sftkey.report.runs import runs_of
from sftkey.report.score_rows import ScoreRow
from sftkey.report.score_tables import score_tables
from sftkey.report.scores import Scores, scores_of
from sftkey.report.summary import comparison_table, failure_table
from sftkey.report.tables import TableCell
from support.output_roots import Outputs

# acc and fmt of ten items
SFT = [(1.0, 1.0)] * 4 + [(0.0, 1.0)] * 6
TAG = [(1.0, 1.0)] * 3 + [(0.0, 1.0)] + [(1.0, 0.0)] * 5 + [(0.0, 0.0)]


def scores_in(outputs: Outputs) -> Scores:
    return scores_of(runs_of(collect([outputs.root])))


def row_of(scores: Scores, label: str) -> ScoreRow:
    (row,) = [row for row in scores.rows if row.label == label]
    return row


def table_cell(scores: Scores, metric: str, label: str, column: str) -> TableCell:
    (table,) = [table for table in score_tables(scores) if table.name == metric]
    (row,) = [row for row in table.rows if row[1].text == label]
    return row[table.columns.index(column)]


@pytest.fixture
def two(outputs: Outputs) -> Outputs:
    """SFT and SFT-Tag on GSM8K."""
    outputs.stage("sft", "sft")
    outputs.stage("tag", "sft-tag")
    outputs.evaluate("outputs/sft", "sftkey_gsm8k_plain", SFT)
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", TAG)
    return outputs


def test_figures_by_hand(two: Outputs) -> None:
    scores = scores_in(two)
    sft, tag = row_of(scores, "SFT"), row_of(scores, "SFT-Tag")
    assert (sft.scores["acc"]["gsm8k"].value, sft.scores["fmt"]["gsm8k"].value) == (0.4, 1.0)
    assert (tag.scores["acc"]["gsm8k"].value, tag.scores["fmt"]["gsm8k"].value) == (0.8, 0.4)
    assert sft.scores["score"]["gsm8k"].value == pytest.approx(0.7 * 0.4 + 0.3)
    assert tag.scores["score"]["gsm8k"].value == pytest.approx(0.7 * 0.8 + 0.3 * 0.4)
    assert [row.label for row in scores.rows if row.scores["acc"]["gsm8k"].best] == ["SFT-Tag"]
    assert [row.label for row in scores.rows if row.scores["fmt"]["gsm8k"].best] == ["SFT"]
    interval = sft.scores["fmt"]["gsm8k"].interval
    assert interval is not None
    assert interval.exact


def test_differences_by_hand(two: Outputs) -> None:
    scores = scores_in(two)
    sft, tag = row_of(scores, "SFT"), row_of(scores, "SFT-Tag")
    assert scores.baseline(tag) is sft
    assert scores.baseline(sft) is None
    acc = scores.comparison(sft, tag, "gsm8k", "acc")
    assert acc is not None
    # Item 4 was right only with SFT, items 5 to 9 only with SFT-Tag: 2 * (1 + 6) / 2 ** 6.
    assert (acc.test.first_only, acc.test.second_only, acc.test.p) == (1, 5, pytest.approx(14 / 64))
    assert not acc.significant
    fmt = scores.comparison(sft, tag, "gsm8k", "fmt")
    assert fmt is not None
    assert fmt.test.p == pytest.approx(2 / 64)
    assert fmt.significant
    assert fmt.adjusted_p == fmt.test.p  # a family of one
    reverse = scores.comparison(tag, sft, "gsm8k", "fmt")
    assert reverse is not None
    assert (reverse.test.difference, reverse.first) == (pytest.approx(0.6), "SFT-Tag")
    assert ("delta", "+0.4000 n.s.") in table_cell(scores, "acc", "SFT-Tag", "GSM8K").details
    assert ("delta down", "\u22120.6000 to SFT") in table_cell(scores, "fmt", "SFT-Tag", "GSM8K").details
    verdicts = {(row[2].text, row[-1].text) for row in comparison_table(scores).rows}
    assert verdicts == {("Score", "not significant"), ("Acc", "not significant"), ("Fmt", "SFT is higher")}


def test_tests_are_adjusted_for_the_number_of_pairs(two: Outputs) -> None:
    two.stage("key", "key-tag")
    two.evaluate("outputs/key", "sftkey_gsm8k", SFT)
    scores = scores_in(two)
    fmt = [one for one in scores.comparisons if one.metric == "fmt"]
    assert sorted(one.test.p for one in fmt) == pytest.approx([2 / 64, 2 / 64, 1])
    assert sorted(one.adjusted_p for one in fmt) == pytest.approx([6 / 64, 6 / 64, 1])
    assert not any(one.significant for one in fmt)


def test_the_papers_figures_stand_beside(two: Outputs) -> None:
    cell = row_of(scores_in(two), "SFT").scores["acc"]["gsm8k"]
    assert cell.paper == PUBLISHED["acc"]["Qwen3-8B-Base"]["SFT"]["gsm8k"] == 0.8378
    details = dict(table_cell(scores_in(two), "acc", "SFT", "GSM8K").details)
    assert details["paper"] == "paper 0.8378 (\u22120.4378)"


def test_an_average_needs_every_data_set(two: Outputs) -> None:
    two.stage("sft2", "sft", data="openbookqa")
    two.evaluate("outputs/sft2", "sftkey_openbookqa_plain", [(1.0, 1.0)] * 9 + [(0.0, 1.0)])
    scores = scores_in(two)
    assert row_of(scores, "SFT").scores["acc"][AVERAGE].value == pytest.approx((0.4 + 0.9) / 2)
    assert AVERAGE not in row_of(scores, "SFT-Tag").scores["acc"]
    cell = table_cell(scores, "acc", "SFT-Tag", "Average")
    assert cell.text == "\u2013"
    assert cell.footnotes
    two.stage("tag2", "sft-tag", data="openbookqa")
    two.evaluate("outputs/tag2", "sftkey_openbookqa", [(1.0, 1.0)] * 10)
    scores = scores_in(two)
    sft, tag = row_of(scores, "SFT"), row_of(scores, "SFT-Tag")
    assert tag.scores["acc"][AVERAGE].value == pytest.approx((0.8 + 1.0) / 2)
    average = scores.comparison(sft, tag, AVERAGE, "acc")
    assert average is not None
    assert average.test.difference == pytest.approx((0.4 + 0.1) / 2)
    assert average.test.test == "sign-flip permutation"
    assert sft.scores["acc"][AVERAGE].paper is None  # the paper averages four data sets


def test_the_papers_average_stands_beside_an_average_of_the_same_four(outputs: Outputs) -> None:
    for data in ("gsm8k", "openr1_math", "openbookqa", "cot_collection"):
        outputs.stage(data, "sft", data=data)
        outputs.evaluate(f"outputs/{data}", f"sftkey_{data}_plain", SFT)
    assert row_of(scores_in(outputs), "SFT").scores["score"][AVERAGE].paper == 0.7670


def test_other_items_are_said_and_compared_where_they_are_shared(two: Outputs) -> None:
    two.stage("key", "key-tag")
    two.evaluate("outputs/key", "sftkey_gsm8k", [(1.0, 1.0)] * 6, first_item=6)
    scores = scores_in(two)
    sft, key = row_of(scores, "SFT"), row_of(scores, "Key-Tag")
    cell = key.scores["acc"]["gsm8k"]
    assert cell.caveats == ("other items: 6, others 10, 4 shared",)
    assert (cell.value, cell.best) == (1.0, False)  # the highest, but on other items
    comparison = scores.comparison(sft, key, "gsm8k", "acc")
    assert comparison is not None
    # Of the shared items 6 to 9 SFT got none right, Key-Tag all.
    assert (comparison.test.items, comparison.test.difference) == (4, 1.0)
    assert comparison.caveats == ("only the 4 items that both answered, of 10 and 6",)


def test_no_shared_item_no_comparison(two: Outputs) -> None:
    two.stage("key", "key-tag")
    two.evaluate("outputs/key", "sftkey_gsm8k", SFT, first_item=100)
    scores = scores_in(two)
    assert scores.comparison(row_of(scores, "SFT"), row_of(scores, "Key-Tag"), "gsm8k", "acc") is None
    assert not any(kind.startswith("delta") for kind, _ in table_cell(scores, "acc", "Key-Tag", "GSM8K").details)


def test_other_versions_and_judges_are_said(two: Outputs) -> None:
    two.stage("key", "key-tag")
    two.evaluate("outputs/key", "sftkey_gsm8k", [(1.0, 1.0)] * 10, version="0.4.12", judge_mode="fallback")
    scores = scores_in(two)
    cell = row_of(scores, "Key-Tag").scores["acc"]["gsm8k"]
    assert cell.caveats == ("judge fallback, others off", "lm-eval 0.4.12, others 0.4.11")
    assert not cell.best
    assert row_of(scores, "SFT").scores["acc"]["gsm8k"].caveats == ()


def test_without_items_there_is_a_figure_and_no_interval(two: Outputs) -> None:
    two.stage("key", "key-tag")
    two.evaluate("outputs/key", "sftkey_gsm8k", SFT, samples=False)
    scores = scores_in(two)
    cell = row_of(scores, "Key-Tag").scores["fmt"]["gsm8k"]
    assert (cell.value, cell.interval, cell.items) == (1.0, None, 10)
    assert cell.caveats == ("no items logged: no interval, no test",)
    assert ("delta", "+0.0000 to SFT, not tested") in table_cell(scores, "fmt", "Key-Tag", "GSM8K").details


def test_seeds_are_compared_with_their_own_baseline(outputs: Outputs) -> None:
    for seed, items in ((1, SFT), (2, TAG)):
        outputs.stage(f"{seed}/sft", "sft", seed=seed)
        outputs.stage(f"{seed}/tag", "sft-tag", seed=seed)
        outputs.evaluate(f"outputs/{seed}/sft", "sftkey_gsm8k_plain", items)
        outputs.evaluate(f"outputs/{seed}/tag", "sftkey_gsm8k", TAG)
    scores = scores_in(outputs)
    for seed in (1, 2):
        baseline = scores.baseline(row_of(scores, f"SFT-Tag, seed {seed}"))
        assert baseline is not None
        assert baseline.label == f"SFT, seed {seed}"
    pairs = {(one.first, one.second) for one in scores.comparisons}
    assert pairs == {("SFT, seed 1", "SFT-Tag, seed 1"), ("SFT, seed 2", "SFT-Tag, seed 2")}


def test_a_strategy_run_once_is_compared_with_every_run_of_another(outputs: Outputs) -> None:
    for rate in (1, 2):
        outputs.stage(f"{rate}/tag", "sft-tag", learning_rate=rate)
        outputs.evaluate(f"outputs/{rate}/tag", "sftkey_gsm8k", TAG)
    outputs.stage("stage2", "key-tag", after="1/tag")
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", SFT)
    pairs = {(one.first, one.second) for one in scores_in(outputs).comparisons}
    assert pairs == {("SFT-Tag, learning_rate 1", "SFTKey-Tag"), ("SFT-Tag, learning_rate 2", "SFTKey-Tag")}


def test_a_limit_is_said_beside_the_figure(two: Outputs) -> None:
    scores = scores_in(two)
    cell = row_of(scores, "SFT").scores["acc"]["gsm8k"]
    assert (cell.items, cell.of, cell.caveats) == (10, 1319, ())
    (table,) = [table for table in score_tables(scores) if table.name == "acc"]
    assert "Items evaluated: GSM8K 10 of 1,319." in table.reading
    assert table_cell(scores, "acc", "SFT", "GSM8K").footnotes == ()
    assert table.frame["of items"].tolist() == [1319, 1319]
    assert [row.label for row in scores.rows if row.scores["acc"]["gsm8k"].best] == ["SFT-Tag"]  # the same for both
    two.stage("key", "key-tag")
    two.evaluate("outputs/key", "sftkey_gsm8k", SFT[:6])
    (table,) = [table for table in score_tables(scores_in(two)) if table.name == "acc"]
    assert "Items evaluated" not in table.reading
    assert {"evaluated on 10 of 1,319 items", "evaluated on 6 of 1,319 items"} <= set(table.footnotes)
    two.stage("sft2", "sft", data="openbookqa")
    two.evaluate("outputs/sft2", "sftkey_openbookqa_plain", SFT)
    average = row_of(scores_in(two), "SFT").scores["acc"][AVERAGE]
    assert (average.items, average.of) == (20, 2 * 1319)


def test_format_failures_by_hand(two: Outputs) -> None:
    table = failure_table(scores_in(two))
    assert table.columns == ("Model", "Strategy", "Data set", "answer cut off")
    sft, tag = table.rows
    assert (sft[3].text, sft[3].details) == ("\u2013", ())
    # 6 of 10 outputs of SFT-Tag; the interval is that of a mean of 6 ones and 4 zeros.
    interval = mean_interval(np.array([1.0] * 6 + [0.0] * 4))
    assert (tag[3].text, tag[3].details) == ("0.6000", (("interval", f"[{interval.low:.3f}, {interval.high:.3f}]"),))
    (record,) = table.frame.to_dict("records")
    assert (record["method"], record["reason"], record["share"], record["items"]) == (
        "SFT-Tag", "answer cut off", 0.6, 10
    )  # fmt: skip


def test_no_answer_found_by_hand(two: Outputs) -> None:
    (samples,) = [path for path in two.root.rglob("samples_*.jsonl") if '"answer cut off"' in path.read_text()]
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    for line in lines[:4]:
        line["extracted"] = None
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = failure_table(scores_in(two))
    assert table.columns == ("Model", "Strategy", "Data set", "answer cut off", "no answer found")
    sft, tag = table.rows
    assert (sft[4].text, tag[4].text) == ("\u2013", "0.4000")


def test_a_run_that_is_missing_is_said(two: Outputs) -> None:
    two.stage("sft2", "sft", data="openbookqa")
    two.evaluate("outputs/sft2", "sftkey_openbookqa_plain", SFT)
    (table,) = [table for table in score_tables(scores_in(two)) if table.name == "acc"]
    (tag,) = [row for row in table.rows if row[1].text == "SFT-Tag"]
    cell = tag[table.columns.index("OpenBookQA")]
    assert cell.text == "\u2013"
    assert [table.footnotes[number - 1] for number in cell.footnotes] == ["no evaluation of it was found"]
