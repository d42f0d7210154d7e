"""What `make demo` says of Stage 2, its control, and the picture that several seeds are drawn as."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import yaml
from sftkey.format.methods import strategy_of
from support.availability import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests" / "demo"))

import picture
import run as demo
import seeds

FIGURES: dict[str, Any] = json.loads(seeds.FIGURES.read_text("utf-8"))


@pytest.mark.parametrize(
    ("difference", "low", "high", "said"),
    [
        (0.05, 0.01, 0.09, "gains more than the control: that much is the answer-only loss's, on this one seed"),
        (-0.05, -0.09, -0.01, "gains less than the control: nothing of its gain is the answer-only loss's"),
        (0.05, -0.01, 0.11, "No difference is shown: what Stage 2 gains here is what more training gains"),
        (0.0, 0.0, 0.0, "No difference is shown"),
    ],
)
def test_stage_2_gets_no_credit_that_the_control_has_too(difference: float, low: float, high: float, said: str) -> None:
    found = {"difference": difference, "low": low, "high": high, "adjusted p": 0.04}
    text = demo.verdict(0.505, 0.505 - difference, found)
    assert said in text
    assert "Acc by Stage 2: +50.5 points." in text
    assert f"Stage 2 minus the control: {100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]" in text


def test_the_control_is_stage_2_with_the_loss_of_stage_1() -> None:
    stage1, stage2, control = (
        yaml.safe_load(cell.recipe.read_text()) for cell in (demo.STAGE1, demo.STAGE2, demo.CONTROL)
    )
    differing = {key for key in stage2 if stage2[key] != control[key]}
    assert control.keys() == stage2.keys()
    assert differing == {"sftkey_method", "output_dir"}
    assert control["sftkey_method"] == stage1["sftkey_method"]


def test_the_control_is_called_as_in_the_report() -> None:
    methods = {
        cell: yaml.safe_load(cell.recipe.read_text())["sftkey_method"]
        for cell in (demo.STAGE1, demo.STAGE2, demo.CONTROL)
    }
    for cell in (demo.STAGE2, demo.CONTROL):
        assert cell.strategy == strategy_of([methods[demo.STAGE1], methods[cell]])


def place(root: Path, acc: dict[str, str]) -> None:
    """What the real commands leave of each cell, as far as it is read."""
    for name, right in acc.items():
        folder = root / demo.ROOT / name
        (folder / "eval").mkdir(parents=True)
        metrics = {f"{metric},none": right.count("1") / len(right) for metric in ("acc", "fmt", "score")}
        (folder / "eval" / "results_1.json").write_text(json.dumps({"results": {"sftkey_demo": metrics}}))
        lines = [
            {
                "doc_id": n,
                "doc": {"question": "Which?"},
                "target": "red",
                "resps": [[name]],
                "acc": int(digit),
                "fmt": 1,
            }
            for n, digit in enumerate(right)
        ]
        # lm-eval logs them in no order.
        (folder / "eval" / "samples_1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
        losses = [
            {"step": s, **{f"eval_loss{k}": 2.0 - s / 100 for k in ("", "_answer", "_thinking", "_format")}}
            for s in (0, 100)
        ]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": [{"loss": 1.0}, *losses]}))
    (root / demo.ROOT / "report" / "tables").mkdir(parents=True)
    with open(root / demo.ROOT / "report" / "tables" / "comparisons.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["first", "second", "metric", "difference", "low", "high", "adjusted p"])
        rows.writerow(["SFTKey-Tag", demo.CONTROL.strategy, "acc", 0.25, -0.1, 0.5, 0.5])


def test_the_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    place(tmp_path, {"stage1": "1000", "stage2": "1100", "control": "1110"})
    monkeypatch.chdir(tmp_path)
    demo.print_outcome([demo.STAGE1, demo.STAGE2, demo.CONTROL])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Control, SFT-Tag carried on 0.750 0.750 0.750" in shown
    assert "2.000 -> 1.000" in shown
    assert "Acc by Stage 2: +25.0 points. By the control, as many steps of Stage 1's loss: +50.0." in shown
    assert "Stage 2 minus the control: -25.0 points [-50.0, +10.0], p = 0.5" in shown
    with pytest.raises(LookupError):
        demo.comparison(demo.STAGE1, demo.STAGE2)


def test_figures_are_collected_in_the_order_of_the_items(tmp_path: Path) -> None:
    for seed in (1, 2):
        place(tmp_path / str(seed), {"stage1": "1000", "stage2": "1100", "control": "1110"})
    found = seeds.collect({seed: tmp_path / str(seed) for seed in (1, 2)})
    assert found["seeds"]["2"]["control"] == {"acc": "1110", "fmt": "1111", "answer_loss": [[0, 2.0], [100, 1.0]]}
    assert found["versions"]["torch"]
    np.testing.assert_array_equal(picture.matrix(found, "stage2", "acc"), [[1, 1, 0, 0]] * 2)


def test_the_committed_figures_are_whole() -> None:
    assert len(FIGURES["seeds"]) >= 3
    assert set(FIGURES["versions"]) == {"python", *seeds.VERSIONS}
    for seed in FIGURES["seeds"].values():
        assert seed.keys() == seeds.CELLS.keys()
        for cell in seed.values():
            assert len(cell["acc"]) == len(cell["fmt"]) == 200
            assert set(cell["acc"] + cell["fmt"]) <= {"0", "1"}


def numbers(svg: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", svg)]


def test_the_picture_is_that_of_the_figures_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    committed = picture.PICTURE.read_text("utf-8")
    # Another user's settings change nothing.
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.0)
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["serif"])
    drawn = picture.draw(FIGURES)
    assert "<text" not in drawn  # outlines, whatever fonts a reader has
    assert re.sub(r"[\d.e-]+", "", drawn) == re.sub(r"[\d.e-]+", "", committed)
    np.testing.assert_allclose(numbers(drawn), numbers(committed), atol=0.01)
    other = json.loads(json.dumps(FIGURES))
    other["seeds"]["1"]["stage2"]["acc"] = "0" * 200
    assert picture.draw(other) != drawn


def test_readme_says_what_the_figures_say() -> None:
    means = {cell: picture.matrix(FIGURES, cell, "acc").mean() for cell in seeds.CELLS}
    readme = " ".join((REPOSITORY / "README.md").read_text("utf-8").split())
    points = [f"{100 * (means[cell] - means['stage1']):.1f}" for cell in ("stage2", "control")]
    assert f"Stage 2 gains {points[0]} points of Acc, the control {points[1]}" in readme
    assert picture.caption(FIGURES).partition("points ")[2].partition("],")[0].replace("+", "") in readme
