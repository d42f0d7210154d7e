"""How the runs were trained, how they differ, what each is for, and several seeds."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from sftkey.report.collect import collect
from sftkey.report.run_settings import ONE_SEED, seed_tables, settings_table
from sftkey.report.runs import Run, runs_of
from sftkey.report.tables import Table, TableCell
from sftkey.report.write import write_report
from support.output_roots import Outputs

ITEMS = [(1.0, 1.0), (0.0, 1.0)]


def runs_in(outputs: Outputs) -> list[Run]:
    return runs_of(collect([outputs.root]))


def row_of(table: Table, label: str) -> dict[str, TableCell]:
    (row,) = [row for row in table.rows if row[1].text == label]
    return dict(zip(table.columns, row, strict=True))


@pytest.fixture
def chain(outputs: Outputs) -> Outputs:
    """SFT, a two-stage run and its control."""
    outputs.stage("sft", "sft", learning_rate="2e-5", sequence_len=512)
    outputs.stage("stage1", "sft-tag", learning_rate="2e-5", sequence_len=512)
    outputs.stage("stage2", "key-tag", after="stage1", learning_rate="1e-6", sequence_len=512, neftune_noise_alpha=5)
    outputs.stage("control", "sft-tag", after="stage1", learning_rate="2e-5", sequence_len=512, losses=(1.0, 0.5))
    return outputs


def test_what_each_run_is_for(chain: Outputs) -> None:
    table = settings_table(runs_in(chain))
    found = {row[1].text: row[2].text for row in table.rows}
    assert found == {
        "SFT": "baseline",
        "SFT-Tag": "Stage 1 of SFTKey-Tag, SFT-Tag then SFT-Tag",
        "SFTKey-Tag": "",
        "SFT-Tag then SFT-Tag": "control of SFTKey-Tag (2 steps against 3)",
    }
    assert row_of(table, "SFTKey-Tag")["Started from"].text == "stage1"


def test_settings_that_differ_have_a_column_and_the_others_are_said_once(chain: Outputs) -> None:
    table = settings_table(runs_in(chain))
    assert "learning_rate" in table.columns
    assert "sequence_len" not in table.columns
    assert table.caption.endswith("The same in all: sequence_len 512.")
    second = row_of(table, "SFTKey-Tag")
    assert (second["learning_rate"].text, second["learning_rate"].bold) == ("1e-6", True)
    assert second["Other settings"].text == "neftune_noise_alpha 5"
    assert (second["Rows"].text, second["Steps"].text, second["Seed"].text) == ("96", "3", "42")
    assert not row_of(table, "SFT")["learning_rate"].bold


def test_a_missing_base_model_is_said_until_it_is_evaluated(chain: Outputs) -> None:
    assert settings_table(runs_in(chain)).footnotes == [
        "the untrained model was not evaluated: there is no row Base to compare with"
    ]
    chain.evaluate("Qwen/Qwen3-8B-Base", "sftkey_gsm8k_plain", ITEMS)
    assert settings_table(runs_in(chain)).footnotes == []


def test_mean_and_spread_over_seeds(outputs: Outputs) -> None:
    accuracies = []
    for seed, right in ((1, 2), (2, 5), (3, 8)):
        outputs.stage(f"{seed}", "sft-tag", seed=seed)
        outputs.evaluate(f"outputs/{seed}", "sftkey_gsm8k", [(1.0, 1.0)] * right + [(0.0, 1.0)] * (10 - right))
        accuracies.append(right / 10)
    (table,) = seed_tables(runs_in(outputs))
    (line,) = table.frame.to_dict("records")
    assert (line["method"], line["seeds"]) == ("SFT-Tag", "1, 2, 3")
    assert line["acc mean"] == pytest.approx(statistics.mean(accuracies))
    assert line["acc sd"] == pytest.approx(statistics.stdev(accuracies))


@pytest.mark.parametrize("other", [{"learning_rate": 1.0}, {"seed": 1}])
def test_runs_that_differ_in_more_or_not_in_the_seed_are_no_seeds(outputs: Outputs, other: dict[str, float]) -> None:
    outputs.stage("one", "sft-tag", seed=1)
    outputs.stage("two", "sft-tag", **{"seed": 2, **other})
    for name in ("one", "two"):
        outputs.evaluate(f"outputs/{name}", "sftkey_gsm8k", ITEMS)
    assert seed_tables(runs_in(outputs)) == []


def test_a_single_seed_is_called_one_in_every_table_with_its_figures(outputs: Outputs, tmp_path: Path) -> None:
    outputs.stage("sft", "sft")
    for seed in (1, 2):
        outputs.stage(f"tag{seed}", "sft-tag", seed=seed)
    outputs.stage("key", "key-tag", after="tag1")
    for name, task in (("sft", "sftkey_gsm8k_plain"), *((name, "sftkey_gsm8k") for name in ("tag1", "tag2", "key"))):
        outputs.evaluate(f"outputs/{name}", task, ITEMS)
    write_report([outputs.root], tmp_path / "report")
    tables = {path.stem: path.read_text() for path in (tmp_path / "report" / "tables").glob("*.md")}
    for name in ("score", "acc", "fmt", "decomposition", "outputs", "format_failures", "comparisons", "changes"):
        (number,) = [line[5] for line in tables[name].splitlines() if line.startswith("<sup>") and ONE_SEED in line]
        for line in (line for line in tables[name].splitlines() if line.startswith("| ")):
            single = "| SFT |" in line.replace(f"<sup>{number}</sup>", "") or "SFTKey-Tag" in line
            assert (f"<sup>{number}</sup>" in line) == single, line
    assert ONE_SEED not in tables["seeds"]
    assert ONE_SEED in (tmp_path / "report" / "index.html").read_text()
