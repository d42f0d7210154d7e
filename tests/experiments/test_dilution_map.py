"""The dilution map's tables, file and figure from a few records whose differences are known by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from experiments import dilution_map
from experiments.bits import bits

RIGHT = {
    # of 8 items, by arm: own thinking and given the reference thinking
    "stage 1": (2, 4),
    "control": (4, 4),
    "answer only": (2, 8),
    "anchored 0.1": (4, 4),
    "anchored 0.02": (5, 4),
}


def record(arm: str, seed: int, more: int = 0, **changed: Any) -> dict[str, Any]:
    own, given = (bits([item < count for item in range(8)]) for count in RIGHT[arm])
    if more:
        own = bits([item < RIGHT[arm][0] + more for item in range(8)])
    found = {
        "kind": "run",
        **{"length": 8, "words": 64, "values": 24, "reached": 0.2, "seed": seed, "arm": arm, "items": 8},
        **{"right": own, "given_reference": given, "thinking_right": own, "well_formed": bits([True] * 8)},
    }
    if arm == "stage 1":
        verdict = "headroom" if seed == 0 else "none"
        found |= {"verdict": verdict, "headroom": 0.5, "answer_loss_on_training_rows": 1.0}
    return found | changed


CURVE = {"kind": "curve", "length": 8, "seeds": [0, 1], "curve": [], "device": "CPU, 1 threads", "torch": "2"}


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in [CURVE, *records])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_known_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [record(arm, seed) for seed in (0, 1) for arm in RIGHT if (arm, seed) != ("answer only", 1)]
    both.append(record("answer only", 1, more=3))  # 5 of 8 where the control has 4
    alone = [record(arm, 0, length=32) for arm in RIGHT]
    unfinished = [record("stage 1", 0, length=96), record("control", 0, length=96)]
    files = [written(tmp_path / "a.jsonl.gz", both), written(tmp_path / "b.jsonl", alone + unfinished)]
    dilution_map.main([*map(str, files), "--output", str(tmp_path / "map")])
    found = json.loads((tmp_path / "map.json").read_text())
    assert found["machines"] == ["CPU, 1 threads, torch 2"]
    assert [(cell["length"], cell["seeds"]) for cell in found["cells"]] == [(8, [0, 1]), (32, [0])]
    cell = found["cells"][0]
    assert cell["control"]["right"] == 50.0
    assert cell["stage 1"]["given_reference"] == 50.0
    part = {name: number for number, name in enumerate(found["difference"])}
    own, given = (cell["differences"]["answer only"][measure] for measure in ("right", "given_reference"))
    assert own[part["by_seed"]] == [-25.0, 12.5]
    assert own[part["points"]] == pytest.approx(-6.25, abs=0.06)
    assert own[part["low"]] < own[part["points"]] < own[part["high"]]
    assert given[part["points"]] == 50.0
    assert cell["differences"]["anchored 0.1"]["right"][part["points"]] == 0.0
    assert cell["differences"]["anchored 0.02"]["right"][part["points"]] == 12.5

    shown = capsys.readouterr().out
    assert "| 32 | 64 | 24 | 0.2 | one seed | 50.0 | -25.0 [" in shown
    counted = {(row["verdict"], row["measured with"]): row for row in found["diagnosis"]}
    # Headroom: seed 0 of both cells, less with its own thinking, more with the reference; none: seed 1, more with both.
    assert [counted["headroom", "own thinking"][k] for k in ("seeds", "more", "the same", "less")] == [2, 0, 0, 2]
    assert [counted["headroom", "reference thinking"][k] for k in ("seeds", "more", "less")] == [2, 2, 0]
    assert [counted["none", "own thinking"][k] for k in ("seeds", "more", "less")] == [1, 1, 0]

    drawn = (tmp_path / "map.svg").read_bytes()
    dilution_map.main([*map(str, files), "--output", str(tmp_path / "map")])
    assert (tmp_path / "map.svg").read_bytes() == drawn


def test_what_is_no_map_is_a_short_error(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.jsonl", [record(arm, 0) for arm in RIGHT])
    with pytest.raises(SystemExit, match="is in an earlier file, too"):
        dilution_map.main([str(whole), str(whole), "--output", str(tmp_path / "map")])
    part = written(tmp_path / "b.jsonl", [record("control", 0)])
    with pytest.raises(SystemExit, match="no cell has Stage 1"):
        dilution_map.main([str(part), "--output", str(tmp_path / "map")])
