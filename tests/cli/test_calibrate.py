"""`sftkey calibrate`: from a checkpoint and lm-eval's samples to the report's reliability curves."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner
from demo.tiny_model import make_tokenizer
from sftkey.cli.main import sftkey
from support.output_roots import Outputs
from support.small_models import small_model


@pytest.fixture
def evaluated(tmp_path: Path) -> Outputs:
    """A stage with a tiny model's weights, and its evaluation: 8 answers and an output without one."""
    outputs = Outputs(tmp_path / "outputs")
    folder = outputs.stage("tag", "sft-tag")
    tokenizer = make_tokenizer(["Question 1? <Thinking>Item 1.</Thinking><Answer>2</Answer> " * 20], vocab_size=300)
    small_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    items = [(float(i % 2), 1.0) for i in range(8)] + [(0.0, 0.0)]
    outputs.evaluate("outputs/tag", "sftkey_gsm8k", items, texts={8: "no block at all"})
    return outputs


def test_from_samples_to_the_report(evaluated: Outputs, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(sftkey, ["calibrate", str(evaluated.root / "tag"), str(evaluated.root / "evaluations")])
    assert done.exit_code == 0, done.output
    assert "8 answers, 1 outputs without one, 0 too long" in done.output
    assert run(sftkey, ["report", str(evaluated.root), "-o", str(tmp_path / "report")]).exit_code == 0
    (line,) = csv.DictReader((tmp_path / "report" / "tables" / "calibration.csv").read_text().splitlines())
    assert (line["method"], line["answers"], line["acc"]) == ("SFT-Tag", "8", "0.5")
    assert 0 < float(line["probability"]) < 0.5  # an untrained model is not sure
    assert 0 < float(line["ece"]) <= 1


def test_samples_of_another_model_are_refused_in_one_line(evaluated: Outputs) -> None:
    other = evaluated.stage("other", "key-tag")
    done = CliRunner().invoke(sftkey, ["calibrate", str(other), str(evaluated.root / "evaluations")])
    assert done.exit_code == 1
    assert "no samples of an evaluation of" in done.output


@pytest.mark.parametrize(("file", "message"), [("tokenizer.json", "tokenizer"), ("model.safetensors", "weights")])
def test_a_model_that_cannot_be_loaded_is_one_line(evaluated: Outputs, file: str, message: str) -> None:
    (evaluated.root / "tag" / file).write_text("no JSON, no weights")
    done = CliRunner().invoke(sftkey, ["calibrate", str(evaluated.root / "tag"), str(evaluated.root / "evaluations")])
    assert done.exit_code == 1
    assert f"{evaluated.root / 'tag'}: its {message} can't be loaded" in done.output
    assert len(done.output.strip().splitlines()) == 1
