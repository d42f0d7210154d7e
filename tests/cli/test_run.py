"""``sftkey run`` with stand-ins for what takes long: what is started, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sftkey.evaluation.task_files import tasks_folder
from sftkey.stages.evaluate import EVALUATION_FILE
from sftkey.stages.lock import RUN_LOCK, OutputLock
from support.axolotl_recipes import write_recipe
from support.documented_json import follows_the_documentation
from support.own_tasks import own_task
from support.run_place import STAGE1, Place, succeeded


def test_each_stage_once(place: Place) -> None:
    result = succeeded(
        place.run("run", "stage2.yml", "--num-epochs", "1", "--launcher", "torchrun", "--", "--nproc_per_node", "8")
    )
    after = ["--num-epochs", "1", "--launcher", "torchrun", "--", "--nproc_per_node", "8"]
    assert place.calls() == [["axolotl", "train", f"stage{n}.yml", *after] for n in (1, 2)]
    assert "out/stage2  key-tag     12  0.2500  not evaluated" in result.output
    result = succeeded(place.run("run", "stage2.yml", "--num-epochs=1"))
    assert place.calls() == []
    assert "Stage 1 of 2, stage1.yml (sft-tag): finished 1, in out/stage1" in result.output


def test_evaluation_once(place: Place) -> None:
    result = succeeded(place.run("run", "stage2.yml", "--eval", "--eval-limit", "4", "--eval-backend", "vllm"))
    train1, train2, eval1, eval2 = place.calls()
    assert (train1[2], train2[2]) == ("stage1.yml", "stage2.yml")
    assert eval2 == [
        *("lm_eval", "run", "--model", "vllm", "--model_args", "pretrained=out/stage2", "--tasks", "sftkey_gsm8k"),
        *("--apply_chat_template", "--log_samples", "--batch_size", "auto", "--output_path", "out/stage2/eval"),
        *("--include_path", str(tasks_folder()), "--limit", "4"),
    ]
    assert eval1[5] == "pretrained=out/stage1"
    row = next(line for line in result.output.splitlines() if line.startswith("out/stage2"))
    assert row.split() == ["out/stage2", "key-tag", "12", "0.2500", "sftkey_gsm8k", "4", "0.5000", "1.0000", "0.6500"]
    assert "| key-tag | sftkey_gsm8k | 4 | 0.5000 | 1.0000 | 0.6500 |" in Path("out/stage2/README.md").read_text()
    succeeded(place.run("run", "stage2.yml", "--eval", "--eval-limit", "4", "--eval-backend", "vllm"))
    assert place.calls() == []
    # Another limit is another evaluation; both stay.
    succeeded(place.run("run", "stage2.yml", "--eval"))
    assert len(place.calls()) == 2
    noted = json.loads((place.folder / "out" / "stage2" / "eval" / EVALUATION_FILE).read_text())["evaluations"]
    assert [entry["key"]["limit"] for entry in noted] == [4.0, None]


def test_an_evaluation_of_weights_that_are_no_longer_there_does_not_count(place: Place) -> None:
    succeeded(place.run("run", "stage1.yml", "--eval"))
    (place.folder / "out" / "stage1" / "sftkey_stage.json").unlink()
    place.calls()
    result = succeeded(place.run("run", "stage1.yml", "--eval"))
    assert [call[0] for call in place.calls()] == ["axolotl", "lm_eval"]
    assert result.output.count("sftkey_gsm8k") == 1


def test_untagged_methods_have_tasks_of_their_own_and_adapters_their_base_model(place: Place) -> None:
    write_recipe(
        place.folder / "lora.yml", {**STAGE1, "sftkey_method": "sft", "adapter": "lora", "output_dir": "out/lora"}
    )
    succeeded(place.run("run", "lora.yml", "--eval"))
    call = place.calls()[-1]
    assert call[call.index("--tasks") + 1] == "sftkey_gsm8k_plain"
    assert call[call.index("--model_args") + 1] == "pretrained=Qwen/Qwen3-8B-Base,peft=out/lora,tokenizer=out/lora"


def test_data_of_another_package_need_named_tasks_before_anything_is_trained(place: Place) -> None:
    own = {**STAGE1, "datasets": [{"path": "my/rows", "type": "support.their_lab.commonsenseqa"}]}
    write_recipe(place.folder / "own.yml", own)
    result = place.run("run", "own.yml", "--eval")
    assert result.exit_code == 1
    assert "has no task of its own; name the tasks with --eval-tasks" in result.output
    assert place.calls() == []
    own_task(place.folder / "tasks", "my_task")
    succeeded(place.run("run", "own.yml", "--eval", "--eval-tasks", "my_task", "--eval-include-path", "tasks"))
    assert place.calls()[-1][-2:] == ["--include_path", "tasks"]


def test_dry_run_starts_nothing_and_prints_the_commands(place: Place) -> None:
    result = succeeded(
        place.run("run", "stage2.yml", "--dry-run", "--eval", "--seed", "7", "--", "--num_processes", "2")
    )
    lines = [line.strip() for line in result.output.splitlines()]
    assert "train   axolotl train stage1.yml --seed 7 -- --num_processes 2" in lines
    assert "train   axolotl train stage2.yml --seed 7 -- --num_processes 2" in lines
    assert any(line.startswith("eval    lm_eval run --model hf --model_args pretrained=out/stage2") for line in lines)
    assert place.calls() == []
    assert not (place.folder / "out").exists()


def test_help_shows_the_usage_on_a_line_of_its_own(place: Place) -> None:
    lines = [line.strip() for line in succeeded(place.run("run", "--help")).output.splitlines()]
    assert "sftkey run RECIPE [AXOLOTL OPTIONS] [--eval ...] [-- LAUNCHER ARGUMENTS]" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-ratee", "1"], "no option --learning-ratee; did you mean --learning-rate?"),
        (["--dryrun"], "did you mean --dry-run?"),
        (["--nproc_per_node", "8"], "The launcher's options come after --"),
        (["--sftkey-tags", "tokens"], "set sftkey_tags in the recipe"),
        (["other.yml"], "unexpected argument 'other.yml'"),
        (["--num-epochs"], "--num-epochs needs a value"),
        (["--sweep", "s.yml"], "a sweep has no next stage"),
        (["--base-model", "x"], "would each need another value"),
        (["--eval-limit", "4"], "--eval-limit does nothing without --eval"),
    ],
)
def test_refused(place: Place, arguments: list[str], message: str) -> None:
    result = place.run("run", "stage2.yml", *arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert place.calls() == []


def test_a_failure_ends_the_run_and_the_next_one_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "stage2")
    result = place.run("run", "stage2.yml")
    assert result.exit_code == 1
    assert "axolotl train stage2.yml ended with status 1" in result.output
    monkeypatch.delenv("FAKE_FAIL")
    place.calls()
    succeeded(place.run("run", "stage2.yml"))
    assert [call[2] for call in place.calls()] == ["stage2.yml"]


def test_status_0_without_a_marker_is_not_finished(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_INTERRUPTED", "stage1.yml")
    result = place.run("run", "stage2.yml")
    assert result.exit_code == 1
    assert "ended with status 0 but left no sftkey_stage.json" in result.output
    assert [call[2] for call in place.calls()] == ["stage1.yml"]


def test_failed_evaluation(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EVAL_FAILS", "1")
    assert "lm_eval for out/stage1 ended with status 1" in place.run("run", "stage1.yml", "--eval").output
    monkeypatch.delenv("FAKE_EVAL_FAILS")
    place.calls()
    succeeded(place.run("run", "stage1.yml", "--eval"))
    assert [call[0] for call in place.calls()] == ["lm_eval"]


def test_two_runs_in_one_place(place: Place) -> None:
    with OutputLock("out/stage1", RUN_LOCK):
        result = place.run("run", "stage2.yml")
    assert result.exit_code == 1
    assert "out/stage1 is in use by another run (process" in result.output
    assert place.calls() == []


def test_json(place: Place) -> None:
    plan = json.loads(succeeded(place.run("run", "stage2.yml", "--dry-run", "--json", "--eval")).stdout)
    assert [stage["recipe"] for stage in plan] == ["stage1.yml", "stage2.yml"]
    assert plan[1]["train"] == "axolotl train stage2.yml"
    assert plan[1]["eval"].startswith("lm_eval run --model hf --model_args pretrained=out/stage2")
    follows_the_documentation("run --dry-run", plan)
    assert plan[1]["state"] == "starts from the beginning, into out/stage2"
    result = succeeded(place.run("run", "stage2.yml", "--json"))
    first = {"stage": "out/stage1", "method": "sft-tag", "steps": 12, "loss": 0.25, "task": "not evaluated"}
    nothing = {"items": None, "acc": None, "fmt": None, "score": None}
    assert json.loads(result.stdout) == [
        {**first, **nothing},
        {**first, "stage": "out/stage2", "method": "key-tag", **nothing},
    ]
    assert "Stage 2 of 2, stage2.yml (key-tag): starts" in result.stderr
    follows_the_documentation("run", json.loads(result.stdout))
    quiet = succeeded(place.run("run", "stage2.yml", "--json", "--eval", "-q"))
    follows_the_documentation("run", json.loads(quiet.stdout))
    assert quiet.stderr == ""
    assert {(row["task"], row["items"], row["acc"]) for row in json.loads(quiet.stdout)} == {("sftkey_gsm8k", 4, 0.5)}
    done = json.loads(succeeded(place.run("run", "stage2.yml", "--json", "--eval", "--dry-run")).stdout)
    assert [(stage["train"], stage["eval"]) for stage in done] == [
        (None, "done, in out/stage1/eval"),
        (None, "done, in out/stage2/eval"),
    ]


def test_full_weights_after_an_adapter_are_merged_in_between(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(place.folder / "lora1.yml", {**STAGE1, "adapter": "lora", "output_dir": "out/lora1"})
    full2 = {**STAGE1, "sftkey_method": "key-tag", "sftkey_after": "lora1.yml", "output_dir": "out/full2"}
    # The merged folder may be named, or left to the command.
    for base in ("out/lora1/merged", "out/lora1", None):
        write_recipe(place.folder / "full2.yml", {k: v for k, v in {**full2, "base_model": base}.items() if v})
        result = succeeded(place.run("run", "full2.yml", "--dry-run"))
        assert "merge   axolotl merge-lora lora1.yml" in result.output
    monkeypatch.setenv("FAKE_MERGE_FAILS", "1")
    failed = place.run("run", "full2.yml")
    assert failed.exit_code == 1
    assert "axolotl merge-lora lora1.yml ended with status 1" in failed.output
    assert [call[1:3] for call in place.calls()] == [["train", "lora1.yml"], ["merge-lora", "lora1.yml"]]
    monkeypatch.delenv("FAKE_MERGE_FAILS")
    succeeded(place.run("run", "full2.yml", "--eval"))
    calls = place.calls()
    assert [call[1:3] for call in calls[:2]] == [["merge-lora", "lora1.yml"], ["train", "full2.yml"]]
    assert calls[-1][calls[-1].index("--model_args") + 1] == "pretrained=out/full2"
    marker = json.loads((place.folder / "out" / "full2" / "sftkey_stage.json").read_text())
    assert marker["base_model"] == "out/lora1/merged"
    succeeded(place.run("run", "full2.yml"))
    assert place.calls() == []
