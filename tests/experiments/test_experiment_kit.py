"""The experiment kit, small: a few steps, a few items, on the CPU."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from sftkey.format.methods import METHODS
from sftkey.format.segments import Segment
from sftkey.training.fit import fit, with_template

from experiments.cells import CELLS, WITHOUT_CONTEXT_GRAD, Store
from experiments.data import NO_FACT, load_data, read_rows, training_examples
from experiments.models import load_model, weights_of
from experiments.plan import Plan, Speed, cell_seconds, make_plan, plan_seconds
from experiments.run import Experiment, arguments
from experiments.settings import Settings
from experiments.summary import summarise, table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and 96 + 12 rows."""
    from demo.setup_demo import set_up

    folder = tmp_path_factory.mktemp("kit")
    set_up(folder, train=96, test=12)
    return folder


@pytest.fixture
def settings(root: Path) -> Settings:
    return Settings(
        model=str(root / "model"),
        dataset="columns",
        train_file=str(root / "data" / "train.jsonl"),
        test_file=str(root / "data" / "test.jsonl"),
        system_message="Think first, then answer.",
        sequence_len=128,
        learning_rate=2e-3,
        batch_size=16,
        micro_batch_size=8,
        stage2_epochs=0.5,
        pad_to_multiple_of=8,
        max_new_tokens=24,
        generation_batch=5,
        diagnosis_rows=4,
    )


def test_runs_summarises_and_goes_on(settings: Settings, tmp_path: Path) -> None:
    said: list[str] = []
    limits = Plan(seeds=1, epochs=1, items=10)
    # A budget of nothing still gets one cell done.
    Experiment(settings, tmp_path, said.append).run(limits, minutes=1e-6)
    assert any(line.startswith("measured") and "planned 1 seeds, 0.1 epochs, 10 test items" in line for line in said)
    assert any(line.startswith("out of time: 4 cells are left") for line in said)
    (first,) = (tmp_path / "cells").iterdir()
    before = first.read_bytes()
    summary = Experiment(settings, tmp_path, said.append).run(limits, minutes=None)
    # What was there is taken as it is, and the rest has the same plan.
    assert first.read_bytes() == before
    assert list(summary["strategies"]) == [cell.name for cell in CELLS]
    assert len(list((tmp_path / "cells").iterdir())) == 5
    assert not list((tmp_path / "weights").iterdir())
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    for cell in Store(tmp_path).cells():
        assert [record["question"] for record in cell["items"]] == [
            row["question"] for row in read_rows(settings.test_file)[:10]
        ]
        assert cell["training"]["steps"] == 1
        assert 0 <= cell["metrics"]["score"] <= 1
        assert (cell["diagnosis"] is not None) == (cell["cell"] == "SFT-Tag")
    other = Settings(**{**settings.as_dict(), "learning_rate": 1e-3})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"other settings \(learning_rate\)"):
        Experiment(other, tmp_path, said.append).run(limits, minutes=None)


def test_a_budget_holds_for_an_experiment_that_was_started_without_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(**{**settings.as_dict(), "diagnosis_rows": 0})  # type: ignore[arg-type]
    limits = Plan(seeds=1, epochs=0.1, items=2)
    run_cell = Experiment._run_cell

    def killed_later(self: Experiment, cell: Any, seed: int, plan: Plan) -> None:
        if list((tmp_path / "cells").iterdir()):
            raise KeyboardInterrupt
        run_cell(self, cell, seed, plan)

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "_run_cell", killed_later)
        with pytest.raises(KeyboardInterrupt):
            Experiment(settings, tmp_path, lambda line: None).run(limits, minutes=None)
    assert json.loads((tmp_path / "experiment.json").read_text())["speed"] is None
    said: list[str] = []
    Experiment(settings, tmp_path, said.append).run(limits, minutes=1e-6)
    # The one cell that every call gets done, and no more.
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert any(line.startswith("out of time: 3 cells are left") for line in said)
    assert json.loads((tmp_path / "experiment.json").read_text())["speed"]["step_seconds"] > 0


def test_stage_2_and_the_control_start_from_the_same_weights(settings: Settings, tmp_path: Path) -> None:
    settings = Settings(**{**settings.as_dict(), "diagnosis_rows": 0})  # type: ignore[arg-type]
    experiment = Experiment(settings, tmp_path, lambda line: None)
    plan = Plan(1, 1.0, 2)
    first, second, control, *_ = CELLS
    starts: dict[str, dict[str, torch.Tensor]] = {}
    ends: dict[str, dict[str, torch.Tensor]] = {}
    for cell in (first, second, control):
        load = experiment.model.load_state_dict

        def record(weights: Any, name: str = cell.name, load: Any = load) -> Any:
            starts[name] = {key: value.clone() for key, value in weights.items()}
            return load(weights)

        experiment.model.load_state_dict = record
        experiment._run_cell(cell, 0, plan)
        experiment.model.load_state_dict = load
        ends[cell.name] = weights_of(experiment.model)
    steps = {cell["cell"]: cell["training"]["steps"] for cell in experiment.store.cells()}
    assert steps == {"SFT-Tag": 6, "SFTKey-Tag": 3, "SFT-Tag continued": 3}
    for cell in (second, control):
        assert all(torch.equal(value, ends["SFT-Tag"][name]) for name, value in starts[cell.name].items())
        assert any(not torch.equal(value, ends[cell.name][name]) for name, value in starts[cell.name].items())
    # The weights are gone (another machine, say): Stage 1 is trained again, to the same weights.
    experiment.store.cell_path(second.name, 0).unlink()
    experiment.store.drop_weights("SFT-Tag", 0)
    experiment._run_cell(second, 0, plan)
    for name, value in weights_of(experiment.model).items():
        torch.testing.assert_close(value, ends["SFTKey-Tag"][name])


def test_without_the_context_gradient_it_is_another_stage_2_from_the_same_weights(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[bool, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def record(model: Any, tokenizer: Any, examples: Any, *, context_grad: bool, **options: Any) -> Any:
        start = weights_of(model)
        result = fit(model, tokenizer, examples, context_grad=context_grad, **options)
        trained.append((context_grad, start, weights_of(model)))
        return result

    monkeypatch.setattr("experiments.run.fit", record)
    settings = Settings(**{**settings.as_dict(), "diagnosis_rows": 0})  # type: ignore[arg-type]
    first, exact, control, *_ = CELLS
    cells = (first, exact, control, WITHOUT_CONTEXT_GRAD)
    summary = Experiment(settings, tmp_path, lambda line: None, cells).run(Plan(1, 1.0, 2), minutes=None)
    assert list(summary["strategies"]) == [cell.name for cell in cells]
    assert {(test["first"], test["second"]) for test in summary["comparisons"]} >= {
        ("SFT-Tag", WITHOUT_CONTEXT_GRAD.name),
        ("SFT-Tag continued", WITHOUT_CONTEXT_GRAD.name),
        ("SFTKey-Tag", WITHOUT_CONTEXT_GRAD.name),
    }
    found = {cell["cell"]: cell for cell in Store(tmp_path).cells()}
    assert {name: cell["context_grad"] for name, cell in found.items()} == {
        first.name: True,
        exact.name: True,
        control.name: True,
        WITHOUT_CONTEXT_GRAD.name: False,
    }
    (_, _, stage1), (_, start, end), _, (_, without_start, without_end) = trained
    assert [context_grad for context_grad, *_ in trained] == [True, True, True, False]
    for name, value in stage1.items():
        assert torch.equal(start[name], value)
        assert torch.equal(without_start[name], value)
    assert any(not torch.allclose(end[name], value) for name, value in without_end.items())
    assert found[WITHOUT_CONTEXT_GRAD.name]["after"] == "SFT-Tag"
    assert not list((tmp_path / "weights").iterdir())
    needed = ["--model", "m", "--dataset", "columns", "--train", "a", "--test", "b", "--output", "o"]
    assert not arguments(needed).without_context_grad
    for option in ("--without-context-grad", "--answer-only-gradient"):
        assert arguments([*needed, option]).without_context_grad
    assert arguments([*needed, "--leave-out", "SFT", "Key-Tag"]).leave_out == ["SFT", "Key-Tag"]
    with pytest.raises(SystemExit):
        arguments([*needed, "--leave-out", "SFT-Tag"])  # others start from its weights


def test_only_the_answer_is_trained_in_stage_2(settings: Settings) -> None:
    data = load_data(settings)
    model, tokenizer = load_model(settings)
    key = METHODS["key-tag"]
    examples = training_examples(data, with_template(tokenizer, key, settings.system_message), key, settings)
    for example in examples:
        after = example.segments.index(int(Segment.ANSWER_OPEN))
        assert all(label == -100 for label in example.labels[:after])
        assert example.labels[after:] == example.input_ids[after:]
    result = fit(
        model, tokenizer, examples, epochs=1.0, learning_rate=1e-3, max_steps=2, logging_steps=1, **settings.training
    )
    assert result.steps == len(result.curve) == len(result.step_seconds) == 2
    assert all("loss_thinking" not in entry and entry["loss_answer"] > 0 for entry in result.curve)
    # 16 rows a step; what precedes the answer has no part in it.
    per_row = sum(segment == Segment.ANSWER for segment in examples[0].segments)
    assert result.curve[0]["tokens_answer"] == pytest.approx(16 * per_row, rel=0.2)
    # Nothing of accelerate's wrapping is left in the model.
    assert not {"forward", "_original_forward"} & set(model.__dict__)


def test_plans_grow_with_the_budget(settings: Settings) -> None:
    speed = Speed(step_seconds=0.1, token_seconds=0.02)
    limits = Plan(seeds=5, epochs=3.0, items=1_319)
    settings = Settings(**{**settings.as_dict(), "batch_size": 32, "generation_batch": 256})  # type: ignore[arg-type]
    plans = [make_plan(limits, speed, 7_473, settings, 60 * minutes) for minutes in (0, 1, 3, 9, 30, 300)]
    assert plans[0] == Plan(1, 0.1, 50)
    assert plans[-1] == limits
    for smaller, larger in itertools.pairwise(plans):
        assert plan_seconds(smaller, speed, 7_473, settings) <= plan_seconds(larger, speed, 7_473, settings)
    for plan, minutes in zip(plans[1:], (1, 3, 9, 30, 300), strict=True):
        assert plan_seconds(plan, speed, 7_473, settings) <= 60 * minutes
    # By hand: 234 steps an epoch; 1,000 items are 4 batches of up to 24 tokens, and 2 x 4 rows more are diagnosed.
    costs = [cell_seconds(cell, Plan(1, 2.0, 1_000), speed, 7_473, settings) for cell in CELLS]
    assert costs == pytest.approx([46.8 + 1.92, 23.4 + 1.92, 23.4 + 1.92, 46.8 + 1.92, 46.8 + 1.92])


def record(right: bool, well_formed: bool) -> dict[str, Any]:
    return {
        "verdict": "same" if right else "different",
        "format_failure": None if well_formed else "no answer",
        "thinking_valid": True,
        "over_limit": False,
        "decided_by": "rule",
        "judge_mode": "off",
        "tokens": 5,
        "finished": True,
    }


def test_summary_by_hand() -> None:
    def cell(name: str, seed: int, right: str) -> dict[str, Any]:
        items = [record(mark == "1", True) for mark in right]
        training = {"steps": 1, "seconds": 1.0, "curve": [{"loss": 1.0}]}
        return {"cell": name, "seed": seed, "items": items, "training": training, "generation_seconds": 1.0}

    cells = [
        cell("SFT-Tag", 0, "1111100000"),
        cell("SFT-Tag", 1, "1111000000"),
        cell("SFTKey-Tag", 0, "1111111110"),
        cell("SFTKey-Tag", 1, "1111111100"),
        cell("SFT-Tag continued", 0, "1111111000"),
    ]
    summary = summarise({"notes": []}, cells)
    found = summary["strategies"]["SFTKey-Tag"]
    assert found["acc"]["mean"] == pytest.approx(0.85)
    assert found["acc"]["by_seed"] == [0.9, 0.8]
    assert found["score"]["mean"] == pytest.approx(0.7 * 0.85 + 0.3)
    low, high = found["acc"]["interval"]
    assert low < 0.85 < high
    pairs = {(t["first"], t["second"]): t for t in summary["comparisons"] if t["metric"] == "acc"}
    assert set(pairs) == {
        ("SFT-Tag", "SFTKey-Tag"),
        ("SFT-Tag", "SFT-Tag continued"),
        ("SFT-Tag continued", "SFTKey-Tag"),
    }
    both = pairs["SFT-Tag", "SFTKey-Tag"]
    assert both["seeds"] == [0, 1]
    assert both["difference"] == pytest.approx(0.85 - 0.45)
    # The differences 0000011110 and 0000111100 in two seeds. Mean squares by hand: of the seeds 0, of the items
    # 2 * 1.9 / 9, of the rest 1 / 9; the seeds' part can't be below 0, so that the error is that of the items alone.
    of_items, rest = 3.8 / 9, 1 / 9
    freedom = of_items**2 / (rest**2 / 1 + of_items**2 / 9 + rest**2 / 9)
    error = np.sqrt(of_items / 20)
    assert both["p"] == pytest.approx(2 * scipy.stats.t.sf(0.4 / error, freedom))
    assert both["interval"][0] == pytest.approx(0.4 - scipy.stats.t.ppf(0.975, freedom) * error)
    assert (both["over"], both["items"]) == ("seeds and items", 10)
    assert both["detectable"] > 0
    control = pairs["SFT-Tag continued", "SFTKey-Tag"]
    assert control["seeds"] == [0]
    # McNemar on two discordant items, both for the second: 2 / 2^2.
    assert control["test"] == "McNemar (exact)"
    assert control["p"] == pytest.approx(0.5)
    assert control["over"] == "items"
    shown = table(summary)
    assert "Acc, SFTKey-Tag - SFT-Tag: +40.00 points" in shown
    # A single seed is called so wherever its figures stand.
    assert [line for line in shown.splitlines() if "one seed: 0.7000" in line and line.startswith("SFT-Tag continued")]
    assert "(McNemar (exact), 10 items, one seed)" in shown


def test_openbookqa_without_facts_says_so(root: Path, settings: Settings, tmp_path: Path) -> None:
    row = {
        "id": "1",
        "question_stem": "What moves a kite?",
        "choices": {"label": ["A", "B"], "text": ["wind", "glue"]},
        "answerKey": "A",
    }
    for name, rows in (("train", [row, {**row, "answerKey": "C"}]), ("test", [row, {**row, "answerKey": "C"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    changed = {"dataset": "openbookqa", "sequence_len": 1024}
    changed |= {f"{name}_file": str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    settings = Settings(**{**settings.as_dict(), **changed})  # type: ignore[arg-type]
    data = load_data(settings)
    assert "answers without a fact" in data.notes[0]
    assert dict(data.left_out) == {"answer key is none of the choices": 1}
    _, tokenizer = load_model(settings)
    method = METHODS["sft-tag"]
    (example,) = training_examples(data, with_template(tokenizer, method, settings.system_message), method, settings)
    text = tokenizer.decode(example.input_ids)
    assert text.endswith(f"<Thinking>{NO_FACT}</Thinking><Answer>A. wind</Answer><|im_end|>")
    assert data.skipped == {"sft-tag": {"answer key is none of the choices": 1}}


def test_rows_that_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n[1]\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:3: a row has to be a JSON object, found list"):
        read_rows(path)
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not JSON"):
        read_rows(path)


def test_command_line_has_every_setting() -> None:
    argv = "--model m --dataset gsm8k --train a --test b --output o --minutes 9 --learning-rate 1e-4 --tags tokens"
    options = arguments([*argv.split(), "--stage2-learning-rate", "5e-5", "--rows", "100"])
    assert (options.learning_rate, options.stage2_learning_rate, options.rows) == (1e-4, 5e-5, 100)
    assert (options.tags, options.minutes, options.train_file) == ("tokens", 9, "a")
    assert options.batch_size == 32


def test_needs_neither_axolotl_nor_lm_eval(repository: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['axolotl'] = sys.modules['lm_eval'] = sys.modules['datasets'] = None\n"
        f"sys.path[:0] = [{str(repository / 'tests' / 'experiments')!r}]\n"
        "import run\n"
        "assert not [name for name, module in sys.modules.items() if module is not None "
        "and name.split('.')[0] in ('axolotl', 'lm_eval', 'math_verify', 'diskcache', 'openai')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
