"""The report as files, the command, and the watching."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from sftkey.cli.main import sftkey
from sftkey.cli.report import report_command
from sftkey.report.write import Written, watch, write_report
from support.output_roots import Outputs

ITEMS = [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)]


@pytest.fixture
def chain(outputs: Outputs) -> Outputs:
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", ITEMS)
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", [(1.0, 1.0)] * 3, texts={1: "\ud800 lone"})
    return outputs


def test_files_of_the_report(chain: Outputs, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report"
    written = write_report([chain.root], target)
    assert written.page == target / "index.html"
    names = (
        *(
            "score",
            "acc",
            "fmt",
            "comparisons",
            "decomposition",
            "outputs",
            "format_failures",
            "changes",
            "runs",
            "settings",
        ),
    )
    assert {path.name for path in (target / "tables").iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("md", "csv", "tex")
    }
    figures = {path.name for path in (target / "figures").iterdir()}
    assert {"loss_answer_qwen3-8b-base_gsm8k.png", "accuracy_format_qwen3-8b-base_gsm8k.svg"} <= figures
    scores = pd.read_csv(target / "tables" / "acc.csv").set_index("method")
    assert scores.loc["SFTKey-Tag", "value"] == 1
    assert scores.loc["SFT-Tag", "paper"] == 0.83
    changed = [json.loads(line) for line in (target / "changes.jsonl").read_text().splitlines()]
    assert [(item["doc_id"], item["kinds"]) for item in changed] == [("1", ["fixed"]), ("2", ["format gained"])]
    assert changed[0]["output_2"] == "? lone"
    assert not list(target.rglob(".*"))


def test_page_says_when_and_from_what(chain: Outputs, tmp_path: Path) -> None:
    (chain.root / "bad.d").mkdir()
    (chain.root / "bad.d" / "sftkey_stage.json").write_text("{")
    text = write_report([chain.root], tmp_path / "report").page.read_text()
    assert "Made 20" in text
    for path in ("outputs/stage1/sftkey_stage.json", "outputs/stage2/trainer_state.json", "samples_sftkey_gsm8k_"):
        assert path in text
    assert "outputs/bad.d/sftkey_stage.json (marker): not valid JSON" in text
    assert "data-refresh" not in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text


def test_command(chain: Outputs, tmp_path: Path) -> None:
    (chain.root / "bad").mkdir()
    (chain.root / "bad" / "sftkey_stage.json").write_text("{")
    target = tmp_path / "report"
    result = CliRunner().invoke(report_command, [str(chain.root), str(chain.root / "stage1"), "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert f"{target / 'index.html'} (from 8 files, skipped: 1, notes: 1)" in result.output
    assert "bad/sftkey_stage.json: not valid JSON" in result.output
    quiet = CliRunner().invoke(sftkey, ["-q", "report", str(chain.root), "-o", str(target)])
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert quiet.stdout.startswith(f"{target / 'index.html'} (from ")


def test_command_on_nothing_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(report_command, [str(tmp_path), "-o", str(tmp_path / "report")])
    assert result.exit_code == 1
    assert f"no completion marker, training log or results of lm_eval under {tmp_path}" in result.output
    assert CliRunner().invoke(report_command, [str(tmp_path / "missing")]).exit_code == 2


def test_watch_writes_again_when_something_is_new(chain: Outputs, tmp_path: Path) -> None:
    written: list[Written] = []
    sleeps = iter(["nothing", "new evaluation", "nothing", "ctrl-c"])

    def sleep(seconds: float) -> None:
        assert seconds == 7
        happens = next(sleeps)
        if happens == "new evaluation":
            chain.evaluate("outputs/stage2", "sftkey_openbookqa", ITEMS)
        if happens == "ctrl-c":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch([chain.root], tmp_path / "report", 7, written.append, sleep)
    assert len(written) == 2
    text = written[-1].page.read_text()
    assert 'data-refresh="7"' in text
    assert "OpenBookQA" in text


def test_watch_compares_with_what_was_there_before(chain: Outputs, tmp_path: Path) -> None:
    report = tmp_path / "report"
    write_report([chain.root], report)
    sleeps = iter([True, False])

    def sleep(_: float) -> None:
        if not next(sleeps):
            raise KeyboardInterrupt
        chain.evaluate("outputs/stage1", "sftkey_openbookqa", ITEMS)

    with pytest.raises(KeyboardInterrupt):
        watch([chain.root], report, 7, lambda _: None, sleep, against=report)
    table = pd.read_csv(report / "tables" / "against.csv")
    assert set(table.loc[table["data set"] == "OpenBookQA", "verdict"]) == {"new"}


def test_importing_the_command_is_cheap() -> None:
    code = (
        "import sys; import click; before = set(sys.modules); import sftkey.cli.report; "
        "new = set(sys.modules) - before; print(sorted(new & {'pandas', 'numpy', 'matplotlib', 'scipy', 'jinja2', 'torch'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
