"""The dilution map: where does Stage 2 pay, by length and predictability of the thinking, the answer and Stage 1?

    python tests/experiments/dilution.py --output outputs/dilution --lengths 0 8 32 --seeds 0 1 2 3 4

For each length of the thinking all conditions and seeds train side by side (`stacked.py`). Stage 1 ends for each model by
itself, at the first checks that find 20%, 50% and 80% of held-out answers right given the reference thinking. From each of
the three snapshots start the control (Stage 1's loss carried on), Stage 2 on answer tokens only, and Stage 2 anchored by a
small weight on the thinking: the same batches, steps and schedule. A unit (a length and its seeds) that is done is never
computed again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

if __name__ == "__main__":
    __import__("as_script")

from sftkey.evaluation.headroom import AnswerLoss, judge_headroom, outcome
from sftkey.format.segments import AFTER_THINKING, Segment

from experiments.bits import bits
from experiments.dilution_problems import (
    END,
    PROMPT,
    VOCABULARY,
    WORDS,
    Batch,
    Condition,
    Outputs,
    Problems,
    read,
    thinking_text,
)
from experiments.stacked import Optimizer, Shape, Stack, chosen, generate, initial, logits, losses, precision

SHAPE = Shape(VOCABULARY)
UNPREDICTABLE = (1, 8, WORDS)
HARDNESS = (8, 24)
REACHED = (0.2, 0.5, 0.8)
ARMS = {"control": 1.0, "answer only": 0.0, "anchored 0.1": 0.1, "anchored 0.02": 0.02}
"""Stage 2's weight of the thinking."""
BATCH, RATE, STAGE2_RATE, WARMUP = 32, 1e-3, 5e-4, 40
CHECK_EVERY, CHECKED = 10, 128
DIAGNOSED = 128
MOST_TOKENS = {"gpu": 500_000, "cpu": 150_000}
"""Tokens of a training step of the stack."""


def conditions(length: int) -> list[Condition]:
    """The conditions of a length; without words there is nothing to predict."""
    return [Condition(length, words, values) for words in UNPREDICTABLE[: None if length else 1] for values in HARDNESS]


def weights(problems: Problems, thinking: float) -> torch.Tensor:
    """The weight of each token of a response, as `sftkey.training.weights` has them."""
    tags = 1.0 if thinking else 0.0
    around = {Segment.THINKING: thinking, Segment.THINKING_OPEN: tags, Segment.THINKING_CLOSE: tags}
    return torch.tensor([around.get(s, float(s in AFTER_THINKING)) for s in problems.segments])


class Unit:
    """All models of one length and some seeds.

    Args:
        length: Of the thinking.
        seeds: Of tables, initial weights and batches.
        device: Where they train.
        options: The command line.
    """

    def __init__(self, length: int, seeds: list[int], device: torch.device, options: argparse.Namespace) -> None:
        self.device, self.options = device, options
        pairs = [(condition, seed) for seed in seeds for condition in conditions(length)]
        self.conditions, self.seeds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self.problems = Problems(self.conditions, self.seeds, device)
        self.generator = torch.Generator(device).manual_seed(1_000 * length + seeds[0])
        self.test = self.problems.test_batch(options.items, self.generator)
        self.most_new = length + 16

    def stage1(self) -> tuple[dict[float, tuple[Stack, torch.Tensor]], dict[str, Any]]:
        """Train until every model has reached the last of `REACHED`, or for ``stage1_steps``.

        Returns:
            For each of `REACHED` the weights and the steps of the models, 0 where it wasn't reached; the curve.
        """
        stack = initial(SHAPE, self.seeds, self.device)
        optimizer = Optimizer(stack)
        ones = weights(self.problems, 1.0).to(self.device).expand(len(self.seeds), -1)
        kept = {
            share: (chosen(stack, torch.arange(len(self.seeds))), torch.zeros(len(self.seeds), dtype=torch.long))
            for share in REACHED
        }
        curve, until = [], min(self.options.until, time.time() + self.options.stage1_seconds)
        for step in range(1, self.options.stage1_steps + 1):
            batch = self.problems.training_batch(BATCH, self.generator)
            with precision(self.device):
                loss = losses(stack, SHAPE, batch.ids, PROMPT, ones)
            optimizer.step(loss, RATE * min(1.0, step / WARMUP))
            if step % CHECK_EVERY:
                continue
            share = _answer_share(stack, self.test, CHECKED)
            curve.append([step, [round(value, 3) for value in share.tolist()]])
            for goal, (weights_kept, steps) in kept.items():
                new = (share.cpu() >= goal) & (steps == 0)
                steps[new] = step
                for name, value in weights_kept.items():
                    value[new.to(self.device)] = stack[name].detach()[new.to(self.device)]
            if bool((kept[REACHED[-1]][1] > 0).all()) or time.time() > until:
                break
        return kept, {"curve": curve}

    def run(self) -> Iterator[list[dict[str, Any]]]:
        """Train and measure all: one record for each model and arm, a few models at a time."""
        kept, curve = self.stage1()
        yield [{"kind": "curve", "length": self.problems.length, "seeds": sorted(set(self.seeds)), **curve}]
        sources = [
            (share, model) for share in REACHED for model in range(len(self.seeds)) if int(kept[share][1][model])
        ]
        kind = "gpu" if self.device.type == "cuda" else "cpu"
        size = MOST_TOKENS[kind] // (BATCH * (PROMPT + len(self.problems.segments)) * len(ARMS))
        for start in range(0, len(sources), max(size, 1)):
            if time.time() > self.options.until:
                break
            yield self._from_snapshots(sources[start : start + max(size, 1)], kept)

    def _from_snapshots(self, sources: list[tuple[float, int]], kept: Any) -> list[dict[str, Any]]:
        parts = [chosen(kept[share][0], torch.tensor([model])) for share, model in sources]
        stage1 = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        models = torch.tensor([model for _, model in sources])
        problems = self.problems.chosen(models)
        test = Batch(*(value[models.to(self.device)] for value in (self.test.ids, self.test.answers, self.test.values)))
        found = self._measured(stage1, test, problems, [("stage 1", *source) for source in sources], kept)
        repeated = torch.arange(len(sources)).repeat_interleave(len(ARMS))
        stack = chosen(stage1, repeated)
        optimizer = Optimizer(stack)
        rows = torch.stack([weights(problems, weight) for weight in ARMS.values()]).to(self.device)
        rows = rows.repeat(len(sources), 1)
        steps = self.options.stage2_steps
        for step in range(steps):
            batch = problems.training_batch(BATCH, self.generator)
            with precision(self.device):
                loss = losses(stack, SHAPE, batch.ids[repeated.to(self.device)], PROMPT, rows)
            rate = min((step + 1) / (steps / 10), 0.5 + 0.5 * math.cos(math.pi * step / steps))
            optimizer.step(loss, STAGE2_RATE * rate)
        for number, arm in enumerate(ARMS):
            stack_of_arm = chosen(stack, torch.arange(number, len(repeated), len(ARMS)))
            found += self._measured(stack_of_arm, test, problems, [(arm, *source) for source in sources], kept)
        return found

    def _measured(self, stack: Stack, test: Batch, problems: Problems, names: Any, kept: Any) -> list[dict[str, Any]]:
        own = generate(stack, SHAPE, test.ids[:, :, :PROMPT], self.most_new, END)
        until = PROMPT + problems.length + 4
        rest = generate(stack, SHAPE, test.ids[:, :, :until], 16, END)
        given = torch.cat([test.ids[:, :, PROMPT:until], rest], dim=-1)
        outputs, outputs_given = read(own, test), read(given, test)
        stage1 = names[0][0] == "stage 1"
        learned = self._answer_losses(stack, problems) if stage1 else []
        records = []
        for index, (arm, share, model) in enumerate(names):
            condition = self.conditions[model]
            record = {
                "kind": "run",
                "length": condition.length,
                "words": condition.words,
                "values": condition.values,
                "seed": self.seeds[model],
                "reached": share,
                "stage1_steps": int(kept[share][1][model]),
                "arm": arm,
                **_packed(outputs, index),
                "given_reference": bits(outputs_given.right[index]),
            }
            if stage1:
                record |= _diagnosed(
                    outputs.right[index], outputs_given.right[index], own[index], test.ids[index], learned[index]
                )
            records.append(record)
        return records

    @torch.no_grad()
    def _answer_losses(self, stack: Stack, problems: Problems) -> list[AnswerLoss]:
        batch = problems.training_batch(CHECKED, self.generator)
        found = _answer_logits(stack, batch.ids)
        entropy = torch.nn.functional.cross_entropy(
            found.flatten(0, 1), batch.answers.flatten(), reduction="none"
        ).view_as(batch.answers)
        right = (found.argmax(-1) == batch.answers).float().mean(1)
        return [
            AnswerLoss(loss, accuracy, CHECKED, CHECKED)
            for loss, accuracy in zip(entropy.mean(1).tolist(), right.tolist(), strict=True)
        ]


def _answer_logits(stack: Stack, ids: torch.Tensor) -> torch.Tensor:
    with precision(ids.device):
        return logits(stack, SHAPE, ids[:, :, :-3], slice(-1, None))[:, :, 0].float()


@torch.no_grad()
def _answer_share(stack: Stack, batch: Batch, count: int) -> torch.Tensor:
    """The share of the first rows whose answer is right, given the reference thinking."""
    return (_answer_logits(stack, batch.ids[:, :count]).argmax(-1) == batch.answers[:, :count]).float().mean(1)


def _packed(outputs: Outputs, index: int) -> dict[str, Any]:
    return {
        "items": len(outputs.right[index]),
        "right": bits(outputs.right[index]),
        "well_formed": bits(outputs.well_formed[index]),
        "thinking_right": bits(outputs.thinking_right[index]),
        "cut_off": round(1 - float(outputs.finished[index].mean()), 4),
        "tokens": round(float(outputs.tokens[index].mean()), 2),
    }


def _diagnosed(right: Any, given: Any, own: torch.Tensor, ids: torch.Tensor, learned: AnswerLoss) -> dict[str, Any]:
    """What `sftkey diagnose` says of the same outputs."""
    rows = slice(None, DIAGNOSED)
    own_ids, reference_ids = own[rows].cpu().numpy(), ids[rows, PROMPT:].cpu().numpy()
    outcomes = [
        outcome(bool(ok), bool(ok_given), thinking_text(written), str(thinking_text(reference)))
        for ok, ok_given, written, reference in zip(right[rows], given[rows], own_ids, reference_ids, strict=True)
    ]
    found = judge_headroom(outcomes, float(np.mean(given[rows])), learned)
    return {
        "verdict": found["verdict"].value,
        "headroom": round(found["headroom"], 4),
        "answer_loss_on_training_rows": round(learned.loss, 4),
    }


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    os.replace(temporary, path)


def main(argv: list[str] | None = None) -> None:
    """Run the units that aren't there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 96, 8, 0, 200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--together", type=int, default=5, help="seeds in a unit")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--stage1-steps", type=int, default=4_000)
    parser.add_argument("--stage1-seconds", type=float, default=math.inf, help="the most for Stage 1 of a unit")
    parser.add_argument("--stage2-steps", type=int, default=100)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=float, default=math.inf, help="seconds since 1970; no unit starts after it")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    torch.set_float32_matmul_precision("high")
    options.output.mkdir(parents=True, exist_ok=True)
    for length in options.lengths:
        for start in range(0, len(options.seeds), options.together):
            seeds = options.seeds[start : start + options.together]
            path = options.output / f"length{length}_seeds{'-'.join(map(str, seeds))}.jsonl"
            if path.exists() or time.time() > options.until:
                continue
            started = time.monotonic()
            machine = (
                torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
            )
            records: list[dict[str, Any]] = []
            for some in Unit(length, seeds, device, options).run():
                records += some
                seconds = round(time.monotonic() - started, 1)
                records[0] |= {"seconds": seconds, "device": machine, "torch": torch.__version__}
                _write(path.with_suffix(".part"), records)
            os.replace(path.with_suffix(".part"), path)
            print(f"{path.name}: {len(records)} records in {seconds} s", flush=True)


if __name__ == "__main__":
    main()
