"""Rows per second of tokenising and masking, against what a user would otherwise run; interleaved in one process.

Run: python tests/benchmarks/bench_preparation.py   (needs the real rows and the Qwen3 tokenizer in ../shared)

- bare: the batched tokenizer on the whole text, no masks at all: what can't be beaten by much.
- axolotl: Axolotl's own ``chat_template`` type on the same rows as chat messages, as ``axolotl preprocess`` runs it.
- sftkey: this package's strategy, as ``axolotl preprocess`` runs it, in both tag modes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
SHARED = Path(__file__).resolve().parents[3] / "shared"
ROUNDS = 3
PROCESSES = 2


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    """Print a Markdown table."""
    if not SHARED.is_dir():
        sys.exit("needs the real GSM8K rows and the Qwen3 tokenizer in ../shared")
    import datasets
    import tokenizers
    import transformers
    from axolotl.datasets import wrap_dataset_for_tokenized_prompt
    from axolotl.prompt_strategies import load
    from axolotl.utils.dict import DictDefault
    from sftkey import tags, templates
    from sftkey.datasets.gsm8k import GSM8K
    from sftkey.tokenization import encode

    datasets.disable_progress_bars()
    lines = (SHARED / "data" / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    examples = [GSM8K.to_example(row) for row in rows]

    def tokenizer(added: bool = False) -> Any:
        loaded = transformers.AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "qwen3")
        if added:
            loaded.add_tokens(list(tags.TAGS))
        loaded.chat_template = templates.chat_template(templates.TAGGED)
        return loaded

    plain = tokenizer()
    texts = [
        plain.apply_chat_template([{"role": "user", "content": e.question}], tokenize=False, add_generation_prompt=True)
        + "".join(piece.text for piece in tags.render(e.thinking, e.answer))
        + templates.END_OF_TURN
        for e in examples
    ]
    messages = datasets.Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": e.question},
                    {"role": "assistant", "content": "".join(p.text for p in tags.render(e.thinking, e.answer))},
                ]
            }
            for e in examples
        ]
    )
    published = datasets.Dataset.from_list(rows)

    def bare() -> None:
        for start in range(0, len(texts), 1_000):
            encode(plain, texts[start : start + 1_000])

    def axolotl() -> None:
        cfg = DictDefault(sequence_len=4_096, train_on_inputs=False)
        entry = DictDefault(
            type="chat_template",
            chat_template="jinja",
            chat_template_jinja=templates.chat_template(templates.TAGGED),
            field_messages="messages",
        )
        strategy = load("chat_template", tokenizer(), cfg, entry)
        datasets.disable_caching()
        wrap_dataset_for_tokenized_prompt(strategy, messages, process_count=PROCESSES)

    def sftkey(added: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            cfg = DictDefault(
                sequence_len=4_096, sftkey_method="key-tag", dataset_prepared_path=folder, datasets=[], test_datasets=[]
            )
            entry = DictDefault(path="openai/gsm8k", type="sftkey.datasets.gsm8k")
            strategy = load("sftkey.datasets.gsm8k", tokenizer(added), cfg, entry)
            strategy.wrap_dataset(published, process_count=PROCESSES)

    ways: dict[str, Callable[[], None]] = {
        "bare batched tokenizer, no masks": bare,
        "Axolotl `chat_template`": axolotl,
        "sftkey, tags as text": lambda: sftkey(False),
        "sftkey, tags as added tokens": lambda: sftkey(True),
    }
    bare()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(seconds(way))
    rates = {name: len(rows) / statistics.median(values) for name, values in times.items()}
    print(
        f"Python {platform.python_version()}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, "
    )
    print(f"datasets {datasets.__version__}; {len(rows):,} real GSM8K rows, Qwen3 tokenizer, {os.cpu_count()} cores, ")
    print(f"{PROCESSES} processes; median of {ROUNDS} interleaved rounds\n")
    print("| way | rows/s | x Axolotl | x bare |")
    print("|---|---:|---:|---:|")
    for name, rate in rates.items():
        versus = rate / rates["Axolotl `chat_template`"], rate / rates["bare batched tokenizer, no masks"]
        print(f"| {name} | {rate:,.0f} | {versus[0]:.2f} | {versus[1]:.2f} |")


if __name__ == "__main__":
    main()
