"""Time to write a report on 10,000 items and to open it in Chromium: `python tests/benchmarks/bench_report_page.py`."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sftkey.report.write import write_report
from support.chromium import Chromium, find_chromium
from support.output_roots import Outputs

ITEMS, WORDS = 10_000, 250


def main() -> None:
    """Print the times, the medians of five openings."""
    executable = find_chromium()
    if executable is None:
        sys.exit("needs Chromium")
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(5000)]
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(Path(folder) / "outputs")
        outputs.stage("stage1", "sft-tag")
        outputs.stage("stage2", "key-tag", after="stage1")
        for name in ("stage1", "stage2"):
            items = [(float(dice.random() < 0.6), float(dice.random() < 0.9)) for _ in range(ITEMS)]
            texts = {
                i: f"<Thinking>{' '.join(dice.choices(words, k=WORDS))}</Thinking><Answer>{i}</Answer>"
                for i in range(ITEMS)
            }
            outputs.evaluate(f"outputs/{name}", "sftkey_gsm8k", items, texts=texts)
        start, cpu = time.perf_counter(), time.process_time()
        page = write_report([outputs.root], Path(folder) / "report").page
        print(f"written in {time.perf_counter() - start:.1f} s ({time.process_time() - cpu:.1f} s of CPU)")
        print(f"{page.stat().st_size / 2**20:.1f} MiB for 2 x {ITEMS:,} items of about {WORDS} words")
        browser = Chromium(executable, Path(folder) / "profile")
        browser.screen(1280, 900)
        count = "document.getElementById('sample-count').textContent"
        opened, unpacked, searched = [], [], []
        for turn in range(5):
            start = time.perf_counter()
            browser.open(f"{page.as_uri()}?{turn}")
            opened.append(time.perf_counter() - start)
            start = time.perf_counter()
            browser.evaluate("document.getElementById('samples').scrollIntoView()")
            browser.wait_for(f"{count}.endsWith('items')")
            unpacked.append(time.perf_counter() - start)
            start = time.perf_counter()
            browser.evaluate(
                f"const s = document.getElementById('sample-search'); s.value = 'Item {turn} {words[turn]}'; "
                "s.dispatchEvent(new Event('input'))"
            )
            browser.wait_for(f"!{count}.startsWith('{ITEMS}')")
            searched.append(time.perf_counter() - start)
            browser.evaluate("sessionStorage.clear()")
        browser.close()
    for what, times in (("page opens", opened), ("items shown", unpacked), ("first search", searched)):
        print(f"{what}: {sorted(times)[2]:.2f} s (slowest {max(times):.2f} s)")


if __name__ == "__main__":
    main()
