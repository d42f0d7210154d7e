"""The table of ways of training names tests that exist, and leaves no cell empty."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (TESTS / "training/README.md").read_text("utf-8").splitlines()
    if re.match(r"\| (?!path\b)\w", line)
]


def test_every_test_that_is_named_exists() -> None:
    names = {name for row in ROWS for cell in row for name in re.findall(r"`([\w/]+\.py)::(\w+)`", cell)}
    assert len(names) > 20
    for file, test in sorted(names):
        assert re.search(rf"^def {test}\(", (TESTS / file).read_text("utf-8"), re.MULTILINE), (file, test)


def test_every_cell_is_a_test_or_a_reason() -> None:
    for path, first, *others in ROWS:
        assert re.match(r"`[\w/]+\.py::test_\w+`$|refused: `|no test: ", first), path
        for cell in others:
            assert re.match(r"`[\w/]+\.py::test_\w+`$|the same|as (plain|FSDP2)|refused|no test", cell), (path, cell)


def test_every_way_of_training_is_listed() -> None:
    text = " ".join(row[0] for row in ROWS)
    for path in (
        *("plain", "bf16 autocast", "packing", "accumulation", "LoRA", "QLoRA", "compile", "DDP x2", "FSDP1", "FSDP2"),
        *("ZeRO-3", "fp8", "context parallelism", "mixture of experts"),
    ):
        assert path in text
