"""``axolotl sftkey run`` and ``matrix`` with stand-ins for what takes long: what is started, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from sftkey.cli.main import sftkey
from sftkey.stages.evaluate import EVALUATION_FILE
from sftkey.stages.lock import RUN_LOCK, OutputLock
from support.axolotl_recipes import stage2_of, write_recipe
from support.fake_commands import install

STAGE1: dict[str, Any] = {
    "base_model": "Qwen/Qwen3-8B-Base",
    "output_dir": "out/stage1",
    "plugins": ["sftkey.SFTKeyPlugin"],
    "sftkey_method": "sft-tag",
    "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
    "learning_rate": 1e-5,
    "num_epochs": 3,
}


class Place:
    """A working directory with two recipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record.jsonl"

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(sftkey, list(arguments), prog_name="axolotl sftkey")

    def calls(self) -> list[list[str]]:
        """What has been started since the last look."""
        if not self.record.exists():
            return []
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        seen, self._seen = getattr(self, "_seen", 0), len(lines)
        return lines[seen:]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    install(tmp_path / "bin", tmp_path / "record.jsonl", monkeypatch)
    write_recipe(tmp_path / "stage1.yml", STAGE1)
    write_recipe(tmp_path / "stage2.yml", stage2_of(STAGE1))
    return Place(tmp_path)


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


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
        *("--limit", "4"),
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


def test_own_data_needs_named_tasks_before_anything_is_trained(place: Place) -> None:
    own = {**STAGE1, "datasets": [{"path": "my/rows", "type": "sftkey.datasets.columns"}]}
    write_recipe(place.folder / "own.yml", own)
    result = place.run("run", "own.yml", "--eval")
    assert result.exit_code == 1
    assert "has no task of its own; name the tasks with --eval-tasks" in result.output
    assert place.calls() == []
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
    assert "axolotl sftkey run RECIPE [AXOLOTL OPTIONS] [--eval ...] [-- LAUNCHER ARGUMENTS]" in lines


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


MATRIX = (
    "matrix",
    "--models",
    "qwen2_5_1_5b,smollm3_3b",
    "--datasets",
    "gsm8k",
    "--strategies",
    "SFT-Tag,sftkey-tag,SFT",
)


def test_matrix_trains_a_shared_stage_once(place: Place) -> None:
    result = succeeded(place.run(*MATRIX, "--eval", "--set", "num_epochs=1"))
    calls = place.calls()
    trained = [Path(call[2]).name for call in calls if call[0] == "axolotl"]
    assert trained == [
        f"{model}_{stage}.yml" for model in ("qwen2_5_1_5b", "smollm3_3b") for stage in ("stage1", "stage2", "sft")
    ]
    assert len(calls) == 12
    recipe = yaml.safe_load((place.folder / "outputs/recipes/smollm3_3b_stage2.yml").read_text())
    assert recipe["num_epochs"] == 1
    assert recipe["output_dir"] == "outputs/smollm3_3b/gsm8k/stage2"
    rows = [line.split() for line in result.output.splitlines() if line.startswith("smollm3_3b ")]
    assert rows == [
        ["smollm3_3b", "gsm8k", "SFT-Tag", "trained", "sftkey_gsm8k", "0.5000", "1.0000", "0.6500"],
        ["smollm3_3b", "gsm8k", "SFTKey-Tag", "trained", "sftkey_gsm8k", "0.5000", "1.0000", "0.6500"],
        ["smollm3_3b", "gsm8k", "SFT", "trained", "sftkey_gsm8k_plain", "0.5000", "1.0000", "0.6500"],
    ]
    succeeded(place.run(*MATRIX, "--eval", "--set", "num_epochs=1"))
    assert place.calls() == []
    result = place.run(*MATRIX, "--eval", "--set", "num_epochs=2")
    assert "exist and say something else" in result.output


def test_matrix_goes_on_past_a_failure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "qwen2_5_1_5b_stage1")
    result = place.run(*MATRIX)
    assert result.exit_code == 1
    assert [Path(call[2]).stem for call in place.calls()] == [
        *("qwen2_5_1_5b_stage1", "qwen2_5_1_5b_sft", "smollm3_3b_stage1", "smollm3_3b_stage2", "smollm3_3b_sft")
    ]
    assert "2 of 6 cells failed:" in result.output
    for method in ("SFT-Tag", "SFTKey-Tag"):
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"  qwen2_5_1_5b gsm8k {method}:")]
        assert "torch.OutOfMemoryError: CUDA out of memory" in line
        assert "outputs/logs/qwen2_5_1_5b_stage1.log" in line
    monkeypatch.delenv("FAKE_FAIL")
    succeeded(place.run(*MATRIX))
    assert [Path(call[2]).stem for call in place.calls()] == ["qwen2_5_1_5b_stage1", "qwen2_5_1_5b_stage2"]


def test_matrix_dry_run(place: Place) -> None:
    result = succeeded(place.run(*MATRIX, "--dry-run", "--output-root", "elsewhere"))
    assert "axolotl train elsewhere/recipes/smollm3_3b_stage2.yml" in result.output
    assert result.output.count("not started (shared)") == 2
    assert "6 commands to run" in result.output
    assert not (place.folder / "elsewhere").exists()
    assert place.calls() == []


def test_methods_is_the_hidden_old_name_of_strategies(place: Place) -> None:
    old = ["--methods" if argument == "--strategies" else argument for argument in MATRIX]
    assert succeeded(place.run(*old, "--dry-run")).output == succeeded(place.run(*MATRIX, "--dry-run")).output
    assert "--methods" not in succeeded(place.run("matrix", "--help")).output
    assert "give one of them" in place.run(*MATRIX, "--methods", "SFT").output


def test_slurm_script(place: Place) -> None:
    arguments = ("--slurm", "--slurm-option=--gpus-per-node=8", "--eval", "--launcher", "torchrun")
    result = succeeded(place.run(*MATRIX, *arguments, "--", "--nproc_per_node", "8"))
    assert "bash outputs/matrix.sh" in result.output
    assert place.calls() == []
    sbatch = place.folder / "bin" / "sbatch"
    sbatch.write_text('#!/bin/bash\nprintf "%s\\n" "$*" >> sbatch.txt\necho "71$(wc -l < sbatch.txt);cluster"\n')
    sbatch.chmod(0o755)
    axolotl = place.folder / "bin" / "axolotl"
    axolotl.write_text('#!/bin/bash\necho "$*"\n')
    script = (place.folder / "outputs" / "matrix.sh").read_text()
    assert "#SBATCH --gpus-per-node=8\n" in script
    subprocess.run(["bash", "outputs/matrix.sh"], check=True)
    # The first stages are two stage1 and two sft; a stage2 waits for the stage1 of the same index.
    assert (place.folder / "sbatch.txt").read_text().splitlines() == [
        "--parsable --array=0-3 --export=ALL,SFTKEY_STAGE=1 outputs/matrix.sh",
        "--parsable --array=0,2 --dependency=aftercorr:711 --kill-on-invalid-dep=yes --export=ALL,SFTKEY_STAGE=2 "
        "outputs/matrix.sh",
    ]
    started = {
        (stage, index): subprocess.run(
            ["bash", "outputs/matrix.sh"],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": index, "SFTKEY_STAGE": stage},
            cwd=place.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for stage, index in (("1", "0"), ("2", "0"), ("1", "1"), ("2", "2"))
    }
    options = "--launcher torchrun --eval --eval-backend hf -- --nproc_per_node 8"
    assert started == {
        ("1", "0"): f"sftkey run outputs/recipes/qwen2_5_1_5b_stage1.yml {options}",
        ("2", "0"): f"sftkey run outputs/recipes/qwen2_5_1_5b_stage2.yml {options}",
        ("1", "1"): f"sftkey run outputs/recipes/qwen2_5_1_5b_sft.yml {options}",
        ("2", "2"): f"sftkey run outputs/recipes/smollm3_3b_stage2.yml {options}",
    }


def test_slurm_needs_its_options_to_be_for_slurm(place: Place) -> None:
    assert "does nothing without --slurm" in place.run(*MATRIX, "--slurm-option", "--gpus=1").output
