"""Peak memory of preparation at 100,000 and at 1,000,000 generated rows, in a process each.

Run: python tests/benchmarks/bench_preparation_memory.py   (needs the Qwen3 tokenizer in ../shared; a few minutes)

The rows are short GSM8K-like problems in an Arrow file that a generator writes. *Anonymous* memory is what the process
itself holds; the resident set also counts pages of the Arrow files that the system keeps mapped while there is room.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
SHARED = Path(__file__).resolve().parents[3] / "shared"
SIZES = (100_000, 1_000_000)


def generated(rows: int) -> Iterator[dict[str, str]]:
    """Rows in GSM8K's form, about one in a thousand without an answer."""
    for row in range(rows):
        total = row + row % 97
        answer = f"{row} and {row % 97} make {total}.\n#### {total}" if row % 1_000 else "It can't be told."
        yield {"question": f"What is {row} plus {row % 97}?", "answer": answer}


def status_mib(key: str) -> float:
    """One of the memory figures of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def prepare(rows: int, processes: int | None) -> None:
    """Prepare `rows` generated rows and print one line of the table; run in a process of its own.

    Args:
        rows: How many.
        processes: Worker processes; ``None`` for this process alone, in which memory can be watched.
    """
    import datasets
    import sftkey.axolotl.plugin  # noqa: F401  (the front end that `load` asks)
    import transformers
    from axolotl.prompt_strategies import load
    from axolotl.utils.dict import DictDefault
    from sftkey.format import templates

    datasets.disable_progress_bars()
    tokenizer = transformers.AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "qwen3")
    # A short prompt: the paper's would be most of every row.
    tokenizer.chat_template = templates.chat_template(templates.TAGGED, "Think first, then answer.")
    with tempfile.TemporaryDirectory() as folder:
        published = datasets.Dataset.from_generator(generated, gen_kwargs={"rows": rows}, cache_dir=f"{folder}/data")
        cfg = DictDefault(
            sequence_len=512, sftkey_method="key-tag", dataset_prepared_path=folder, datasets=[], test_datasets=[]
        )
        strategy = load(
            "sftkey.datasets.gsm8k", tokenizer, cfg, DictDefault(path="generated", type="sftkey.datasets.gsm8k")
        )
        anonymous = [status_mib("RssAnon")]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                anonymous.append(status_mib("RssAnon"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        prepared = strategy.wrap_dataset(published, process_count=processes)
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
        size = sum(Path(file["filename"]).stat().st_size for file in prepared.cache_files) / 2**20
        print(
            f"| {rows:,} | {len(prepared):,} | {processes or 'threads'} | {rows / seconds:,.0f} | {size:,.0f} "
            f"| {anonymous[0]:,.0f} | {max(anonymous):,.0f} | {status_mib('VmHWM'):,.0f} |",
            flush=True,
        )


def main() -> None:
    """Print a Markdown table."""
    if not SHARED.is_dir():
        # Not a failure: `make bench` goes on with the next script.
        print("skipped: needs the Qwen3 tokenizer in ../shared")
        return
    print(
        "| rows | used | worker processes | rows/s | Arrow MiB | anonymous MiB before | at most | peak resident MiB |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    context: Any = multiprocessing.get_context("spawn")
    for rows in SIZES:
        child = context.Process(target=prepare, args=(rows, None))
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(f"preparing {rows:,} rows ended with status {child.exitcode}")


if __name__ == "__main__":
    main()
