"""One score: what `judge` changes in the results is what `run`, `matrix`, `report` and the model card show."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sftkey.cli.main import sftkey
from sftkey.stages.evaluate import EVALUATION_FILE
from support.documented_json import follows_the_documentation
from support.fake_commands import install
from support.loopback_judge import LoopbackServer
from support.output_roots import Outputs

STAGE = Path("outputs/qwen2_5_1_5b/gsm8k/stage1")
NOTED = STAGE / "eval" / EVALUATION_FILE
RUN = ("run", "outputs/recipes/qwen2_5_1_5b_stage1.yml", "--eval")
MATRIX = ("matrix", "--models", "qwen2_5_1_5b", "--datasets", "gsm8k", "--methods", "SFT-Tag", "--eval")


def cli(*arguments: str, **environ: str) -> str:
    result = CliRunner().invoke(sftkey, list(arguments), prog_name="sftkey", env=environ)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a stage that was trained and evaluated in the working directory; two of four answers are right."""
    monkeypatch.chdir(tmp_path)
    install(tmp_path / "bin", tmp_path / "record.jsonl", monkeypatch)
    cli(*MATRIX)
    (path,) = STAGE.rglob("results_*.json")
    path.unlink()
    outcomes = [(1.0, 1.0), (0.0, 1.0), (1.0, 1.0), (0.0, 1.0)]
    date = path.stem.removeprefix("results_")
    assert Outputs(STAGE).evaluate("some/model", "sftkey_gsm8k", outcomes, where="eval", date=date) == path
    return path


def shown() -> dict[str, str]:
    """Score, wherever a user sees it."""
    scores = {name: cli(*command).split()[-1] for name, command in {"run": RUN, "matrix": MATRIX}.items()}
    (row,) = [line for line in (STAGE / "README.md").read_text().splitlines() if "| sftkey_gsm8k |" in line]
    scores["card"] = row.split("|")[6].strip()
    cli("report", "outputs", "--output", "report")
    (line,) = csv.DictReader(Path("report/tables/score.csv").read_text().splitlines())
    scores["report"] = f"{float(line['value']):.4f}"
    return scores


def test_a_score_that_the_judge_changes_changes_everywhere(results: Path) -> None:
    before = Path("record.jsonl").read_text()
    assert shown() == dict.fromkeys(("run", "matrix", "card", "report"), "0.6500")
    with LoopbackServer(lambda prompt: "yes") as server:
        environ = {
            "SFTKEY_JUDGE_BASE_URL": server.base_url,
            "SFTKEY_JUDGE_CACHE": "cache",
            "SFTKEY_JUDGE_FITNESS": "off",
        }
        cli("judge", "outputs", "--mode", "always", **environ)
    assert shown() == dict.fromkeys(("run", "matrix", "card", "report"), "1.0000")
    assert re.search(r"; judge always; judge model [\w./-]+ \|", (STAGE / "README.md").read_text())
    assert Path("record.jsonl").read_text() == before, "nothing was trained or evaluated again"


def test_json(results: Path) -> None:
    with LoopbackServer(lambda prompt: "yes") as server:
        environ = {
            "SFTKEY_JUDGE_BASE_URL": server.base_url,
            "SFTKEY_JUDGE_CACHE": "cache",
            "SFTKEY_JUDGE_FITNESS": "off",
        }
        command = ["judge", "outputs", "--mode", "always", "--json"]
        (planned,) = json.loads(CliRunner().invoke(sftkey, [*command, "--dry-run"], env=environ).stdout)
        (done,) = json.loads(CliRunner().invoke(sftkey, command, env=environ).stdout)
    follows_the_documentation("judge --dry-run", [planned])
    follows_the_documentation("judge", [done])
    items = {"results": results.name, "task": "sftkey_gsm8k", "items": 4}
    assert planned == {**items, "needed": 4, "distinct": 4, "cached": 0, "to_ask": 4}
    before, after = done.pop("before"), done.pop("after")
    assert done == {**items, "judge": 4, "cache": 0, "unresolved": 0}
    assert (before["acc"], after["acc"], before["score"], after["score"]) == pytest.approx((0.5, 1.0, 0.65, 1.0))


def test_the_card_of_a_stage_that_started_from_it_shows_the_new_score_too(results: Path) -> None:
    cli(*("SFTKey-Tag" if argument == "SFT-Tag" else argument for argument in MATRIX))
    card = STAGE.with_name("stage2") / "README.md"
    assert "| sft-tag | sftkey_gsm8k | 4 | 0.5000 | 1.0000 | 0.6500 |" in card.read_text()
    with LoopbackServer(lambda prompt: "yes") as server:
        environ = {
            "SFTKEY_JUDGE_BASE_URL": server.base_url,
            "SFTKEY_JUDGE_CACHE": "cache",
            "SFTKEY_JUDGE_FITNESS": "off",
        }
        cli("judge", str(STAGE / "eval"), "--mode", "always", **environ)
    assert "| sft-tag | sftkey_gsm8k | 4 | 1.0000 | 1.0000 | 1.0000 |" in card.read_text()


def test_a_tag_stands_for_its_tasks(results: Path) -> None:
    noted = json.loads(NOTED.read_text())
    noted["evaluations"][0]["key"]["tasks"] = ["some_tag"]
    NOTED.write_text(json.dumps(noted))
    assert cli("run", RUN[1]).split()[-5:] == ["sftkey_gsm8k", "4", "0.5000", "1.0000", "0.6500"]


def test_no_metric_is_copied_and_an_old_copy_is_not_read(results: Path) -> None:
    noted = json.loads(NOTED.read_text())
    (entry,) = noted["evaluations"]
    assert entry.keys() == {"key", "file"}
    assert NOTED.parent / entry["file"] == results
    copied = {"sftkey_gsm8k": {"items": 7, "metrics": {"acc": 0.1, "fmt": 0.2, "score": 0.3}}}
    NOTED.write_text(json.dumps({"schema": 1, "evaluations": [{**entry, "results": copied}]}))
    before = Path("record.jsonl").read_text()
    assert cli(*RUN).split()[-4:] == ["4", "0.5000", "1.0000", "0.6500"]
    assert Path("record.jsonl").read_text() == before
    cli(*RUN, "--eval-limit", "3")
    assert [entry.keys() for entry in json.loads(NOTED.read_text())["evaluations"]] == [{"key", "file"}] * 2


def test_without_its_results_a_stage_is_evaluated_again(results: Path) -> None:
    results.unlink()
    assert "0.5000" not in cli("run", RUN[1])
    before = Path("record.jsonl").read_text()
    assert cli(*RUN).split()[-1] == "0.6500"
    assert Path("record.jsonl").read_text().removeprefix(before).startswith('["lm_eval"')


def test_results_that_cannot_be_read_say_so(results: Path) -> None:
    results.write_text("{")
    result = CliRunner().invoke(sftkey, list(RUN), prog_name="sftkey")
    assert result.exit_code == 1
    message = result.output + str(result.exception)
    assert f"{results}: not valid JSON" in message
    assert "delete it to evaluate again" in message
