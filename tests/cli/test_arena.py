"""``sftkey arena`` with stand-ins for what takes long: the control always, each cell once, what decides side by side."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.documented_json import follows_the_documentation
from support.fake_commands import install_with_items
from support.run_place import Place, succeeded

ARENA = ("arena", "stage2.yml", "--output", "out/arena", "--seeds", "2")
SHARES = {"stage1": 0.3, "base": 0.1, "control": 0.45, "anchored": 0.6, "": 0.5}


@pytest.fixture
def arena(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place where evaluations log items."""
    install_with_items(place.folder / "bin", monkeypatch, SHARES)
    return place


def trained(place: Place) -> list[str]:
    return [Path(call[2]).stem for call in place.calls() if call[:2] == ["axolotl", "train"]]


def result(place: Place) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place.folder / "out/arena/arena.json").read_text())
    return content


def recipe(place: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((place.folder / f"out/arena/recipes/{name}.yml").read_text())
    return found


def test_every_objective_and_the_control_from_one_stage_1(arena: Place) -> None:
    done = succeeded(arena.run(*ARENA))
    calls = arena.calls()
    cells = [f"seed{seed}_{name}" for seed in (0, 1) for name in ("control", "answer", "anchored-0.1")]
    assert [Path(call[2]).stem for call in calls if call[0] == "axolotl"] == ["stage1", *cells]
    # Stage 1, the base model, and two seeds of three runs are evaluated once each; what a base model lacks is Stage 1's.
    evaluated = [call[call.index("--output_path") + 1] for call in calls if call[0] == "lm_eval"]
    assert len(evaluated) == len(set(evaluated)) == 8
    (base,) = [call for call in calls if call[0] == "lm_eval" and "out/arena/base/eval" in call]
    assert base[base.index("--model_args") + 1] == "pretrained=Qwen/Qwen3-8B-Base,tokenizer=out/stage1"
    assert sum(call[0] == "python" for call in calls) == 7

    control, answer, anchored = (recipe(arena, f"seed1_{name}") for name in ("control", "answer", "anchored-0.1"))
    assert [one["sftkey_method"] for one in (control, answer, anchored)] == ["sft-tag", "key-tag", "key-tag"]
    assert anchored["sftkey_segment_weights"] == {"thinking": 0.1, "format": 1.0, "answer": 1.0}
    assert not {"sftkey_segment_weights", "sftkey_objective"} & {*control, *answer}
    for one in (control, answer, anchored):
        assert (one["seed"], one["num_epochs"], one["base_model"]) == (1, 3, "out/stage1")
        assert (arena.folder / "out/arena/recipes" / one["sftkey_after"]).resolve() == arena.folder / "stage1.yml"

    content = result(arena)
    assert [run["name"] for run in content["runs"]] == ["base", "stage1", "control", "answer", "anchored:0.1"]
    (task,) = content["tasks"].values()
    assert set(task["figures"]["control"]) == {
        *("acc", "fmt", "score", "acc_well_formed", "thinking_right", "acc_given_reference", "length", "cut_off"),
    }
    assert task["figures"]["control"]["cut_off"]["value"] == pytest.approx(5 / 40)
    assert task["figures"]["answer"]["acc_given_reference"]["value"] == 0.75
    # Of the 20 rows with a reference thinking three outputs go on and on.
    assert task["figures"]["answer"]["thinking_right"]["value"] == pytest.approx(17 / 20)
    assert task["figures"]["stage1"]["acc"]["over"] == "items"
    assert task["figures"]["control"]["acc"]["over"] == "seeds and items"
    accs = {one["run"]: one for one in task["comparisons"] if one["measure"] == "acc"}
    assert set(accs) == {"answer", "anchored:0.1"}
    by_seed = [task["figures"][name]["acc"]["by_seed"] for name in ("anchored:0.1", "control")]
    assert accs["anchored:0.1"]["by_seed"] == pytest.approx([one - other for one, other in zip(*by_seed, strict=True)])
    for one in accs.values():
        assert one["p"] <= one["p_holm"]
        assert (one["control"], one["seeds"], one["items"], one["comparisons"]) == ("control", [0, 1], 40, 2)
        assert one["detectable"] > one["detectable_with_twice_the_seeds"] > 0
    assert "holds for this Stage 1" in content["design"]
    for text in (
        content["design"],
        "COULD SHOW",
        "Intervals over seeds and items; p-values adjusted for 2 comparisons",
    ):
        assert text in done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("stage1 ")]
    assert line.startswith("stage1        one seed     12")

    # Nothing is done twice.
    again = succeeded(arena.run(*ARENA))
    assert arena.calls() == []
    assert again.stdout == done.stdout
    printed = json.loads(succeeded(arena.run(*ARENA, "--json")).stdout)
    follows_the_documentation("arena", printed)
    assert printed == content
    succeeded(arena.run(*ARENA, "--objectives", "answer", "--objectives", "anchored:0.1,anchored:0.02"))
    assert trained(arena) == ["seed0_anchored-0.02", "seed1_anchored-0.02"]


def test_a_single_seed_is_called_one(arena: Place) -> None:
    done = succeeded(arena.run("arena", "stage2.yml", "--output", "out/arena", "--seeds", "1", "--reference-rows", "0"))
    for name in ("control", "answer", "anchored:0.1"):
        for line in (line for line in done.output.splitlines() if line.startswith(f"{name} ")):
            assert line.split(name)[1].split()[:2] == ["one", "seed"]
    assert "One seed: nothing here says what another seed would give." in done.output
    content = result(arena)
    assert all(run["one_seed"] for run in content["runs"] if run["name"] != "base")
    (task,) = content["tasks"].values()
    assert {one["test"] for one in task["comparisons"] if one["measure"] == "acc"} == {"McNemar (exact)"}


def test_each_seed_may_have_a_stage_1_of_its_own(arena: Place) -> None:
    succeeded(arena.run(*ARENA, "--stage1-per-seed", "--objectives", "answer", "--reference-rows", "0"))
    assert trained(arena) == [f"seed{seed}_{name}" for seed in (0, 1) for name in ("stage1", "control", "answer")]
    assert recipe(arena, "seed1_stage1") | {"seed": 0} == recipe(arena, "seed1_stage1") | {"seed": 0}
    assert recipe(arena, "seed1_control")["base_model"] == recipe(arena, "seed1_stage1")["output_dir"]
    content = result(arena)
    assert content["design"].startswith("Each seed has a Stage 1 of its own")
    (task,) = content["tasks"].values()
    assert task["figures"]["stage1"]["acc"]["over"] == "seeds and items"
    assert "acc_given_reference" not in task["figures"]["stage1"]


def test_a_single_stage_starts_from_the_base_model(arena: Place) -> None:
    succeeded(arena.run("arena", "stage1.yml", "--output", "out/arena", "--seeds", "1", "--objectives", "answer"))
    assert trained(arena) == ["seed0_control", "seed0_answer"]
    assert recipe(arena, "seed0_answer")["base_model"] == "Qwen/Qwen3-8B-Base"
    assert [run["name"] for run in result(arena)["runs"]] == ["base", "control", "answer"]
    assert "no Stage 1 to train with each seed" in arena.run("arena", "stage1.yml", "--stage1-per-seed").output


def test_equal_compute_is_as_long_as_the_control_takes(arena: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = (*ARENA, "--reference-rows", "0")
    seconds = {f"seed{seed}_{name}": value for seed in (0, 1) for name, value in (("control", 60.0), ("answer", 40.0))}
    seconds |= {"seed0_anchored-0.1": 61.0, "seed1_anchored-0.1": 59.0}
    monkeypatch.setenv("FAKE_SECONDS", json.dumps(seconds))
    done = succeeded(arena.run(*quick))
    # The anchored step takes as long as the control's: equal steps are equal compute.
    assert trained(arena)[-2:] == ["seed0_answer-equal-compute", "seed1_answer-equal-compute"]
    longer, cell = recipe(arena, "seed1_answer-equal-compute"), recipe(arena, "seed1_answer")
    assert longer["num_epochs"] == 4.5
    assert {key for key in cell if longer[key] != cell[key]} == {"num_epochs", "output_dir"}
    content = result(arena)
    assert [run["compute"] for run in content["runs"][2:5]] == pytest.approx([1, 2 / 3, 1])
    (task,) = content["tasks"].values()
    assert {one["run"] for one in task["comparisons"]} == {"answer", "anchored:0.1", "answer-equal-compute"}
    assert "x 0.67" in done.output
    succeeded(arena.run(*quick[:-3], "3", *quick[-2:], "--objectives", "anchored:0.1", "--no-equal-compute"))
    assert trained(arena) == ["seed2_control", "seed2_anchored-0.1"]
    # More seeds, measured otherwise: those that are there are not trained again for another length.
    monkeypatch.setenv("FAKE_SECONDS", json.dumps(seconds | {"seed2_answer": 10.0}))
    succeeded(arena.run(*quick[:-3], "3", *quick[-2:], "--objectives", "answer"))
    assert trained(arena) == ["seed2_answer", "seed2_answer-equal-compute"]
    assert recipe(arena, "seed2_answer-equal-compute")["num_epochs"] == 4.5


def test_a_budget_ends_between_cells_and_says_what_is_left(arena: Place) -> None:
    done = succeeded(arena.run(*ARENA, "--budget", "0.00001"))
    # The first cell of a call is always run: a budget that is too small still gets somewhere.
    assert trained(arena) == ["stage1"]
    assert "Left: 6\n  control, seed 0\n" in done.output
    assert "6 cells are left. To go on:" in done.output
    assert result(arena)["left"][-1] == "anchored:0.1, seed 1"
    succeeded(arena.run(*ARENA, "--budget", "0.00001"))
    assert trained(arena) == ["seed0_control"]
    assert succeeded(arena.run(*ARENA, "--budget", "600")).output.count("Left") == 0
    assert len(trained(arena)) == 5
    assert result(arena)["left"] == []


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "0", "-1", "1e400", "-0.0", "soon"])
@pytest.mark.parametrize("option", ["--budget", "--eval-limit"])
def test_a_budget_and_a_limit_are_positive_finite_numbers(arena: Place, option: str, number: str) -> None:
    done = arena.run(*ARENA, f"{option}={number}")
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output
    assert arena.calls() == []


def test_a_cell_that_fails_does_not_stop_the_others(arena: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "seed0_answer")
    monkeypatch.setenv("FAKE_NO_REFERENCE", "1")
    failed = arena.run(*ARENA)
    assert failed.exit_code == 1
    assert "1 cells failed:\n  answer, seed 0: axolotl train out/arena/recipes/seed0_answer.yml" in failed.output
    assert "torch.OutOfMemoryError: CUDA out of memory" in failed.output
    assert (
        failed.output.count("Acc given the reference thinking isn't measured: Error: the recipe has no test_datasets")
        == 1
    )
    assert sum(call[0] == "python" for call in arena.calls()) == 1
    (task,) = result(arena)["tasks"].values()
    # What both have is compared: one seed, and called so.
    assert {one["run"]: one["over"] for one in task["comparisons"]} == {
        "answer": "items",
        "anchored:0.1": "seeds and items",
    }
    monkeypatch.delenv("FAKE_FAIL")
    succeeded(arena.run(*ARENA))
    assert trained(arena) == ["seed0_answer"]


def test_dry_run_lists_the_cells_and_writes_nothing(arena: Place) -> None:
    options = ("--objectives", "answer,anchored:0.5+num_epochs=1", "--dry-run")
    listed = succeeded(arena.run(*ARENA, *options)).output
    assert [line.split()[:4] for line in listed.splitlines()[1:8]] == [
        ["stage1", "-", "sft-tag", "3"],
        *([name, seed, method, epochs] for seed in "01" for name, method, epochs in (
            ("control", "sft-tag", "3"), ("answer", "key-tag", "3"), ("anchored:0.5+num_epochs=1", "key-tag", "1"),
        )),
    ]  # fmt: skip
    assert not (arena.folder / "out").exists()
    found = json.loads(succeeded(arena.run(*ARENA, *options, "--json")).stdout)
    follows_the_documentation("arena --dry-run", found)
    assert found[1] == {
        "run": "control",
        "seed": "0",
        "method": "sft-tag",
        "steps": "3 epochs",
        "state": "not started",
        "output": "out/arena/seed0/control",
    }
    succeeded(arena.run(*ARENA, "--objectives", "answer", "--seeds", "1", "--reference-rows", "0"))
    listed = succeeded(arena.run(*ARENA, "--objectives", "answer", "--dry-run")).output
    assert ["control", "0", "sft-tag", "12", "finished", "out/arena/seed0/control"] in map(
        str.split, listed.splitlines()
    )


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ("control", "control is always a row of its own"),
        ("anchored", "name the weight of the thinking, above 0, as in anchored:0.1"),
        ("anchored:-1", "name the weight of the thinking, above 0"),
        ("anchored:0.1:0.2", "name the weight of the thinking, above 0"),
        ("anchored:nan", "name the weight of the thinking, above 0"),
        ("answer:x=1", "answer has no keys of its own"),
        ("sft/dft", "sft is no method of this recipe's form; there are sft-tag, key-tag"),
        ("../x", "is not of the form NAME"),
        ("answer+learning_rat=1", "learning_rat: no key of Axolotl or of this plugin; did you mean 'learning_rate'?"),
        ("dff", "sftkey_objective: 'dff' is not one of ce, segment-weights, dft"),
        ("dft:name=eaft", "'dft:name=eaft': its name stands first; leave name=... out"),
        *(
            (f"dft+{key}=1", f"'dft+{key}=1': the arena sets {key} of each run itself; leave it out")
            for key in ("seed", "output_dir", "base_model", "sftkey_after", "hub_model_id")
        ),
        ("answer+x", "'x' is not of the form key=value"),
        ("anchored:0.1,anchored-0.1", "would both be called"),
    ],
)
def test_an_objective_that_is_none_is_one_line_before_anything_is_written(
    arena: Place, objectives: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Axolotl would say them, whose import takes long.
    monkeypatch.setattr("sftkey.cli.arena.known_keys", lambda: {"learning_rate": None, "num_epochs": None})
    for form in ((), ("--dry-run",)):
        done = arena.run(*ARENA, "--objectives", objectives, *form)
        assert done.exit_code == 1
        assert message in done.output
        assert done.output.count("\n") == 1
    assert not (arena.folder / "out").exists()
    assert arena.calls() == []


def _changed(file: Path, change: dict[str, Any]) -> str:
    """A file of samples with other values in every line."""
    return "".join(json.dumps(json.loads(line) | change) + "\n" for line in file.read_text().splitlines())


def test_a_cell_whose_evaluation_is_damaged_fails_and_the_others_are_compared(arena: Place) -> None:
    quick = (*ARENA, "--reference-rows", "0")
    succeeded(arena.run(*quick))
    (results,) = (arena.folder / "out/arena/seed0/answer").rglob("results_*.json")
    (samples,) = results.parent.glob("samples_*.jsonl")
    files = {file: file.read_text() for file in (results, samples)}
    for damaged, text, message in (
        (samples, _changed(samples, {"acc": float("nan")}), "no item in it can be used"),
        (samples, _changed(samples, {"acc": 1.0}), "its samples give 1.0000 over 40"),
        (samples, None, "no samples of sftkey_gsm8k beside it"),
        (results, files[results][:60], "not valid JSON"),
        (
            results,
            re.sub(r'("(?:acc|fmt|score),none": )[0-9.]+', r"\1NaN", files[results]),
            "there are no items of sftkey_gsm8k",
        ),
        (results, files[results].replace('"sftkey_gsm8k"', '"another_task"'), "no samples of another_task beside it"),
    ):
        damaged.write_text(text) if text is not None else damaged.unlink()
        arena.calls()
        done = arena.run(*quick)
        assert done.exit_code == 1
        assert arena.calls() == []
        (line,) = result(arena)["failed"]
        assert line.startswith("answer, seed 0: ")
        assert message in line
        assert "to evaluate again" in line
        assert line in done.output
        (task,) = result(arena)["tasks"].values()
        assert {one["run"]: one["seeds"] for one in task["comparisons"]} == {"answer": [1], "anchored:0.1": [0, 1]}
        for file, before in files.items():
            file.write_text(before)
    results.unlink()
    succeeded(arena.run(*quick))
    assert result(arena)["failed"] == []


def test_a_seed_whose_results_are_those_of_another_seed_fails(arena: Place) -> None:
    quick = (*ARENA, "--reference-rows", "0")
    succeeded(arena.run(*quick))
    first, second = (arena.folder / f"out/arena/seed{seed}/answer/eval" for seed in (0, 1))
    shutil.rmtree(second / "some__model")
    shutil.copytree(first / "some__model", second / "some__model")
    done = arena.run(*quick)
    assert done.exit_code == 1
    (line,) = result(arena)["failed"]
    assert re.fullmatch(
        r"answer, seed 1: out/arena/seed1/\S+ evaluates out/arena/seed0/answer, not out/arena/seed1/answer; delete it .*",
        line,
    )
    assert line in done.output
    (task,) = result(arena)["tasks"].values()
    assert {one["run"]: one["seeds"] for one in task["comparisons"]} == {"answer": [0], "anchored:0.1": [0, 1]}
    # A whole cell of another seed is refused before anything is run.
    shutil.rmtree(second.parent)
    shutil.copytree(first.parent, second.parent)
    arena.calls()
    done = arena.run(*quick)
    assert done.exit_code == 1
    assert "out/arena/seed1/answer is finished with other settings (seed: 0 -> 1)" in done.output
    assert arena.calls() == []


@pytest.mark.parametrize("length", [{}, {"num_epochs": float("nan")}])
def test_a_damaged_recipe_for_equal_compute_is_one_line_and_the_rest_is_compared(
    arena: Place, monkeypatch: pytest.MonkeyPatch, length: dict[str, Any]
) -> None:
    seconds = {f"seed0_{name}": value for name, value in (("control", 60.0), ("answer", 40.0), ("anchored-0.1", 60.0))}
    monkeypatch.setenv("FAKE_SECONDS", json.dumps(seconds))
    quick = ("arena", "stage2.yml", "--output", "out/arena", "--seeds", "1", "--reference-rows", "0")
    recipes = arena.folder / "out/arena/recipes"
    recipes.mkdir(parents=True)
    (recipes / "seed0_answer-equal-compute.yml").write_text(yaml.safe_dump({"sftkey_method": "key-tag"} | length))
    done = arena.run(*quick)
    assert done.exit_code == 1
    assert trained(arena) == ["stage1", "seed0_control", "seed0_answer", "seed0_anchored-0.1"]
    (line,) = result(arena)["failed"]
    assert re.search(r"answer-equal-compute: .*seed0_answer-equal-compute.yml.* says? .*delete it|num_epochs", line)
    assert len(line.splitlines()) == 1
    (task,) = result(arena)["tasks"].values()
    assert {one["run"] for one in task["comparisons"]} == {"answer", "anchored:0.1"}


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "half": lambda text: text[: len(text) // 2],
    "no text": lambda text: bytes(range(256)),
    "empty": lambda text: b"",
    "a list": lambda text: b"[]",
    "no end": lambda text: b"[" * 200_000,
    "no number": lambda text: text.replace(b"1.0", b"NaN").replace(b"0.5", b"1e999"),
    "other values": lambda text: re.sub(rb": [^,\n{[]+(?=[,\n}])", b": 7", text),
    "a folder": lambda text: None,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_the_figures_are_right_or_it_is_one_line(arena: Place, damage: str) -> None:
    quick = ("arena", "stage2.yml", "--output", "out/arena", "--seeds", "1", "--objectives", "answer")
    succeeded(arena.run(*quick))
    good = result(arena)["tasks"]
    out, kept = arena.folder / "out", arena.folder / "kept"
    shutil.copytree(out, kept)
    files = [file for file in sorted(out.rglob("*")) if file.is_file() and "logs" not in file.parts]
    for file in random.Random(damage).sample(files, 4):
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        changed = DAMAGES[damage](file.read_bytes())
        if changed is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(changed)
        done = arena.run(*quick)
        assert done.exception is None or isinstance(done.exception, SystemExit), (file, done.exception)
        if done.exit_code:
            assert sum("Error: " in line for line in done.output.splitlines()) == 1, (file, done.output)
        else:
            assert result(arena)["tasks"] == good or "isn't measured" in done.output, file


def test_a_seed_without_a_well_formed_output_leaves_strict_json(arena: Place) -> None:
    quick = (*ARENA, "--reference-rows", "0", "--objectives", "answer")
    succeeded(arena.run(*quick))
    (results,) = (arena.folder / "out/arena/seed1/answer").rglob("results_*.json")
    content = json.loads(results.read_text())
    (row,) = content["results"].values()
    row |= {"fmt,none": 0.0, "score,none": 0.0, "acc,none": 0.0}
    results.write_text(json.dumps(content))
    (samples,) = results.parent.glob("samples_*.jsonl")
    samples.write_text(_changed(samples, {"fmt": 0.0, "acc": 0.0, "score": 0.0}))
    succeeded(arena.run(*quick))
    (task,) = result(arena)["tasks"].values()
    first, second = task["figures"]["answer"]["acc_well_formed"]["by_seed"]
    assert first > 0
    assert second is None
    assert "NaN" not in (arena.folder / "out/arena/arena.json").read_text()


@pytest.mark.parametrize("seeds", ["0", "-1", "1000000000", "1e9"])
def test_a_number_of_seeds_that_no_one_trains(arena: Place, seeds: str) -> None:
    done = arena.run("arena", "stage2.yml", "--seeds", seeds)
    assert done.exit_code == 2
    assert "Invalid value for '--seeds'" in done.output


def test_no_limit_of_steps_stays_none_at_equal_compute(arena: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load((arena.folder / "stage1.yml").read_text())
    (arena.folder / "stage1.yml").write_text(yaml.safe_dump(content | {"max_steps": -1}))
    monkeypatch.setenv("FAKE_SECONDS", json.dumps({"seed0_control": 60.0, "seed0_answer": 40.0}))
    options = ("arena", "stage1.yml", "--output", "out/arena", "--seeds", "1", "--objectives", "answer")
    done = succeeded(arena.run(*options, "--reference-rows", "0"))
    longer = recipe(arena, "seed0_answer-equal-compute")
    assert (longer["num_epochs"], longer["max_steps"]) == (4.5, -1)
    assert [line for line in done.output.splitlines() if line.startswith("[")] == [
        "[1/2] control, seed 0", "[2/2] answer, seed 0", "[1/1] answer-equal-compute, seed 0",
    ]  # fmt: skip


def test_an_output_that_is_no_folder_is_one_line(arena: Place) -> None:
    (arena.folder / "file").touch()
    done = arena.run("arena", "stage2.yml", "--output", "file/below")
    assert done.exit_code == 1
    assert done.output == ("Error: file/below/recipes: Not a directory; name another place, or change what is there\n")
    assert arena.calls() == []


def test_a_recipe_that_an_arena_cannot_take(arena: Place) -> None:
    (arena.folder / "no.yml").write_text("base_model: x\n")
    assert "no.yml: sftkey_method is None; an arena needs one of sft" in arena.run("arena", "no.yml").output
