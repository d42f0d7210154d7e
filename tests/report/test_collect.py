"""Which files become which stages, runs and evaluations; what is wrong with a file is said and the rest is kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sftkey.evaluation.samples import MAX_TEXT
from sftkey.report.collect import collect
from sftkey.report.runs import Run, runs_of
from sftkey.report.scores import scores_of
from sftkey.report.write import write_report
from sftkey.util import sources
from sftkey.util.text import shorten
from support.output_roots import Outputs, write_json

GOOD = [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)]


def runs_in(*roots: Path) -> dict[str, Run]:
    return {run.label(): run for run in runs_of(collect(roots))}


def notes_in(*roots: Path) -> str:
    collection = collect(roots)
    runs_of(collection)
    return "\n".join(collection.ledger.notes)


def test_strategies_follow_from_methods(outputs: Outputs) -> None:
    outputs.stage("sft", "sft")
    outputs.stage("stage1", "sft-tag")
    outputs.stage("key", "key-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.stage("plain2", "key", after="sft")
    outputs.stage("on", "sft-tag", after="stage1")
    found = runs_in(outputs.root)
    assert list(found) == ["SFT", "SFT-Tag", "Key-Tag", "SFTKey-Tag", "SFTKey", "SFT-Tag then SFT-Tag"]
    assert {run.model for run in found.values()} == {"Qwen3-8B-Base"}
    assert [stage.output_dir.name for stage in found["SFTKey-Tag"].stages] == ["stage1", "stage2"]


def test_training_without_the_context_gradient_is_a_strategy_of_its_own(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1", sftkey_context_grad=True)
    outputs.stage("without", "key-tag", after="stage1", sftkey_context_grad=False)
    found = {run.directory.name: run.label() for run in runs_of(collect([outputs.root])) if run.directory}
    assert found == {
        "stage1": "SFT-Tag",
        "stage2": "SFTKey-Tag",
        "without": "SFTKey-Tag without context gradient",
    }


@pytest.mark.parametrize("as_argument", ["absolute", "relative", "trailing slash", "mapping"])
def test_an_evaluation_belongs_to_the_checkpoint_that_it_names(outputs: Outputs, as_argument: str) -> None:
    directory = outputs.stage("a/stage1", "sft-tag")
    outputs.stage("b/stage1", "sft-tag", seed=1)
    name = {"absolute": str(directory), "trailing slash": "outputs/a/stage1/"}.get(as_argument, "outputs/a/stage1")
    results = outputs.evaluate(name, "sftkey_gsm8k", GOOD, where="elsewhere")
    if as_argument == "mapping":
        content = json.loads(results.read_text())
        content["config"]["model_args"] = {"pretrained": name}
        write_json(results, content)
    evaluated = [run for run in runs_in(outputs.root).values() if run.evaluations]
    assert [run.directory for run in evaluated] == [directory]
    assert list(evaluated[0].evaluations) == ["gsm8k"]


def test_an_evaluation_in_the_output_directory_belongs_to_it(outputs: Outputs) -> None:
    directory = outputs.stage("stage1", "sft-tag")
    outputs.evaluate("/mnt/other/machine", "sftkey_gsm8k", GOOD, where="stage1/lm_eval")
    assert runs_in(outputs.root)["SFT-Tag"].evaluations["gsm8k"].path.is_relative_to(directory)


def test_the_untrained_model_is_a_row_of_its_own(outputs: Outputs) -> None:
    outputs.stage("sft", "sft")
    outputs.evaluate("Qwen/Qwen3-8B-Base", "sftkey_gsm8k_plain", GOOD, where="sft/lm_eval")
    found = runs_in(outputs.root)
    assert list(found) == ["Base", "SFT"]
    assert not found["SFT"].evaluations


def test_a_moved_root_is_still_understood(outputs: Outputs, tmp_path: Path) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", GOOD)
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(outputs.root, moved)
    shutil.rmtree(outputs.root)
    assert "gsm8k" in runs_in(moved)["SFTKey-Tag"].evaluations


def test_a_first_stage_outside_the_roots_is_found(outputs: Outputs) -> None:
    outputs.stage("a/stage1", "sft-tag")
    second = outputs.stage("b/stage2", "key-tag", after="a/stage1")
    assert len(runs_in(second)["SFTKey-Tag"].stages) == 2


def test_a_first_stage_that_is_gone_still_names_the_strategy(outputs: Outputs) -> None:
    first = outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    shutil.rmtree(first)
    assert list(runs_in(outputs.root)) == ["SFTKey-Tag"]
    assert "which isn't there" in notes_in(outputs.root)


def test_a_first_stage_trained_again_is_not_taken_for_the_old_one(outputs: Outputs) -> None:
    first = outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    shutil.rmtree(first)
    outputs.stage("stage1", "sft-tag")
    assert len(runs_in(outputs.root)["SFTKey-Tag"].stages) == 1
    assert "was trained again after" in notes_in(outputs.root)


def test_intermediate_checkpoints_and_strangers_are_named(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.evaluate("outputs/stage1/checkpoint-10", "sftkey_gsm8k", GOOD)
    outputs.evaluate("someone/else", "sftkey_gsm8k", GOOD)
    outputs.evaluate("outputs/stage1/merged", "sftkey_openbookqa", GOOD)
    assert list(runs_in(outputs.root)["SFT-Tag"].evaluations) == ["openbookqa"]
    notes = notes_in(outputs.root)
    assert "an intermediate checkpoint" in notes
    assert "evaluates someone/else, the output of no stage" in notes


def test_unfinished_stages_are_shown_and_not_counted(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag", finished=False)
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    run = runs_in(outputs.root)["SFT-Tag"]
    assert not run.finished
    assert not run.evaluations
    assert len(run.stages[0].log)  # of its last checkpoint
    assert "has not finished; its evaluation" in notes_in(outputs.root)
    row = scores_of([run]).rows[0]
    assert row.missing == {"gsm8k": "training has not finished"}


def test_a_running_second_stage_goes_on_where_its_first_one_ended(outputs: Outputs) -> None:
    first = outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1", finished=False)
    found = runs_in(outputs.root)
    assert list(found) == ["SFT-Tag", "SFTKey-Tag"]
    running = found["SFTKey-Tag"]
    assert (running.model, running.finished) == ("Qwen3-8B-Base", False)
    assert [stage.output_dir.name for stage in running.stages] == ["stage1", "stage2"]
    rows = scores_of(list(found.values())).rows
    assert [(row.label, row.missing) for row in rows][1] == ("SFTKey-Tag", {"gsm8k": "training has not finished"})
    shutil.rmtree(first)
    assert list(runs_in(outputs.root)) == ["unknown method then Key-Tag"]
    assert "which isn't there" in notes_in(outputs.root)


def test_runs_that_differ_in_a_setting_are_told_apart_by_it(outputs: Outputs) -> None:
    for seed in (1, 2):
        outputs.stage(f"seed{seed}/sft", "sft", seed=seed)
        outputs.stage(f"seed{seed}/tag", "sft-tag", seed=seed, learning_rate=seed)
        outputs.evaluate(f"outputs/seed{seed}/sft", "sftkey_gsm8k_plain", GOOD)
        outputs.evaluate(f"outputs/seed{seed}/tag", "sftkey_gsm8k", GOOD)
    outputs.stage("again/key", "key-tag")
    outputs.stage("more/key", "key-tag")
    outputs.stage("plain", "key-tag", base_model="org/other")
    outputs.stage("dft", "key-tag", base_model="org/other", sftkey_objective="dft")
    labels = set(runs_in(outputs.root))
    assert labels == {
        "SFT, seed 1", "SFT, seed 2", "SFT-Tag, learning_rate 1, seed 1", "SFT-Tag, learning_rate 2, seed 2",
        "Key-Tag, again/key", "Key-Tag, more/key", "Key-Tag, no sftkey_objective", "Key-Tag, sftkey_objective dft",
    }  # fmt: skip


def test_other_data_than_the_columns_is_said(outputs: Outputs) -> None:
    outputs.stage("sft", "sft", data="gsm8k")
    outputs.stage("own", "sft", base_model="own/model", data="rows.jsonl")
    for task in ("sftkey_gsm8k_plain", "sftkey_openbookqa_plain"):
        outputs.evaluate("outputs/sft", task, GOOD)
    outputs.evaluate("outputs/own", "my_task", GOOD)
    rows = scores_of(runs_of(collect([outputs.root]))).rows
    assert {(row.label, *row.evaluations) for row in rows} == {
        ("SFT", "my_task"),
        ("SFT", "gsm8k"),
        ("SFT, trained on GSM8K", "openbookqa"),
    }


def test_of_several_evaluations_the_fullest_and_latest_counts(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    full = outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD * 2, date="2026-01-01T00-00-00.000000")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD, date="2026-01-05T00-00-00.000000")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k_plain", GOOD * 5, date="2026-01-06T00-00-00.000000")
    assert runs_in(outputs.root)["SFT-Tag"].evaluations["gsm8k"].path == full
    notes = notes_in(outputs.root)
    assert notes.count("is not in the tables") == 2
    assert "2026-01-05" in notes


def test_samples_are_read_with_their_records(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    evaluation = runs_in(outputs.root)["SFT-Tag"].evaluations["gsm8k"]
    assert evaluation.items is not None
    assert evaluation.items[["acc", "fmt", "extracted", "failure"]].values.tolist() == [
        [1, 1, "0", ""],
        [0, 1, "2", ""],
        [1, 0, "2", "answer cut off"],
    ]
    assert evaluation.items["score"].tolist() == pytest.approx([1.0, 0.3, 0.7])
    assert evaluation.settings["lm-eval"] == "0.4.11"


def test_the_same_question_twice_is_two_items(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    results = outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    samples = next(results.parent.glob("samples_*"))
    line = samples.read_text().splitlines()[0]
    samples.write_text("\n".join([line] * 3))
    evaluation = runs_in(outputs.root)["SFT-Tag"].evaluations["gsm8k"]
    assert evaluation.items is None  # three right items don't agree with what was reported
    content = json.loads(results.read_text())
    content["results"]["sftkey_gsm8k"] |= {"acc,none": 1.0, "fmt,none": 1.0, "score,none": 1.0}
    write_json(results, content)
    evaluation = runs_in(outputs.root)["SFT-Tag"].evaluations["gsm8k"]
    assert evaluation.items is not None
    assert evaluation.items["key"].nunique() == 3


def test_samples_that_disagree_with_the_results_are_not_used(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    results = outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    samples = next(results.parent.glob("samples_*"))
    samples.write_text("\n".join([*samples.read_text().splitlines()[:2], '{"acc": ', '{"acc": "x", "fmt": 1}']))
    assert runs_in(outputs.root)["SFT-Tag"].evaluations["gsm8k"].items is None
    notes = notes_in(outputs.root)
    assert "lines that can't be used: 2 (line 3: not valid JSON" in notes
    assert "acc 0.6667 over 3 items, its samples give 0.5000 over 2" in notes


def test_groups_and_other_tasks_are_left_out(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    results = outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    content = json.loads(results.read_text())
    content["results"]["sftkey"] = content["results"]["sftkey_gsm8k"]
    content["group_subtasks"] = {"sftkey": ["sftkey_gsm8k"], "sftkey_gsm8k": []}
    content["results"]["mmlu"] = {"acc,none": 0.5}
    write_json(results, content)
    assert list(runs_in(outputs.root)["SFT-Tag"].evaluations) == ["gsm8k"]
    assert "no acc, fmt and score for mmlu" in notes_in(outputs.root)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("sftkey_stage.json", b'{"schema": 1, ', "not valid JSON"),
        ("sftkey_stage.json", b"[1]", "holds list"),
        ("sftkey_stage.json", b"\xff\xfe\x00", "not UTF-8"),
        ("sftkey_stage.json", b'{"schema": 1, "method": "sft"}', "finished_at: Field required"),
        ("sftkey_stage.json", b"[" * 100_000, "nested too deeply"),
        (
            "sftkey_stage.json",
            json.dumps({"finished_at": "x", "method": "sft", "base_model": "x" * 10_000}).encode(),
            "base_model: String should have at most 4096 characters",
        ),
        ("sftkey_stage.json", b"", "not valid JSON"),
        ("trainer_state.json", b'{"log_history": 3}', "log_history"),
        ("results_2026-01-02T00-00-00.json", b'{"results": 3}', "no results"),
        ("sftkey_run.json", b"null", "holds NoneType"),
    ],
)
def test_a_bad_file_is_named_and_the_rest_is_kept(outputs: Outputs, name: str, content: bytes, reason: str) -> None:
    outputs.stage("good", "sft-tag")
    (outputs.root / "bad").mkdir()
    (outputs.root / "bad" / name).write_bytes(content)
    collection = collect([outputs.root])
    (skipped,) = collection.ledger.skipped
    assert skipped.path == outputs.root / "bad" / name
    assert skipped.skipped is not None
    assert reason in skipped.skipped
    assert "SFT-Tag" in {run.label() for run in runs_of(collection)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["sftkey_stage.json", "results_2026-01-02T00-00-00.json"])
def test_pipes_and_devices_are_not_waited_for(outputs: Outputs, name: str) -> None:
    outputs.stage("good", "sft-tag")
    for folder in ("pipe", "device"):
        (outputs.root / folder).mkdir()
    os.mkfifo(outputs.root / "pipe" / name)
    (outputs.root / "device" / name).symlink_to("/dev/zero")
    collection = collect([outputs.root])
    assert {(file.path.parent.name, file.skipped) for file in collection.ledger.skipped} == {
        ("pipe", "not a regular file"),
        ("device", "not a regular file"),
    }
    assert "SFT-Tag" in {run.label() for run in runs_of(collection)}


def test_samples_that_are_a_pipe_are_skipped(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    results = outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    samples = next(results.parent.glob("samples_*"))
    samples.unlink()
    os.mkfifo(samples)
    collection = collect([outputs.root])
    assert [(file.path, file.skipped) for file in collection.ledger.skipped] == [(samples, "not a regular file")]
    assert runs_of(collection)[0].evaluations["gsm8k"].items is None


def test_a_folder_that_cannot_be_entered_is_named(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs.stage("good", "sft-tag")
    locked = outputs.stage("locked", "key-tag")
    exists = Path.exists

    def refuse(path: Path, **options: Any) -> bool:
        if path.parent == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", refuse)
    assert list(runs_in(outputs.root)) == ["SFT-Tag"]
    assert f"{locked} can't be read: Permission denied." in notes_in(outputs.root)


def test_files_are_bounded(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs.stage("stage1", "sft-tag")
    results = outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD, texts={1: "x" * 100_000})
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 50_000)
    assert "lines that can't be used: 1 (line 2: longer than 50,000 bytes)" in notes_in(outputs.root)
    monkeypatch.setattr(sources, "MAX_JSON_BYTES", 10)
    assert results in {file.path for file in collect([outputs.root]).ledger.skipped}
    text = shorten("a" * MAX_TEXT + "b" * MAX_TEXT, MAX_TEXT)
    assert len(text) < MAX_TEXT + 60
    assert f"{MAX_TEXT:,} characters left out" in text


def test_only_results_without_samples(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD, samples=False)
    evaluation = runs_in(outputs.root)["SFT-Tag"].evaluations["gsm8k"]
    assert evaluation.items is None
    assert evaluation.reported["acc"] == pytest.approx(2 / 3)
    assert "run lm_eval with --log_samples" in notes_in(outputs.root)


JUNK: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.just("\ud800"), st.just([[[]]]), st.just(10**400),
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_content_of_a_file_stops_the_collection(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any value anywhere in any of the files may be replaced by junk."""
    outputs = Outputs(tmp_path_factory.mktemp("fuzz") / "outputs")
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", GOOD)
    paths = sorted(path for path in outputs.root.rglob("*.json*") if path.is_file())
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3)):
        lines = path.read_text().splitlines()
        number = data.draw(st.integers(0, len(lines) - 1))
        lines[number] = json.dumps(_with_junk(json.loads(lines[number]), data))
        path.write_text("\n".join(lines))
    collection = collect([outputs.root])
    scores_of(runs_of(collection))


def _with_junk(value: Any, data: st.DataObject) -> Any:
    """The same JSON value with one part of it, at any depth, replaced."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 5)):
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: _with_junk(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 5)):
        index = data.draw(st.integers(0, len(value) - 1))
        return [*value[:index], _with_junk(value[index], data), *value[index + 1 :]]
    return data.draw(JUNK)


def test_an_empty_root_is_reported_as_such(tmp_path: Path) -> None:
    written = write_report([tmp_path], tmp_path / "report")
    assert written.empty
    assert "Nothing to show yet" in written.page.read_text()


def test_replaced_weights_and_evaluation_rows_that_were_trained_on_are_noted(tmp_path: Path) -> None:
    from sftkey.stages.manifest import record_files

    stage = Outputs(tmp_path).stage("one", "sft-tag")
    (stage / "model.safetensors").write_text("w")
    path = stage / "sftkey_stage.json"
    weights = {name: record.model_dump() for name, record in record_files(stage, ["model.safetensors"]).items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": weights}))
    assert collect([tmp_path]).ledger.notes == []
    lineage = {"evaluated_before": 51, "rows_evaluated": 77}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lineage": lineage}))
    (stage / "model.safetensors").write_text("v")
    replaced, known = collect([tmp_path]).ledger.notes
    assert "model.safetensors isn't what this stage finished with" in replaced
    assert "51 of its 77 evaluation rows" in known
