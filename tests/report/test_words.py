"""The words beside the figures: they say what is there, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.evaluation.statistics import SIGNIFICANT, paired_test
from sftkey.report.cards import cards
from sftkey.report.collect import collect
from sftkey.report.comparisons import disagreement
from sftkey.report.runs import data_set_title, runs_of
from sftkey.report.score_tables import score_tables
from sftkey.report.scores import Scores, scores_of
from sftkey.report.summary import comparison_table
from sftkey.report.write import write_report
from support.output_roots import Outcome, Outputs

RIGHT, WRONG, NOTHING = (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)
METHODS = {"sft": "SFT", "sft-tag": "SFT-Tag", "key-tag": "Key-Tag"}


def scores_with(outputs: Outputs, items: dict[str, list[Outcome]]) -> Scores:
    for method, outcomes in items.items():
        outputs.stage(method, method)
        outputs.evaluate(f"outputs/{method}", "sftkey_gsm8k" + ("_plain" if method == "sft" else ""), outcomes)
    return scores_of(runs_of(collect([outputs.root])))


def best(scores: Scores) -> list[str]:
    return [row.label for row in scores.rows if row.scores["score"]["gsm8k"].best]


@pytest.mark.parametrize("outcome", [RIGHT, WRONG, NOTHING], ids=["right", "wrong", "nothing"])
def test_where_all_are_equal_nobody_wins(outputs: Outputs, outcome: Outcome) -> None:
    scores = scores_with(outputs, {method: [outcome] * 3 for method in METHODS})
    (card,) = cards(scores)
    assert card["strategy"] == "No strategy is ahead: all 3"
    assert card["says"] == "have this Score on GSM8K"
    assert (card["ahead"], card["lines"]) == (False, [])
    assert best(scores) == []
    tables = score_tables(scores)
    assert "bold" not in tables[0].reading
    assert not any(cell.bold for table in tables for row in table.rows for cell in row)


def test_two_that_tie_are_both_named(outputs: Outputs) -> None:
    items = {"sft": [RIGHT, WRONG, WRONG], "sft-tag": [WRONG, RIGHT, WRONG], "key-tag": [WRONG] * 3}
    scores = scores_with(outputs, items)
    (card,) = cards(scores)
    assert (card["strategy"], card["says"]) == ("SFT and SFT-Tag", "tie for the highest Score on GSM8K")
    assert not card["ahead"]
    assert best(scores) == ["SFT", "SFT-Tag"]


@pytest.mark.parametrize(("count", "clear"), [(3, False), (30, True)])
def test_only_a_winner_that_is_told_from_the_next_is_coloured(
    outputs: Outputs, tmp_path: Path, count: int, clear: bool
) -> None:
    scores = scores_with(outputs, {"sft": [WRONG] * count, "sft-tag": [RIGHT] * count})
    (card,) = cards(scores)
    assert (card["strategy"], card["says"], card["ahead"]) == ("SFT-Tag", "has the highest Score on GSM8K", clear)
    assert f"+0.7000 to SFT, {'significant' if clear else 'not significant'}" in card["lines"]
    page = write_report([outputs.root], tmp_path / "report").page.read_text()
    assert ('<span class="strategy ahead">' in page) == clear


def test_the_control_of_a_winner_is_compared_or_missed(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", [WRONG] * 4)
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", [RIGHT] * 4)
    (card,) = cards(scores_of(runs_of(collect([outputs.root]))))
    assert card["lines"][-1].startswith("no control here (SFT-Tag then SFT-Tag)")
    outputs.stage("control", "sft-tag", after="stage1")
    outputs.evaluate("outputs/control", "sftkey_gsm8k", [RIGHT] * 3 + [WRONG])
    (card,) = cards(scores_of(runs_of(collect([outputs.root]))))
    assert "+0.1750 to SFT-Tag then SFT-Tag, not significant" in card["lines"]
    assert not any("no control" in line for line in card["lines"])


def test_a_difference_to_sft_is_spoken_of_where_there_is_one(outputs: Outputs) -> None:
    scores = scores_with(outputs, {"sft-tag": [RIGHT, WRONG], "key-tag": [WRONG, WRONG]})
    assert "difference to SFT" not in score_tables(scores)[0].reading
    outputs.stage("sft", "sft")
    outputs.evaluate("outputs/sft", "sftkey_gsm8k_plain", [RIGHT, WRONG], first_item=50)  # no shared item
    assert "difference to SFT" not in score_tables(scores_of(runs_of(collect([outputs.root]))))[0].reading
    outputs.evaluate("outputs/sft", "sftkey_gsm8k_plain", [RIGHT, WRONG, WRONG])
    assert "difference to SFT" in score_tables(scores_of(runs_of(collect([outputs.root]))))[0].reading


def test_without_items_no_interval_is_spoken_of(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag", base_model="org/other")
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", [RIGHT, WRONG], samples=False)
    (table, *_) = score_tables(scores_of(runs_of(collect([outputs.root]))))
    assert table.reading == " Items evaluated: GSM8K 2 of 1,319."


def test_an_interval_without_zero_beside_not_significant_is_explained(outputs: Outputs) -> None:
    scores = scores_with(outputs, {"sft": [WRONG] * 10, "sft-tag": [RIGHT] * 4 + [WRONG] * 6})
    table = comparison_table(scores)
    (acc,) = [row for row in table.rows if row[2].text == "Acc"]
    assert (acc[-1].text, acc[8].details[0][1].count("\u2212")) == ("not significant", 0)
    (footnote,) = [table.footnotes[number - 1] for number in acc[-1].footnotes]
    assert "excludes 0, McNemar's exact test does not reject and counts" in footnote
    assert "with 4 items that differ" in footnote


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40),
    st.integers(1, 10),
    st.booleans(),
)
def test_whatever_interval_and_test_say_their_disagreement_is_explained(
    pairs: list[tuple[float, float]], family: int, score: bool
) -> None:
    first, second = (np.array(values) * (0.7 if score else 1) for values in zip(*pairs, strict=True))
    test = paired_test(first, second)
    adjusted = min(1.0, test.p * family)
    agree = (test.interval.low > 0 or test.interval.high < 0) == (adjusted < SIGNIFICANT)
    assert (disagreement(test, adjusted) == "") == agree
    assert disagreement(test.reversed, adjusted) == disagreement(test, adjusted)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("/home/me/svamp.jsonl", "svamp"),
        ("data/svamp/train.jsonl.gz", "svamp (train)"),
        ("./svamp.parquet", "svamp"),
        ("C:\\data\\svamp.csv", "svamp"),
        ("org/svamp-v1.2", "svamp-v1.2"),
        ("s3://bucket/rows/svamp.json", "svamp"),
        ("rows/svamp/", "svamp"),
        ("data/*.jsonl", "data"),
        ("svamp", "svamp"),
        ("train.jsonl", "train"),
    ],
)
def test_a_path_is_no_title(name: str, title: str) -> None:
    assert data_set_title(name) == title


@given(st.text("ab./\\*:~ ", max_size=12))
def test_no_path_is_a_title(name: str) -> None:
    title = data_set_title(name)
    assert title or not name
    assert not set(title) & set("/\\") or not set(name) & set("ab") or ":" in name


def test_no_path_of_training_data_is_shown_as_a_name(outputs: Outputs, tmp_path: Path) -> None:
    outputs.stage("own", "sft", data="rows/my.questions.jsonl")
    outputs.evaluate("outputs/own", "sftkey_gsm8k_plain", [RIGHT, WRONG])
    (row,) = scores_of(runs_of(collect([outputs.root]))).rows
    assert row.label == "SFT, trained on my.questions"
