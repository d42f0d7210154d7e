"""What is called fixed, broken, and format lost; and how much of it a page carries."""

from __future__ import annotations

import pytest
from sftkey.report import changes as changes_module
from sftkey.report.changes import Change, changes_of, for_page
from sftkey.report.collect import collect
from sftkey.report.runs import runs_of
from support.output_roots import Outputs

BEFORE = [(0.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
AFTER_ = [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0)]


def changes_in(outputs: Outputs) -> list[Change]:
    return changes_of(runs_of(collect([outputs.root])))


@pytest.fixture
def chain(outputs: Outputs) -> Outputs:
    """Both stages of SFTKey-Tag; Stage 2 answered one item more."""
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", BEFORE)
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", [*AFTER_, (1.0, 1.0)])
    return outputs


def test_kinds_by_hand(chain: Outputs) -> None:
    (change,) = changes_in(chain)
    assert (change.first, change.strategy, change.data_set) == ("SFT-Tag", "SFTKey-Tag", "gsm8k")
    assert (change.shared, change.unpaired) == (6, 1)
    assert change.counts == {"fixed": 2, "broken": 1, "format lost": 2, "format gained": 1}
    assert dict(zip(change.items["doc_id"], change.items["kinds"], strict=True)) == {
        "0": ["fixed"],
        "1": ["broken"],
        "2": ["format lost"],
        "3": ["format gained"],
        "5": ["fixed", "format lost"],
    }
    assert change.items["output_1"][0] != change.items["output_2"][0]


def test_one_stage_alone_changes_nothing(outputs: Outputs) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", BEFORE)
    assert changes_in(outputs) == []
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", AFTER_, first_item=50)
    assert changes_in(outputs) == []


def test_the_page_carries_a_bounded_amount(chain: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    everything, included = for_page(changes_in(chain))
    assert included == [len(everything)] == [5]
    size = sum(len(value) for value in everything[0].values() if isinstance(value, str))
    monkeypatch.setattr(changes_module, "MAX_TOTAL_TEXT", 2 * size + 30)
    items, included = for_page(changes_in(chain))
    assert included == [len(items)] == [2]
    assert items == everything[:2]
