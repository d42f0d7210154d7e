"""Reliability and expected calibration error from logged probabilities, against figures computed by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sftkey.evaluation.calibration_items import logged_answers, of_model
from sftkey.evaluation.probabilities import write_probabilities
from sftkey.evaluation.results import read_evaluations, samples_of
from sftkey.report.calibration import bins_of, calibration_panels, calibration_tables, calibrations, expected_error
from sftkey.report.collect import collect
from sftkey.report.figures import figures_of
from sftkey.report.runs import runs_of
from sftkey.report.scores import scores_of
from sftkey.report.write import write_report
from sftkey.util.errors import UserError
from sftkey.util.sources import Ledger
from support.output_roots import Outputs


def test_bins_and_error_by_hand() -> None:
    probability, right = np.array([0.05, 0.91, 0.99, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    assert bins_of(probability, right) == [
        (0.05, 0.0, 1),
        (pytest.approx((0.91 + 0.99 + 1) / 3), pytest.approx(2 / 3), 3),
    ]
    # |0.05 - 0| / 4 + 3 / 4 * |0.9667 - 0.6667|
    assert expected_error(probability, right) == pytest.approx(0.0125 + 0.225)


@pytest.mark.parametrize("seed", range(3))
def test_a_calibrated_model_has_a_small_error_and_a_sure_one_a_large_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    probability = generator.random(5000)
    right = (generator.random(5000) < probability).astype(float)
    assert expected_error(probability, right) < 0.03
    assert expected_error(np.sqrt(probability), right) > 0.1


def with_probabilities(outputs: Outputs, probability: dict[int, float]) -> None:
    """Two stages of which the second has logged probabilities."""
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    items = [(float(i % 2), 1.0) for i in range(10)]
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", items)
    path = outputs.evaluate("outputs/stage2", "sftkey_gsm8k", items)
    samples = samples_of(path)["sftkey_gsm8k"]
    texts = [json.loads(line)["resps"][0][0] for line in samples.read_text().splitlines()]
    write_probabilities(samples, [(str(i), texts[i], math.log(p), 1) for i, p in probability.items()])


def test_table_and_curve(outputs: Outputs, tmp_path: Path) -> None:
    with_probabilities(outputs, {i: 0.95 if i % 2 else 0.55 for i in range(8)})
    page = write_report([outputs.root], tmp_path / "report").page
    (found,) = calibrations(scores_of(runs_of(collect([outputs.root]))))
    (table,) = calibration_tables([found])
    (line,) = table.frame.to_dict("records")
    assert (line["method"], line["data set"]) == ("SFTKey-Tag", "GSM8K")
    assert line["ece"] == pytest.approx((0.05 + 0.55) / 2)
    assert line["brier"] == pytest.approx((0.05**2 + 0.55**2) / 2)
    assert line["low"] <= line["ece"] <= line["high"]
    assert table.footnotes == ["2 of 10 items have no answer in their format, or one that is too long"]
    assert list((page.parent / "figures").glob("calibration_*.svg"))
    text = page.read_text()
    assert "Calibration of the answer" in text
    assert "Reliability of the answer" in text


def test_probabilities_of_other_outputs_do_not_count(outputs: Outputs) -> None:
    with_probabilities(outputs, {})
    (path,) = (p for p in outputs.root.rglob("samples_*.jsonl") if "stage2" in str(p))
    write_probabilities(path, [(str(i), "another output", -0.1, 1) for i in range(10)])
    assert calibrations(scores_of(runs_of(collect([outputs.root])))) == []


def test_which_answers_are_asked_about(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag")
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0), (1.0, 1.0), (0.0, 0.0)], texts={1: "no block"})
    (found,) = logged_answers(outputs.root, outputs.root / "tag")
    assert not list(logged_answers(outputs.root, outputs.root))
    assert (found.doc_ids, found.without) == (["0", "2"], 1)
    assert (found.answers[0].prompt, found.answers[0].text) == ("Question 0?", "0")
    assert found.answers[0].output.count(found.answers[0].text) > 0
    assert of_model(found.model, Path("elsewhere/outputs/tag"))
    assert not of_model(found.model, Path("outputs/other"))


def test_one_folder_of_two_with_the_same_name(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for chain in ("a", "b"):
        (tmp_path / chain / "stage2").mkdir(parents=True)
    assert of_model("a/stage2", tmp_path / "a/stage2")
    assert of_model(str(tmp_path / "a/stage2/"), Path("a/stage2"))
    assert not of_model("a/stage2", tmp_path / "b/stage2")
    assert of_model("moved/stage2", tmp_path / "b/stage2")  # not here any more
    assert not of_model(None, tmp_path / "b/stage2")


def test_a_prompt_that_a_server_made_is_refused(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag")
    path = samples_of(outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0)] * 2))["sftkey_gsm8k"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["arguments"] = {"gen_args_0": {"arg_0": ['[{"role": "user", "content": "Question 1?"}]']}}
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=r"line 2: a server made the prompt from messages; .* --model hf or vllm"):
        list(logged_answers(outputs.root, outputs.root / "tag"))
    path.write_text("no JSON")
    with pytest.raises(UserError, match="samples_sftkey_gsm8k"):
        list(logged_answers(outputs.root, outputs.root / "tag"))


def test_thinking_that_the_prompt_opened(outputs: Outputs) -> None:
    outputs.stage("tag", "sft-tag")
    text = "The sum is 4.\n</think>\n\n4"
    path = outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0)], texts={0: text})
    samples = samples_of(path)["sftkey_gsm8k"]
    line = json.loads(samples.read_text())
    line["arguments"] = {"gen_args_0": {"arg_0": "<|im_start|>assistant\n<think>\n"}}
    samples.write_text(json.dumps(line))
    (found,) = logged_answers(outputs.root, outputs.root / "tag")
    assert (found.answers[0].text.strip(), found.without) == ("4", 0)
    (evaluation,) = read_evaluations(path, Ledger())
    assert evaluation.items is not None
    assert list(evaluation.items["thinking_length"]) == [len("The sum is 4.")]


def test_an_interval_holds_its_figure(outputs: Outputs) -> None:
    # Resamples of a perfectly calibrated handful are worse calibrated, every one of them.
    with_probabilities(outputs, dict.fromkeys(range(10), 0.5))
    (table,) = calibration_tables(calibrations(scores_of(runs_of(collect([outputs.root])))))
    (line,) = table.frame.to_dict("records")
    assert line["ece"] == 0
    assert line["low"] <= line["ece"] <= line["high"]


def test_two_panels_of_one_name_are_two_files(outputs: Outputs) -> None:
    with_probabilities(outputs, dict.fromkeys(range(8), 0.95))
    runs = runs_of(collect([outputs.root]))
    panels = list(calibration_panels(calibrations(scores_of(runs))))
    names = [panel.name for panel in figures_of(runs, scores_of(runs), panels * 2)]
    assert len(set(names)) == len(names)
    assert f"{panels[0].name}_2" in names
