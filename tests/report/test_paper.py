"""The paper's tables against each other and, where the paper is at hand, against its text."""

from __future__ import annotations

import re

import pytest
from sftkey.datasets.registry import PAPER
from sftkey.format.methods import STRATEGIES
from sftkey.report.paper import AVERAGE, LAST_DIGIT, PUBLISHED, TABLE_OF, disagreements

# By hand: 0.7 * 0.8378 + 0.3 * 0.7946 = 0.82484, 0.7 * 0.7093 + 0.3 * 0.9138 = 0.77065, and the means of four cells.
DISAGREEING = {
    ("score", "Qwen3-8B-Base", "SFT", "gsm8k"): (0.8218, 0.82484),
    ("score", "Qwen3-8B-Base", "Key-Tag", "cot_collection"): (0.6921, 0.77065),
    ("score", "Qwen2.5-1.5B", "Key-Tag", AVERAGE): (0.4517, 0.38885),
    ("acc", "Qwen3-8B-Base", "Key-Tag", AVERAGE): (0.7512, 0.737325),
    ("acc", "Qwen2.5-3B", "SFT-Tag", AVERAGE): (0.5719, 0.5716),
    ("fmt", "Qwen3-8B-Base", "SFT", AVERAGE): (0.9071, 0.90965),
}


def test_tables_6_and_7_give_table_1_but_for_two_cells():
    checked = 0
    for model, strategies in PUBLISHED["score"].items():
        for strategy, columns in strategies.items():
            for data_set in PAPER:
                score = columns[data_set]
                acc = PUBLISHED["acc"][model][strategy][data_set]
                # The paper has no Fmt for the small models; Table 1 counts it as 0.
                fmt = PUBLISHED["fmt"][model][strategy][data_set] if model in PUBLISHED["fmt"] else 0.0
                checked += 1
                if ("score", model, strategy, data_set) not in DISAGREEING:
                    assert score == pytest.approx(0.7 * acc + 0.3 * fmt, abs=LAST_DIGIT + 1e-9), (
                        model,
                        strategy,
                        data_set,
                    )
    assert checked == 5 * 4 * 4
    assert set(PUBLISHED["acc"]) - set(PUBLISHED["fmt"]) == {"Qwen2.5-3B", "Qwen2.5-1.5B"}


def test_disagreements_are_the_ones_found_by_hand():
    found = {
        (cell.metric, cell.model, cell.strategy, cell.column): (cell.published, cell.computed)
        for cell in disagreements()
    }
    assert found.keys() == DISAGREEING.keys()
    for cell, figures in found.items():
        assert figures == pytest.approx(DISAGREEING[cell], abs=1e-9)


def test_rows_are_the_strategies_and_columns_the_data_sets():
    for table in PUBLISHED.values():
        for strategies in table.values():
            assert list(strategies) == [name for name in STRATEGIES if name != "SFTKey"]
            assert all(list(columns) == [*PAPER, AVERAGE] for columns in strategies.values())


@pytest.mark.parametrize("metric", sorted(TABLE_OF))
def test_figures_are_the_printed_ones(metric, shared_dir):
    papers = list((shared_dir / "paper").glob("*.txt"))
    assert len(papers) == 1
    lines = papers[0].read_text(encoding="utf-8").splitlines()
    caption = next(number for number, line in enumerate(lines) if line.startswith(f"Table {TABLE_OF[metric]}:"))
    # The table stands above its caption, from its header line on.
    start = max(number for number in range(caption) if lines[number].startswith("Model\tMethod"))
    printed: dict[str, dict[str, list[float]]] = {}
    model = ""
    for line in lines[start + 1 : caption]:
        cells = re.sub(r"</?b>|\([^)]*\)", "", line).split("\t")
        if len(cells) == 7:
            model = cells[0].replace("-base", "-Base") or model
            printed.setdefault(model, {})[cells[1]] = [float(cell) for cell in cells[2:]]
    assert printed == {
        model: {strategy: list(columns.values()) for strategy, columns in strategies.items()}
        for model, strategies in PUBLISHED[metric].items()
    }
