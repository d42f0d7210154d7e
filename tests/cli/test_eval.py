"""``sftkey eval`` with a stand-in for lm_eval: the call, its figures, and what it refuses. ``sftkey tasks-path``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from support.axolotl_recipes import write_recipe
from support.documented_json import follows_the_documentation
from support.own_tasks import own_task
from support.run_place import STAGE1, Place, succeeded

STAGE = "out/stage1"


@pytest.fixture
def trained(place: Place) -> Place:
    """The place with its first stage trained."""
    succeeded(place.run("run", "stage1.yml"))
    place.calls()
    return place


@pytest.mark.parametrize("stage", ["stage1.yml", STAGE])
def test_it_is_the_call_of_run_eval(trained: Place, stage: str) -> None:
    options = {
        "limit": "4",
        "tasks": "sftkey_gsm8k,mine",
        "model-args": "a=1",
        "batch-size": "2",
        "include-path": "tasks",
    }
    own_task(trained.folder / "tasks", "mine")
    short = [word for name, value in options.items() for word in (f"--{name}", value)]
    long = [word for name, value in options.items() for word in (f"--eval-{name}", value)]
    for own, others in (([], []), (short, long), (["--model", "vllm"], ["--eval-backend", "vllm"])):
        plan = json.loads(succeeded(trained.run("run", "stage1.yml", "--eval", "--dry-run", "--json", *others)).stdout)
        printed = succeeded(trained.run("eval", stage, "--dry-run", *own)).stdout
        assert shlex.split(printed) == shlex.split(plan[0]["eval"])
        own_plan = json.loads(succeeded(trained.run("eval", stage, "--dry-run", "--json", *own)).stdout)
        assert own_plan == {"output": STAGE, "eval": plan[0]["eval"]}
        follows_the_documentation("eval --dry-run", own_plan)
    assert trained.calls() == []


def test_once_and_run_eval_knows_it(trained: Place) -> None:
    result = succeeded(trained.run("eval", STAGE))
    assert "0.5000  1.0000  0.6500" in result.stdout
    assert [call[:2] for call in trained.calls()] == [["lm_eval", "run"]]
    again = succeeded(trained.run("eval", "stage1.yml"))
    assert again.stdout == result.stdout
    assert "evaluated with these settings before" in again.stderr
    assert succeeded(trained.run("eval", STAGE, "--dry-run")).stdout == f"done, in {STAGE}/eval\n"
    succeeded(trained.run("run", "stage1.yml", "--eval"))
    assert trained.calls() == []
    assert "| sftkey_gsm8k | 4 | 0.5000 |" in Path(STAGE, "README.md").read_text()


def test_other_options_of_lm_eval_are_passed_on_and_make_it_another_evaluation(trained: Place) -> None:
    succeeded(trained.run("eval", STAGE))
    succeeded(trained.run("eval", STAGE, "--", "--num_fewshot", "2", "--seed=7"))
    assert trained.calls()[1][-3:] == ["--num_fewshot", "2", "--seed=7"]
    succeeded(trained.run("eval", STAGE, "--", "--num_fewshot", "2", "--seed=7"))
    assert trained.calls() == []


@pytest.mark.parametrize(
    "argument",
    (
        "--tasks --tasks=x --task -t -tx --model --mod -M --model_args=a=1 -a --limit -L5 -b1 --batch_size --include_path "
        "--output_path --out=x -o -ox"
    ).split(),
)
def test_what_it_sets_itself_is_not_passed_on(trained: Place, argument: str) -> None:
    result = trained.run("eval", STAGE, "--", "--seed", "1", argument)
    assert result.exit_code == 2
    assert "`sftkey eval` sets it; give its own option, before --" in " ".join(result.stderr.split())
    assert trained.calls() == []


@pytest.mark.parametrize(
    ("backend", "given", "expected"),
    [
        ("local-completions", "base_url=u", f"model={STAGE},tokenizer={STAGE},base_url=u"),
        ("local-completions", "base_url=u,model=served", f"tokenizer={STAGE},base_url=u,model=served"),
        ("local-completions", "base_url=u,model=m,tokenizer=t", "base_url=u,model=m,tokenizer=t"),
        ("local-completions", "pretrained=m,tokenizer_backend=tiktoken", "pretrained=m,tokenizer_backend=tiktoken"),
        ("local-chat-completions", "base_url=u", f"model={STAGE},base_url=u"),
        ("local-chat-completions", "model=m,base_url=u", "model=m,base_url=u"),
        ("vllm", "dtype=bfloat16", f"pretrained={STAGE},dtype=bfloat16"),
        ("hf", "", f"pretrained={STAGE}"),
    ],
)
def test_a_served_model_is_named_and_a_loaded_one_is_where_it_lies(
    trained: Place, backend: str, given: str, expected: str
) -> None:
    succeeded(trained.run("eval", STAGE, "--model", backend, "--model-args", given))
    (call,) = trained.calls()
    assert call[call.index("--model") + 1 : call.index("--model") + 4] == [backend, "--model_args", expected]


def test_an_adapter_on_its_base_model(trained: Place) -> None:
    lora = {**STAGE1, "adapter": "lora", "output_dir": "out/lora"}
    write_recipe(trained.folder / "lora.yml", lora)
    succeeded(trained.run("run", "lora.yml"))
    succeeded(trained.run("eval", "lora.yml"))
    call = trained.calls()[-1]
    assert call[call.index("--model_args") + 1] == "pretrained=Qwen/Qwen3-8B-Base,peft=out/lora,tokenizer=out/lora"


def test_what_is_not_finished_is_refused(place: Place) -> None:
    for stage in ("stage1.yml", "."):
        result = place.run("eval", stage)
        assert result.exit_code == 1
        assert "there is no" in result.stderr or "isn't there" in result.stderr
    assert place.run("eval", "no.yml").exit_code == 2


def test_a_failure_is_said(trained: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EVAL_FAILS", "1")
    result = trained.run("eval", STAGE)
    assert result.exit_code == 1
    assert f"lm_eval for {STAGE} ended with status 1" in result.stderr


def test_the_tasks_path_has_every_task(place: Place, repository: Path) -> None:
    printed = succeeded(place.run("tasks-path")).stdout
    assert {path.name for path in Path(printed.strip()).glob("*.yaml")} == {
        path.name for path in (repository / "tasks").glob("*.yaml")
    }
    assert (Path(printed.strip()) / "utils.py").is_file()
