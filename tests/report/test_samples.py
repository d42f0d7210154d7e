"""All items of every evaluation on the page: packed without loss, and found by search and filters in a browser."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sftkey.report.collect import collect
from sftkey.report.runs import runs_of
from sftkey.report.samples import TEXT_LIMITS, Block, sample_blocks
from sftkey.report.scores import scores_of
from sftkey.report.write import write_report
from support.chromium import Chromium
from support.output_roots import Outputs

HOSTILE = "</template></script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> zebra"


def unpacked(block: Block) -> dict[str, list[Any]]:
    return json.loads(gzip.decompress(base64.b64decode(block.packed)))


@pytest.fixture
def two(outputs: Outputs) -> Outputs:
    """Two runs with 30 items each, some wrong, out of format or undecided."""
    for name, method in (("tag", "sft-tag"), ("key", "key-tag")):
        outputs.stage(name, method)
        items = [(float(i % 3 > 0), float(i % 5 > 0)) for i in range(30)]
        path = outputs.evaluate(f"outputs/{name}", "sftkey_gsm8k", items, texts={0: HOSTILE, 7: "long " * 2000})
        (samples,) = path.parent.glob("samples_*.jsonl")
        lines = [json.loads(line) for line in samples.read_text().splitlines()]
        for line in lines[:2]:
            line |= {"verdict": "can't tell", "acc": 0.0, "score": 0.3 * line["fmt"]}
        lines[4] |= {"decided_by": "judge", "arguments": {"gen_args_0": {"arg_0": "PROMPT <|im_start|>", "arg_1": {}}}}
        content = json.loads(path.read_text())
        for metric in ("acc", "fmt", "score"):
            content["results"]["sftkey_gsm8k"][f"{metric},none"] = sum(line[metric] for line in lines) / 30
        path.write_text(json.dumps(content))
        samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return outputs


def test_every_item_is_in_with_its_prompt(two: Outputs) -> None:
    blocks, limit = sample_blocks(scores_of(runs_of(collect([two.root]))))
    assert limit == TEXT_LIMITS[0]
    assert [(block.label, block.total, block.included) for block in blocks] == [
        ("SFT-Tag", 30, 30),
        ("Key-Tag", 30, 30),
    ]
    columns = unpacked(blocks[0])
    assert columns["id"] == [str(i) for i in range(30)]
    assert columns["v"][:4] == ["undecided", "undecided", "right", "wrong"]
    assert columns["p"][3:5] == ["Question 3?", "PROMPT <|im_start|>"]
    assert columns["by"][3:5] == ["rule", "judge"]
    assert columns["o"][0] == HOSTILE
    assert {len(values) for values in columns.values()} == {30}


@pytest.mark.parametrize("room", [10**6, 10_000, 3_000, 500, 0])
def test_texts_are_shortened_before_an_item_is_left_out(two: Outputs, room: int) -> None:
    blocks, limit = sample_blocks(scores_of(runs_of(collect([two.root]))), room)
    all_in = all(block.included == block.total for block in blocks)
    assert all_in or limit == TEXT_LIMITS[-1]
    size = sum(min(len(text), limit) for block in blocks for name in "qprox" for text in unpacked(block)[name])
    assert size <= max(room, 1)
    assert all(len(unpacked(block)["id"]) == block.included for block in blocks)


def test_browsing(browser: Chromium, two: Outputs, tmp_path: Path) -> None:
    page = write_report([two.root], tmp_path / "report").page
    browser.screen(1280, 900)
    browser.console.clear()
    browser.open(page.as_uri())
    browser.evaluate("sessionStorage.clear()")
    browser.open(page.as_uri() + "?again")
    browser.evaluate("document.getElementById('samples').scrollIntoView()")
    count = "document.getElementById('sample-count').textContent"

    def choose(name: str, value: str) -> None:
        browser.evaluate(
            f"{{ const s = document.getElementById('sample-{name}'); s.value = {json.dumps(value)}; "
            "s.dispatchEvent(new Event(s.tagName === 'SELECT' ? 'change' : 'input')) }"
        )

    browser.wait_for(f"{count} === '30 of 30 items'")
    first = "document.querySelector('#sample-list .item')"
    assert browser.evaluate(f"{first}.querySelector('pre').textContent") == HOSTILE
    assert browser.evaluate(f"{first}.querySelector('details pre').textContent") == "Question 0?"
    options = "[...document.getElementById('sample-verdict').options].map(option => option.textContent)"
    assert browser.evaluate(options) == ["All verdicts", "right (19)", "wrong (9)", "undecided (2)"]
    choose("verdict", "wrong")
    assert browser.evaluate(count) == "9 of 30 items"
    choose("format", "answer cut off")
    assert browser.evaluate(count) == "1 of 30 items"  # item 15
    choose("verdict", "")
    assert browser.evaluate(count) == "6 of 30 items"
    choose("format", "")
    choose("by", "judge")
    assert browser.evaluate(count) == "1 of 30 items"
    assert browser.evaluate(f"{first}.querySelector('details pre').textContent") == "PROMPT <|im_start|>"
    choose("by", "")
    choose("search", "ZEBRA")
    browser.wait_for(f"{count} === '1 of 30 items'")
    assert browser.evaluate(f"{first}.querySelector('pre mark').textContent") == "zebra"
    choose("set", "1")
    browser.wait_for(f"{count} === '1 of 30 items'")
    choose("search", "")
    browser.wait_for(f"{count} === '30 of 30 items'")
    browser.evaluate("document.getElementById('sample-more').click()")
    assert browser.evaluate("document.querySelectorAll('#sample-list .item').length") == 20
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.console == []
