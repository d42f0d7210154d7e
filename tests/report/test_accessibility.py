"""The page by axe-core: names, roles, keyboard and contrast, in both themes, on a phone and on a wide screen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sftkey.report.write import write_report
from support.availability import skip_or_fail
from support.chromium import Chromium
from support.output_roots import Outputs

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def axe(browser: Chromium) -> Callable[[], list[Any]]:
    """Runs axe-core in the page that is open, and gives the violations."""
    if "AXE" not in os.environ:
        skip_or_fail("needs axe-core (make test-tools)")
    source = Path(os.environ["AXE"]).read_text(encoding="utf-8")

    def run() -> list[Any]:
        browser.evaluate(source + "; true")
        browser.evaluate(
            "window.found = null; axe.run(document, {resultTypes: ['violations']}).then(result => { window.found = "
            "result.violations.map(one => [one.id, one.nodes.map(node => node.html.slice(0, 200) + node.failureSummary)]); })"
            "; true"
        )
        browser.wait_for("window.found !== null", 120)
        return list(browser.evaluate("window.found"))

    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section."""
    outputs = Outputs(tmp_path_factory.mktemp("roots") / "outputs")
    for name, method, after in (
        ("sft", "sft", None), ("stage1", "sft-tag", None), ("stage2", "key-tag", "stage1"), ("more", "sft-tag", "stage1"),
    ):  # fmt: skip
        outputs.stage(name, method, after=after)
        items = [(float(i % 3 == 0 or name == "stage2"), float(i % 4 > 0)) for i in range(24)]
        task = "sftkey_gsm8k_plain" if name == "sft" else "sftkey_gsm8k"
        outputs.evaluate(f"outputs/{name}", task, items, texts={1: "<Thinking>" + "long text " * 800})
    outputs.stage("unfinished", "sft-tag", finished=False)
    (outputs.root / "broken").mkdir()
    (outputs.root / "broken" / "sftkey_stage.json").write_text("{")
    target = tmp_path_factory.mktemp("report")
    return write_report([outputs.root], target, against=outputs.root).page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_violation(browser: Chromium, axe: Callable[[], list[Any]], page: Path, width: int, dark: bool) -> None:
    browser.screen(width, 844, dark)
    browser.open(f"{page.as_uri()}?{width}{dark}")
    browser.evaluate("document.getElementById('samples').scrollIntoView()")
    browser.wait_for("document.getElementById('sample-count').textContent === '24 of 24 items'")
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = axe()
    assert found == [], json.dumps(found, indent=1)[:4000]


def test_a_page_with_faults_has_violations(browser: Chromium, axe: Callable[[], list[Any]], page: Path) -> None:
    browser.screen(1280, 844)
    browser.open(f"{page.as_uri()}?faults")
    browser.evaluate(
        "document.getElementById('test-search').removeAttribute('aria-label');"
        "document.getElementById('test-search').removeAttribute('placeholder');"
        "document.querySelector('h1').style.color = '#eee'"
    )
    assert {"label", "color-contrast"} <= {name for name, _ in axe()}
