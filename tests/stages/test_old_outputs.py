"""Output directories that commit 9c54c77 wrote, before the package was laid out anew, are as good as new ones.

``written_by_9c54c77`` holds a tiny model (width 16), a Stage 1 and a Stage 2 that finished and were evaluated, and
``cut``: the same Stage 2 under another name, killed after its first checkpoint.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.commands import run, succeeded

OLD = Path(__file__).parent / "written_by_9c54c77"
EVALUATION = (
    "--eval --eval-include-path tasks --eval-tasks sftkey_demo --eval-limit 8 --eval-batch-size 16".split()  # as then
)


@pytest.fixture
def place(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the old outputs under the names that their recipes have."""
    shutil.copytree(OLD / "recipes", tmp_path / "recipes")
    shutil.copytree(OLD / "old", tmp_path / "outputs" / "old")
    shutil.copytree(repository / "tests" / "demo" / "tasks", tmp_path / "tasks")
    for path in (tmp_path / "tasks").glob("*.yaml"):
        path.write_text(path.read_text().replace("outputs/demo/", "outputs/old/"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sftkey(*arguments: str) -> str:
    from sftkey.cli.main import sftkey as command

    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_the_plan_finds_both_stages_finished_and_evaluated(place: Path) -> None:
    plan = sftkey("run", "recipes/stage2.yml", "--dry-run", *EVALUATION)
    assert plan.count("finished 2026-11-25T18:16:") == 2
    assert "done, in outputs/old/stage1/eval" in plan
    assert "done, in outputs/old/stage2/eval" in plan
    assert "train " not in plan


def test_the_plan_goes_on_from_the_checkpoint(place: Path) -> None:
    plan = sftkey("run", "recipes/cut.yml", "--dry-run")
    assert "finished 2026-11-25T18:16:26+00:00, in outputs/old/stage1" in plan
    assert "goes on from outputs/old/cut/checkpoint-4" in plan


def test_share_knows_both_stages_and_their_scores(place: Path) -> None:
    sftkey("share", "outputs/old/stage2", "-o", "bundle")
    manifest = json.loads((place / "bundle" / "sftkey_share.json").read_text())
    assert manifest["strategy"] == "SFTKey-Tag"
    assert [stage["method"] for stage in manifest["stages"]] == ["sft-tag", "key-tag"]
    assert [[score["task"] for score in stage["scores"]] for stage in manifest["stages"]] == [["sftkey_demo"]] * 2
    assert {path.name for path in (place / "bundle" / "recipes").iterdir()} == {"stage1.yml", "stage2.yml"}
    assert "trained on outputs/old/data/train.jsonl with SFTKey-Tag" in (place / "bundle" / "README.md").read_text()


def test_report_links_the_stages(place: Path) -> None:
    sftkey("report", "outputs", "-o", "report")
    with open(place / "report" / "tables" / "acc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["data set"], row["value"], row["items"]) for row in rows} == {("demo", "0.0", "8")}
    assert len(rows) == 2
    assert any("SFTKey-Tag" in row.values() for row in rows), "Stage 2 is not linked to Stage 1"


@pytest.mark.slow
def test_the_cut_off_stage_ends_with_the_weights_of_the_undisturbed_one(place: Path) -> None:
    from safetensors.torch import load_file

    result = succeeded(run("axolotl", "sftkey", "run", "recipes/cut.yml", cwd=place))
    assert "checkpoint-4" in result.stdout + result.stderr
    resumed, undisturbed = (load_file(place / f"outputs/old/{name}/model.safetensors") for name in ("cut", "stage2"))
    assert resumed.keys() == undisturbed.keys()
    for name, weight in resumed.items():
        # Bit-equal on the machine that wrote them; another processor may add up in another order.
        assert (weight - undisturbed[name]).abs().max() < 1e-6, name
    marker = json.loads((place / "outputs/old/cut/sftkey_stage.json").read_text())
    assert marker["training"]["steps"] == 8
    assert marker["after"]["finished_at"] == "2026-11-25T18:16:26+00:00"


@pytest.mark.slow
def test_evaluated_again_it_answers_as_then(place: Path) -> None:
    def responses() -> list[str]:
        (path,) = (place / "outputs/old/stage2/eval").rglob("samples_sftkey_demo_*.jsonl")
        samples = sorted(map(json.loads, path.read_text().splitlines()), key=lambda sample: sample["doc_id"])
        return [sample["resps"][0][0] for sample in samples]

    then = responses()
    shutil.rmtree(place / "outputs/old/stage2/eval")
    result = succeeded(run("axolotl", "sftkey", "run", "recipes/stage2.yml", *EVALUATION, cwd=place))
    assert "sftkey_demo" in result.stdout
    now = responses()
    assert len(now) == len(then) == 8
    assert all(then)
    # Then the task ended an output at 24 tokens.
    assert all(new.startswith(old) for new, old in zip(now, then, strict=True))
