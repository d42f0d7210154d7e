"""``sftkey matrix`` with stand-ins for what takes long: each stage once, past failures, and as job arrays."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from support.documented_json import follows_the_documentation
from support.run_place import Place, succeeded

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


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_cannot_run_is_said_with_the_place_to_be(place: Place, form: tuple[str, ...]) -> None:
    arguments = ("--models", "qwen3_8b", "--datasets", "gsm8k", "--strategies", "SFT", "--set", "sftkey_after=no.yml")
    output = succeeded(place.run("matrix", *arguments, "--dry-run", *form)).stdout
    assert "can't run: sftkey_after: no.yml: there is no file outputs/recipes/no.yml; " in output


def test_an_empty_table_is_an_error_and_writes_nothing(place: Place) -> None:
    result = place.run("matrix", "--models", "", "--slurm", "--output-root", "new")
    assert result.exit_code == 1
    assert result.output == "Error: the table has no cells; name at least one model, data set and strategy\n"
    assert not (place.folder / "new").exists()


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
    command = place.folder / "bin" / "sftkey"
    command.write_text('#!/bin/bash\necho "sftkey $*"\n')
    command.chmod(0o755)
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


def test_json(place: Place) -> None:
    plan = json.loads(succeeded(place.run(*MATRIX, "--dry-run", "--json")).stdout)
    follows_the_documentation("matrix --dry-run", plan)
    assert len(plan["commands"]) == 6
    assert plan["stages"][0] == {
        "model": "qwen2_5_1_5b",
        "data_set": "gsm8k",
        "strategy": "SFT-Tag",
        "method": "sft-tag",
        "state": "not started",
        "output": "outputs/qwen2_5_1_5b/gsm8k/stage1",
    }
    result = succeeded(place.run("--quiet", *MATRIX, "--eval", "--json"))
    rows = json.loads(result.stdout)
    follows_the_documentation("matrix", rows)
    assert len(rows) == 6
    assert rows[0] == {
        "model": "qwen2_5_1_5b",
        "data_set": "gsm8k",
        "strategy": "SFT-Tag",
        "state": "trained",
        "task": "sftkey_gsm8k",
        "acc": 0.5,
        "fmt": 1.0,
        "score": 0.65,
    }
    assert result.stderr == ""


def test_own_data_beside_or_in_place_of_the_papers(place: Place) -> None:
    rows = [{"question": f"{number} + 1?", "thinking": "I add.", "answer": number + 1} for number in range(40)]
    (place.folder / "my_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"datasets": [{"path": "my_rows.jsonl", "type": "sftkey.datasets.columns"}], "sftkey_answers": "number"}
    (place.folder / "my.yml").write_text(yaml.safe_dump(own))
    arguments = ("matrix", "--models", "qwen3_8b", "--strategies", "SFT-Tag", "--data", "my.yml")
    refused = place.run(*arguments, "--eval")
    assert "no row of my_rows.jsonl is held out of training; set sftkey_held_out: 0.1" in refused.stderr
    assert place.calls() == []
    (place.folder / "my.yml").write_text(yaml.safe_dump({**own, "sftkey_held_out": 0.3}))
    result = succeeded(place.run(*arguments, "--eval", "--force"))
    assert [Path(call[2]).name for call in place.calls() if call[0] == "axolotl"] == ["qwen3_8b_my_rows_stage1.yml"]
    assert "qwen3_8b  my_rows   SFT-Tag   trained  sftkey_own" in result.stdout
    both = succeeded(place.run(*arguments, "--datasets", "gsm8k", "--dry-run", "--output-root", "other"))
    assert "sftkey_gsm8k" not in both.stdout
    assert both.stdout.count("axolotl train") == 2


def test_without_lm_eval_nothing_is_trained(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from sftkey.stages import evaluation_checks, launch

    def missing(name: str) -> None:
        raise launch.MissingExtra(f"the command {name}", "eval")

    monkeypatch.setattr(evaluation_checks, "needs_command", missing)
    for form in ((), ("--dry-run",)):
        result = place.run(*MATRIX, "--eval", *form)
        assert result.exit_code == 1
        assert "the command lm_eval" in result.stderr
    assert place.calls() == []
