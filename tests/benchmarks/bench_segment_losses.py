"""What the losses per segment cost: step time with and without them, interleaved in one process.

Run: python tests/benchmarks/bench_segment_losses.py
The two ways differ only in whether `causal_loss` gets the segments; the loss and its gradients are the same. CPU time (of
all threads) is given beside the time on the clock because other programs disturb it far less.
"""

from __future__ import annotations

import platform
import statistics
import time
from typing import NamedTuple

import torch
import transformers
from sftkey.format.segments import Segment
from sftkey.training.loss import causal_loss
from transformers import Qwen3Config, Qwen3ForCausalLM

SHAPES = ((49_152, 256, 2, 256), (49_152, 256, 2, 1_024), (151_936, 256, 1, 512))
ROUNDS = 15


class Seconds(NamedTuple):
    """What a step took: on the clock, and of CPU time."""

    clock: float
    cpu: float


def batch(vocabulary: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, labels and segments of sft-tag rows: 40% prompt, then thinking, tags and a short answer."""
    ids = torch.randint(0, vocabulary, (rows, length))
    segments = torch.full((rows, length), int(Segment.THINKING))
    segments[:, : length * 2 // 5] = int(Segment.PROMPT)
    segments[:, -16:-8] = int(Segment.ANSWER)
    segments[:, -8:-1] = int(Segment.ANSWER_CLOSE)
    segments[:, -1] = int(Segment.END_OF_TURN)
    return ids, torch.where(segments == int(Segment.PROMPT), -100, ids), segments


def step(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor | None) -> Seconds:
    """One forward and backward pass."""
    model.zero_grad(set_to_none=True)
    clock, cpu = time.perf_counter(), time.process_time()
    causal_loss(model, {"input_ids": ids}, labels, segments).loss.backward()
    return Seconds(time.perf_counter() - clock, time.process_time() - cpu)


def main() -> None:
    """Print a Markdown table."""
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.processor() or platform.machine()}, "
    )
    print(f"{torch.get_num_threads()} threads, fp32, Qwen3 with 2 layers; median of {ROUNDS} interleaved steps\n")
    print(
        "| vocabulary | width | batch | without (s) | with (s) | with / without, median of pairs | the same, CPU time |"
    )
    print("|---:|---:|---|---:|---:|---:|---:|")
    for vocabulary, width, rows, length in SHAPES:
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            tie_word_embeddings=True,
        )
        model = Qwen3ForCausalLM(config)
        ids, labels, segments = batch(vocabulary, rows, length)
        step(model, ids, labels, segments), step(model, ids, labels, None)
        pairs = []
        for index in range(ROUNDS):
            # The order changes from pair to pair, so that neither way always runs on the warmer cache.
            if index % 2:
                with_segments, without = step(model, ids, labels, segments), step(model, ids, labels, None)
            else:
                without, with_segments = step(model, ids, labels, None), step(model, ids, labels, segments)
            pairs.append((without, with_segments))
        medians = [statistics.median(one.clock for one in column) for column in zip(*pairs, strict=True)]
        ratio = statistics.median(b.clock / a.clock for a, b in pairs)
        cpu = statistics.median(b.cpu / a.cpu for a, b in pairs)
        figures = f"{medians[0]:.3f} | {medians[1]:.3f} | {ratio:.3f} | {cpu:.3f}"
        print(f"| {vocabulary:,} | {width} | {rows} x {length} | {figures} |")


if __name__ == "__main__":
    main()
