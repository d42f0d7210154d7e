"""The page in a real browser: it shows everything, asks the network for nothing, and runs nothing that a model wrote."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from sftkey.report.write import write_report
from support.chromium import Chromium
from support.output_roots import Outputs

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=http://example.invalid/x.png onerror='window.hacked = 2'>"
    '<!--<script>\u2028 <Thinking>zebra & "quotes"</Thinking><Answer>7</Answer>'
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two models and two data sets, with hostile texts in outputs and names."""
    outputs = Outputs(tmp_path_factory.mktemp("roots") / "outputs")
    dice = random.Random(0)
    rates = {"sft": (0.6, 0.8), "stage1": (0.65, 0.95), "key": (0.6, 0.1), "stage2": (0.8, 0.98)}
    for model in ("Qwen/Qwen3-8B-Base", "org/<script>window.hacked=3<script>"):
        for data_set in ("gsm8k", "openbookqa"):
            folder = f"m{len(model)}/{data_set}"
            outputs.stage(f"{folder}/sft", "sft", base_model=model, data=data_set)
            outputs.stage(f"{folder}/stage1", "sft-tag", base_model=model, data=data_set)
            outputs.stage(f"{folder}/key", "key-tag", base_model=model, data=data_set)
            outputs.stage(f"{folder}/stage2", "key-tag", after=f"{folder}/stage1", data=data_set)
            for name, (acc, fmt) in rates.items():
                items = [(float(dice.random() < acc), float(dice.random() < fmt)) for _ in range(60)]
                items[0] = (float(name == "stage2"), 1.0)  # an item that Stage 2 fixes
                outputs.evaluate(
                    f"outputs/{folder}/{name}",
                    f"sftkey_{data_set}" + ("_plain" if name == "sft" else ""),
                    items,
                    texts={0: HOSTILE},
                )
    outputs.stage("unfinished", "sft-tag", data="cot_collection", finished=False)
    (outputs.root / "broken").mkdir()
    (outputs.root / "broken" / "sftkey_stage.json").write_text("{")
    target = tmp_path_factory.mktemp("report")
    return write_report([outputs.root], target).page


@pytest.fixture
def opened(browser: Chromium, page: Path) -> Chromium:
    """The page, freshly opened on a wide screen; nothing noted and nothing kept of earlier tests."""
    browser.screen(1280, 900)
    browser.open(page.as_uri())
    browser.evaluate("sessionStorage.clear()")
    browser.console.clear()
    browser.requests.clear()
    browser.open(page.as_uri() + "?again")
    return browser


def visible(browser: Chromium, selector: str) -> int:
    """How many elements that match have a visible area."""
    return browser.evaluate(
        f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.getBoundingClientRect().width > 50 "
        "&& e.getBoundingClientRect().height > 20 && getComputedStyle(e).visibility === 'visible').length"
    )


def test_no_console_message_and_no_request(opened: Chromium, page: Path) -> None:
    opened.evaluate("document.getElementById('change-more').click()")
    opened.evaluate("document.querySelectorAll('nav a').forEach(link => link.click())")
    assert opened.console == []
    assert [url for url in opened.requests if not url.startswith(page.as_uri()) and url != "data:,"] == []
    assert opened.evaluate("performance.getEntriesByType('resource').length") == 0


def test_tables_and_figures_are_visible(opened: Chromium) -> None:
    for name in (
        *("score", "acc", "fmt", "decomposition", "outputs", "format_failures"),
        *("comparisons", "changes", "runs", "settings"),
    ):
        assert visible(opened, f"table#{name}") == 1, name
    # 4 curves for each of 2 models x 2 data sets and for the unfinished run, 2 box plots, (2 data sets + average) x 2
    assert visible(opened, "figure svg") == 4 * 5 + 2 + 6
    assert opened.evaluate("document.querySelector('figure svg path') !== null")
    assert (
        opened.evaluate("document.body.textContent").count("broken/sftkey_stage.json") == 2
    )  # in the notes and the files


def test_text_of_models_stays_text(opened: Chromium) -> None:
    assert opened.evaluate("window.hacked") is None
    assert opened.evaluate("document.querySelectorAll('img').length") == 0
    assert opened.evaluate("document.scripts.length") == 2
    opened.evaluate(
        "const s = document.getElementById('change-search'); s.value = 'zebra'; s.dispatchEvent(new Event('input'))"
    )
    opened.wait_for("document.getElementById('change-count').textContent.startsWith('4 of ')")
    shown = opened.evaluate("document.querySelector('#change-list pre').textContent")
    assert shown == HOSTILE
    assert opened.evaluate("document.querySelector('#change-list pre mark').textContent") == "zebra"
    assert (
        opened.evaluate("[...document.querySelectorAll('#change-list .item')[0].querySelectorAll('.tagword')].length")
        == 8
    )
    assert "org" not in opened.evaluate("document.querySelector('#score .head').textContent")
    assert "<script>window.hacked=3<script>" in opened.evaluate("document.getElementById('score').textContent")


def test_search_and_kinds_narrow_the_items(opened: Chromium) -> None:
    count = "Number(document.getElementById('change-count').textContent.split(' ')[0])"
    everything = opened.evaluate(count)
    opened.evaluate("document.querySelector('[data-kind=fixed]').click()")
    fixed = opened.evaluate(count)
    total = opened.evaluate(
        "[...document.querySelectorAll('#changes tbody tr')].reduce((n, r) => n + Number(r.cells[5].innerText), 0)"
    )
    assert 0 < fixed == total < everything
    opened.evaluate(
        "const set = document.getElementById('change-set'); set.value = '0'; set.dispatchEvent(new Event('change'))"
    )
    first = opened.evaluate("Number(document.querySelector('#changes tbody tr').cells[5].innerText)")
    assert opened.evaluate(count) == first
    opened.evaluate(
        "const s = document.getElementById('change-search'); s.value = 'no such text'; s.dispatchEvent(new Event('input'))"
    )
    opened.wait_for(f"{count} === 0")
    assert opened.evaluate("document.querySelectorAll('#change-list .item').length") == 0


def test_filter_of_the_tests(opened: Chromium) -> None:
    rows = opened.evaluate("document.querySelectorAll('#comparisons tbody tr').length")
    opened.evaluate(
        "const t = document.getElementById('test-search'); t.value = 'GSM8K fmt'; t.dispatchEvent(new Event('input'))"
    )
    shown = opened.evaluate("[...document.querySelectorAll('#comparisons tbody tr')].filter(r => !r.hidden).length")
    assert shown == 2 * 6 < rows  # 6 pairs of 4 methods, for each model


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_of_the_bar_is_out_of_reach(opened: Chromium, width: int) -> None:
    opened.screen(width, 844)
    outside = opened.evaluate(
        "[...document.querySelectorAll('nav a, nav button')].filter(e => { const r = e.getBoundingClientRect(); "
        "return r.width === 0 || r.left < 0 || r.right > innerWidth || r.top < 0 || r.bottom > innerHeight; })"
        ".map(e => e.textContent)"
    )
    assert outside == []
    assert opened.evaluate("document.querySelectorAll('nav a').length") >= 8
    opened.screen(1280, 900)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_readable_in_both_themes_and_on_a_phone(opened: Chromium, width: int, dark: bool) -> None:
    opened.screen(width, 800, dark)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    background, ink = (
        opened.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")
    )
    tick = opened.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    for text in (ink, tick):
        assert contrast(background, text) > 4.5
    assert (luminance(background) < 0.1) == dark
    opened.screen(width, 800, dark=False)


def luminance(color: str) -> float:
    """Relative luminance of an ``rgb(r, g, b)`` colour, as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, as WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_theme_button_overrides_the_system(opened: Chromium) -> None:
    body = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(body)
    opened.evaluate("document.getElementById('theme').click(); document.getElementById('theme').click()")
    assert opened.evaluate("document.getElementById('theme').textContent") == "Theme: dark"
    assert opened.evaluate(body) != light


def test_watched_page_reloads_itself_and_keeps_the_search(browser: Chromium, outputs: Outputs, tmp_path: Path) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", [(0.0, 1.0)] * 4)
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", [(1.0, 1.0)] * 4)
    page = write_report([outputs.root], tmp_path / "report", refresh=1).page
    browser.open(page.as_uri())
    browser.evaluate(
        "const s = document.getElementById('change-search'); s.value = 'Question 0'; s.dispatchEvent(new Event('input'))"
    )
    browser.wait_for("document.getElementById('change-count')?.textContent.startsWith('1 of ')")
    browser.evaluate("window.before = true")
    browser.wait_for("window.before === undefined && document.readyState === 'complete'")
    browser.wait_for("document.getElementById('change-count')?.textContent === '1 of 4 items'")
    browser.open("about:blank#done")


def test_the_card_names_who_is_not_ranked(outputs: Outputs, tmp_path: Path) -> None:
    for name, method, count in (("sft", "sft", 8), ("stage1", "sft-tag", 8), ("key", "key-tag", 4)):
        outputs.stage(name, method)
        task = "sftkey_gsm8k_plain" if name == "sft" else "sftkey_gsm8k"
        outputs.evaluate(f"outputs/{name}", task, [(1.0, 1.0)] * count)
    text = write_report([outputs.root], tmp_path / "report").page.read_text()
    assert "not ranked, see the table&#39;s footnotes: Key-Tag" in text
