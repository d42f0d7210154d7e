"""Rows per second of tokenising and masking, against what a user would otherwise run; interleaved in one process.

Run: python tests/benchmarks/bench_preparation.py   (needs the real rows and the Qwen3 tokenizer in ../shared)

- bare: the batched tokenizer on the whole text with its threads on, no masks at all, nothing written.
- axolotl: Axolotl's own ``chat_template`` type on the same rows as chat messages, as ``axolotl preprocess`` runs it.
- sftkey: this package's strategy, as ``axolotl preprocess`` runs it, in both tag modes.

Each call gets a tokenizer that was loaded before the clock started and has tokenised nothing yet.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
SHARED = Path(__file__).resolve().parents[3] / "shared"
PROCESSES = 2


def cost(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall time and CPU time, that of ended child processes included, of a call."""
    started, used = time.perf_counter(), sum(os.times()[:4])
    function()
    return time.perf_counter() - started, sum(os.times()[:4]) - used


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, help="only the first so many rows; the cost of starting weighs more then")
    options = parser.parse_args()
    if not SHARED.is_dir():
        # Not a failure: `make bench` goes on with the next script.
        print("skipped: needs the real GSM8K rows and the Qwen3 tokenizer in ../shared")
        return
    import datasets
    import sftkey.axolotl.plugin
    import tokenizers
    import transformers
    from axolotl.datasets import wrap_dataset_for_tokenized_prompt
    from axolotl.prompt_strategies import load
    from axolotl.utils.dict import DictDefault
    from sftkey.datasets.gsm8k import GSM8K
    from sftkey.format import templates
    from sftkey.format.formats import THINKING_ANSWER

    datasets.disable_progress_bars()
    lines = (SHARED / "data" / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[: options.rows]
    rows = [json.loads(line) for line in lines]
    examples = [GSM8K.to_example(row) for row in rows]

    def tokenizer(added: bool = False) -> Any:
        loaded = transformers.AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "qwen3")
        if added:
            loaded.add_tokens(list(THINKING_ANSWER.tags))
        loaded.chat_template = templates.chat_template(templates.TAGGED)
        return loaded

    plain = tokenizer()
    texts = [
        plain.apply_chat_template([{"role": "user", "content": e.question}], tokenize=False, add_generation_prompt=True)
        + "".join(piece.text for piece in THINKING_ANSWER.render(e.thinking, e.answer))
        + templates.END_OF_TURN
        for e in examples
    ]
    messages = datasets.Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": e.question},
                    {
                        "role": "assistant",
                        "content": "".join(p.text for p in THINKING_ANSWER.render(e.thinking, e.answer)),
                    },
                ]
            }
            for e in examples
        ]
    )
    published = datasets.Dataset.from_list(rows)

    def bare(loaded: Any) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        for start in range(0, len(texts), 1_000):
            loaded(texts[start : start + 1_000], add_special_tokens=False, return_attention_mask=False)

    def axolotl(loaded: Any) -> None:
        cfg = DictDefault(sequence_len=4_096, train_on_inputs=False)
        entry = DictDefault(
            type="chat_template",
            chat_template="jinja",
            chat_template_jinja=templates.chat_template(templates.TAGGED),
            field_messages="messages",
        )
        strategy = load("chat_template", loaded, cfg, entry)
        wrap_dataset_for_tokenized_prompt(strategy, messages, process_count=PROCESSES)

    def sftkey(loaded: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            cfg = DictDefault(
                sequence_len=4_096, sftkey_method="key-tag", dataset_prepared_path=folder, datasets=[], test_datasets=[]
            )
            entry = DictDefault(path="openai/gsm8k", type="sftkey.datasets.gsm8k")
            load("sftkey.datasets.gsm8k", loaded, cfg, entry).wrap_dataset(published, process_count=PROCESSES)

    datasets.disable_caching()
    ways: dict[str, tuple[Callable[[Any], None], bool]] = {
        "bare batched tokenizer, no masks": (bare, False),
        "Axolotl `chat_template`": (axolotl, False),
        "sftkey, tags as text": (sftkey, False),
        "sftkey, tags as added tokens": (sftkey, True),
    }
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (way, added) in ways.items():
            loaded = tokenizer(added)
            # As Axolotl's command line leaves it.
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
            costs[name].append(cost(functools.partial(way, loaded)))
    wall = {name: statistics.median(wall for wall, _ in values) for name, values in costs.items()}
    cpu = {name: statistics.median(cpu for _, cpu in values) for name, values in costs.items()}
    print(
        f"Python {platform.python_version()}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__},"
    )
    print(f"datasets {datasets.__version__}; {len(rows):,} real GSM8K rows, Qwen3 tokenizer, {os.cpu_count()} cores, ")
    print(f"{PROCESSES} processes; median of {options.rounds} interleaved rounds\n")
    print("| way | rows/s | x Axolotl | x bare | CPU s | rows/s of CPU | x Axolotl | x bare |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    bare_name, axolotl_name = list(ways)[:2]
    for name in ways:
        print(
            f"| {name} | {len(rows) / wall[name]:,.0f} | {wall[axolotl_name] / wall[name]:.2f} "
            f"| {wall[bare_name] / wall[name]:.2f} | {cpu[name]:.2f} | {len(rows) / cpu[name]:,.0f} "
            f"| {cpu[axolotl_name] / cpu[name]:.2f} | {cpu[bare_name] / cpu[name]:.2f} |"
        )
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
