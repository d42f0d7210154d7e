"""What is drawn: the points of a curve, where a second stage begins, the boxes; and that names stay text."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from sftkey.report import drawing
from sftkey.report.collect import collect
from sftkey.report.figures import _draw_run, _model_differences, _scale, figures_of
from sftkey.report.runs import Run, runs_of
from sftkey.report.scores import scores_of
from sftkey.report.stages import LoggedStage
from sftkey.report.write import write_report
from support.output_roots import Outputs

ITEMS = [(1.0, 1.0)] * 3 + [(0.0, 1.0)]


@pytest.fixture
def chain(outputs: Outputs) -> Outputs:
    outputs.stage("stage1", "sft-tag", losses=(2.0, 1.0, 0.5))
    outputs.stage("stage2", "key-tag", after="stage1", losses=(0.4, 0.2))
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", ITEMS)
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", [(1.0, 1.0)] * 4)
    return outputs


def run_called(outputs: Outputs, strategy: str) -> Run:
    (run,) = [run for run in runs_of(collect([outputs.root])) if run.strategy == strategy]
    return run


def lines_of(run: Run, metric: str) -> dict[str, tuple[list[float], list[float]]]:
    axes = Figure().add_subplot()
    _draw_run(axes, run, metric)
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_a_second_stage_begins_where_the_first_ended(chain: Outputs) -> None:
    assert lines_of(run_called(chain, "SFT-Tag"), "loss_answer")["SFT-Tag"] == ([32, 64, 96], [2.0, 1.0, 0.5])
    drawn = lines_of(run_called(chain, "SFTKey-Tag"), "loss_answer")
    assert drawn["SFTKey-Tag"] == ([96 + 32, 96 + 64], [0.4, 0.2])
    assert ([96, 128], [0.5, 0.4]) in drawn.values()  # the dotted line from the one to the other
    assert ([96 + 64], [0.4]) in drawn.values()  # the evaluation split


def test_examples_follow_from_epochs_or_steps_where_they_are_not_logged(outputs: Outputs) -> None:
    directory = outputs.stage("stage1", "sft-tag")
    log = directory / "trainer_state.json"
    log.write_text(log.read_text().replace("examples_seen", "something_else"))
    (stage,) = collect([outputs.root]).stages.values()
    train = stage.log[(stage.log["metric"] == "loss_answer") & (stage.log["split"] == "train")]
    assert train["examples"].tolist() == pytest.approx([32, 64, 96])  # 96 rows an epoch
    marker = directory / "sftkey_stage.json"
    marker.write_text(marker.read_text().replace('"rows_used": 96', '"rows_used": null'))
    collection = collect([outputs.root])
    (stage,) = collection.stages.values()
    assert stage.log["examples"].max() == 3
    assert "drawn over steps instead" in "".join(collection.ledger.notes)


def test_long_curves_are_thinned_to_means(outputs: Outputs) -> None:
    losses = np.linspace(3, 1, 2000).tolist()
    outputs.stage("stage1", "sft-tag", losses=losses)
    x, y = lines_of(run_called(outputs, "SFT-Tag"), "loss_answer")["SFT-Tag"]
    assert len(x) == len(y) == 400
    assert y[0] == pytest.approx(np.mean(losses[:5]))
    assert x[0] == pytest.approx(32 * 3)


def test_boxes_hold_the_differences_per_data_set(outputs: Outputs) -> None:
    for data, right in (("gsm8k", 4), ("openbookqa", 1)):
        outputs.stage(f"{data}/stage1", "sft-tag", data=data)
        outputs.stage(f"{data}/key", "key-tag", data=data)
        outputs.evaluate(f"outputs/{data}/stage1", f"sftkey_{data}", [(1.0, 1.0)] * 2 + [(0.0, 1.0)] * 2)
        items = [(1.0, 0.0)] * right + [(0.0, 0.0)] * (4 - right)
        outputs.evaluate(f"outputs/{data}/key", f"sftkey_{data}", items)
    scores = scores_of(runs_of(collect([outputs.root])))
    points = _model_differences(scores, "Qwen3-8B-Base", "Key-Tag")
    assert [value for value, _, _ in points] == pytest.approx([0.5, -0.25])
    assert all(low <= value <= high for value, low, high in points)


def test_boxes_hold_every_run_against_its_own_first_stage(outputs: Outputs) -> None:
    for seed, right in ((1, 4), (2, 1)):
        outputs.stage(f"{seed}/stage1", "sft-tag", seed=seed)
        outputs.stage(f"{seed}/key", "key-tag", seed=seed)
        outputs.evaluate(f"outputs/{seed}/stage1", "sftkey_gsm8k", [(1.0, 1.0)] * 2 + [(0.0, 1.0)] * 2)
        items = [(1.0, 0.0)] * right + [(0.0, 0.0)] * (4 - right)
        outputs.evaluate(f"outputs/{seed}/key", "sftkey_gsm8k", items)
    scores = scores_of(runs_of(collect([outputs.root])))
    points = _model_differences(scores, "Qwen3-8B-Base", "Key-Tag")
    assert [value for value, _, _ in points] == pytest.approx([0.5, -0.25])


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.01, "log"), (0.0, "linear")])
def test_a_loss_axis_is_logarithmic_where_losses_span_much(outputs: Outputs, last: float, scale: str) -> None:
    outputs.stage("stage1", "sft-tag", losses=(2.0, 1.0, last))
    axes = Figure().add_subplot()
    run = run_called(outputs, "SFT-Tag")
    _draw_run(axes, run, "loss_answer")
    _scale(axes, [run], "loss_answer")
    assert axes.get_yscale() == scale
    assert ("log scale" in axes.get_ylabel()) == (scale == "log")


def test_curves_come_in_the_order_of_the_tables_columns(outputs: Outputs) -> None:
    for name in ("cot_collection", "gsm8k", "rows.jsonl", "openbookqa"):
        outputs.stage(name.replace(".", "_"), "sft", data=name)
    panels = figures_of(runs_of(collect([outputs.root])), scores_of([]))
    answer = [panel.title.rpartition(", ")[2] for panel in panels if panel.name.startswith("loss_answer")]
    assert answer == ["GSM8K", "OpenBookQA", "CoT-Collection", "rows"]


def test_the_legend_names_the_evaluation_split(chain: Outputs) -> None:
    panels = {panel.name: panel for panel in figures_of(runs_of(collect([chain.root])), scores_of([]))}
    answer = next(panel for name, panel in panels.items() if name.startswith("loss_answer"))
    thinking = next(panel for name, panel in panels.items() if name.startswith("loss_thinking"))
    assert ">evaluation split<" in answer.svg
    assert ">evaluation split<" not in thinking.svg  # nothing of it was logged there


def test_every_figure_is_png_and_svg_and_names_stay_text(outputs: Outputs) -> None:
    hostile = 'x/<script>alert(1)</script> $\\frac{1}{0}$ "\x00 id="y'
    outputs.stage("stage1", "sft-tag", base_model=hostile)
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", ITEMS)
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", ITEMS)
    runs = runs_of(collect([outputs.root]))
    panels = figures_of(runs, scores_of(runs))
    assert [panel.kind for panel in panels] == ["curves"] * 4 + ["differences", "accuracy and format"]
    for panel in panels:
        assert panel.png.startswith(b"\x89PNG")
        root = ElementTree.fromstring(panel.svg)
        assert root.tag.endswith("svg")
        assert "<script" not in panel.svg + panel.inline
        assert "#2563eb" not in panel.inline.replace("&", "")  # colours follow the page's theme
        assert panel.name == panel.name.lower()
        assert "/" not in panel.name
    ids = [part.split('"')[0] for panel in panels for part in panel.inline.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_a_stage_without_a_log_is_no_reason_to_fail(chain: Outputs) -> None:
    (chain.root / "stage1" / "trainer_state.json").unlink()
    runs = runs_of(collect([chain.root]))
    assert isinstance(runs[0].stages[0], LoggedStage)
    assert len([panel for panel in figures_of(runs, scores_of(runs)) if panel.kind == "curves"]) == 4


def test_characters_that_no_font_has_are_a_note_and_no_warning(outputs: Outputs) -> None:
    model = "lab/\u6a21\u578b-\ue000\U0001f9ea-7B"
    outputs.stage("stage1", "sft-tag", base_model=model)
    with warnings.catch_warnings(), mpl.rc_context({"font.family": ["sans-serif"]}):
        warnings.simplefilter("error")
        written = write_report([outputs.root], outputs.root / "report")
    (note,) = [note for note in written.collection.ledger.notes if "font" in note]
    assert "\U0001f9ea" in note
    assert note.count("SVG") == 1
    figures = list((outputs.root / "report" / "figures").glob("*.svg"))
    assert figures
    assert all("\u6a21\u578b" in file.read_text() for file in figures)  # as text, whatever fonts are here


def test_other_warnings_of_a_drawing_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    figure, _ = drawing.new_panel("a")
    monkeypatch.setattr(figure, "draw_without_rendering", lambda: warnings.warn("mind the gap", stacklevel=1))
    with pytest.warns(UserWarning, match="mind the gap"):
        assert drawing.finish(figure, "a", "curves", "", "a").missing == ""


def test_a_font_for_other_scripts_is_used_where_it_is_installed() -> None:
    families = drawing.STYLE["font.family"]
    assert families[0] == "sans-serif"
    assert set(families[1:]) <= set(drawing.fontManager.get_font_names())
