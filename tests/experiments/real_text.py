"""Real text, a pretrained model, an answer that is no copy: objectives of Stage 2 on CommonsenseQA with human explanations.

    python tests/experiments/real_text.py --model models/SmolLM2-135M --data data/commonsenseqa --output outputs/real --seed 0

One call is one seed; calls for several seeds run side by side. From the pretrained model SFT-Tag is trained twice: `full`,
and `short`, which has seen a seventh of that. From each start the control (SFT-Tag carried on) and Stage 2 by each
objective, with the same rows in the same order, the same number of steps and the same schedule. After every training the
held-out items (the rows of the published validation split that have a usable explanation) are answered twice, with the
model's own thinking and after the reference one. The outputs are kept as they are; `real_text_scores.py` applies the rules.

`--until` makes Stage 2 as long as the time allows: the first seed that has Stage 1 decides for all in the output folder.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":
    __import__("as_script")

from sftkey.datasets.commonsenseqa import COMMONSENSEQA
from sftkey.evaluation.diagnosis import answer_loss, before, gradient_shares, own_thinking
from sftkey.evaluation.generation import complete, evaluating
from sftkey.format.example import Example
from sftkey.format.methods import METHODS
from sftkey.format.segments import AFTER_THINKING, RESPONSE
from sftkey.training.fit import device, fit, load_pretrained, with_template
from sftkey.training.objectives.registry import read_objective
from sftkey.training.rows import RowTokenizer
from sftkey.training.tokenization import ExampleTokenizer, TokenizedExample
from sftkey.training.weights import segment_weights

from experiments.models import environment, generation_copy

SYSTEM_MESSAGE = "Think, then answer."
"""In place of the paper's prompt (C.1), which would be half of every sequence."""
SFT_TAG, KEY_TAG = METHODS["sft-tag"], METHODS["key-tag"]


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm trains.

    Attributes:
        method: Whose labels.
        weights: Weights of the groups of segments.
        objective: ``sftkey_objective``, if any.
    """

    method: str
    weights: Mapping[str, float] | None = None
    objective: str | None = None


SFT = Arm("sft-tag")
ARMS = {
    "SFT-Tag carried on": SFT,
    "answer only": Arm("key-tag"),
    "anchored 0.1": Arm("sft-tag", {"thinking": 0.1}),
    "DFT": Arm("sft-tag", objective="dft"),
    "anchored 0.02": Arm("sft-tag", {"thinking": 0.02}),
    "EAFT": Arm("sft-tag", objective="eaft"),
}
"""In the order in which they are trained; the first one is the control."""


@dataclass(frozen=True, slots=True)
class Start:
    """A first stage.

    Attributes:
        share: Of ``--stage1-steps``.
        arms: How many of `ARMS` start from it.
        time: With ``--until``: their share of what is left then.
    """

    share: float
    arms: int
    time: float


STARTS = {"full": Start(1.0, 6, 0.62), "short": Start(0.15, 3, 0.93)}
MOST_TOKENS, MOST_ANSWER_TOKENS = 96, 32
LEARNED_ROWS, GRADIENT_ROWS = 256, 64


class Seed:
    """Everything that is trained with one seed.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows = {
            split: [json.loads(line) for line in (options.data / f"{split}.jsonl").read_text("utf-8").splitlines()]
            for split in ("train", "validation")
        }
        torch.zeros(1, device=device())
        self.say("ready for the weights")
        while options.wait_for and not options.wait_for.exists():
            time.sleep(0.1)
        self.model, plain = load_pretrained(options.model)
        self.tokenizer = with_template(plain, SFT_TAG, SYSTEM_MESSAGE)
        self.examples = {method.name: self._tokenized("train", method)[: options.rows] for method in (SFT_TAG, KEY_TAG)}
        self.tokenize = ExampleTokenizer(self.tokenizer, SFT_TAG, COMMONSENSEQA.untagged)
        self.test = self._tokenized("validation", SFT_TAG)[: options.items]
        self.test_examples = self._usable("validation")[: options.items]
        self.base = self._weights()
        self.say(f"{len(self.examples['sft-tag'])} rows, {len(self.test)} items")

    def say(self, text: str) -> None:
        """Tell of progress."""
        print(f"{time.strftime('%H:%M:%S')} seed {self.options.seed}: {text}", flush=True)

    def _rows(self, method: Any) -> RowTokenizer:
        tokenize = ExampleTokenizer(
            with_template(self.tokenizer, method, SYSTEM_MESSAGE), method, COMMONSENSEQA.untagged
        )
        return RowTokenizer(COMMONSENSEQA, tokenize, sequence_len=512)

    def _tokenized(self, split: str, method: Any) -> list[TokenizedExample]:
        return [found for found in self._rows(method)(self.rows[split]) if not isinstance(found, str)]

    def _usable(self, split: str) -> list[Example]:
        rows = self._rows(SFT_TAG)
        used = [(row, found) for row, found in zip(self.rows[split], rows(self.rows[split]), strict=True)]
        return [rows.example(row) for row, found in used if not isinstance(found, str)]

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def run(self) -> None:
        """Both first stages, and what follows them."""
        for name in self.options.stage1:
            self.model.load_state_dict(self.base)
            if name == "full" and self.options.seed == 0:
                self._keep(name, "base model", None, time.monotonic())
            steps = max(1, round(STARTS[name].share * self.options.stage1_steps))
            started = time.monotonic()
            trained = self._fit(SFT, steps)
            weights = self._weights()
            evaluating_from = time.monotonic()
            self._keep(name, "stage 1", trained, started)
            stage2 = self._stage2_steps(name, trained.seconds / steps, time.monotonic() - evaluating_from)
            for arm in list(ARMS)[: STARTS[name].arms]:
                self.model.load_state_dict(weights)
                started = time.monotonic()
                self._keep(name, arm, self._fit(ARMS[arm], stage2), started)

    def _fit(self, arm: Arm, steps: int) -> Any:
        examples = self.examples[arm.method]
        return fit(
            self.model,
            self.tokenizer,
            examples,
            epochs=steps / -(-len(examples) // self.options.batch_size),
            warmup_epochs=0.1 * steps / -(-len(examples) // self.options.batch_size),
            max_steps=steps,
            learning_rate=self.options.learning_rate,
            seed=self.options.seed,
            batch_size=self.options.batch_size,
            pad_to_multiple_of=8,
            logging_steps=20,
            weights=segment_weights(arm.weights, METHODS[arm.method]) if arm.weights else None,
            objective=read_objective(arm.objective) if arm.objective else None,
        )

    def _stage2_steps(self, stage1: str, step_seconds: float, evaluation_seconds: float) -> int:
        """How long Stage 2 is: the same for every seed, whoever asks first."""
        steps = self.options.stage2_steps
        if self.options.until is None:
            return steps
        path = self.options.output / f"steps_{stage1}.json"
        left = float(self.options.until.read_text()) - time.time()
        fits = int((STARTS[stage1].time * left / STARTS[stage1].arms - evaluation_seconds) / step_seconds)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(str(max(20, min(steps, fits))))
        except FileExistsError:
            time.sleep(0.2)
        chosen = int(path.read_text())
        self.say(f"{stage1}: {step_seconds:.3f} s a step, {left:.0f} s left, Stage 2 of {chosen} steps")
        return chosen

    def _keep(self, stage1: str, arm: str, trained: Any, started: float) -> None:
        """Answer the held-out items twice and write the outputs."""
        training_seconds = time.monotonic() - started
        own, given = self._outputs(generation_copy(self.model))
        record = {
            "stage1": stage1,
            "arm": arm,
            "seed": self.options.seed,
            "steps": trained.steps if trained else 0,
            "training_seconds": round(training_seconds, 2),
            "curve": trained.curve if trained else [],
            "own": own,
            "given_reference": given,
        }
        if arm == "stage 1":
            record["signals"] = self._signals([completion.text for completion in own])
        record["seconds"] = round(time.monotonic() - started, 2)
        record["environment"] = environment()
        record["settings"] = {k: str(v) for k, v in vars(self.options).items()} | {
            "train_rows": len(self.examples["sft-tag"])
        }
        with gzip.open(self.options.output / f"seed{self.options.seed}.jsonl.gz", "at", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.say(
            f"{stage1}, {arm}: {record['steps']} steps, {record['training_seconds']} + "
            f"{record['seconds'] - record['training_seconds']:.1f} s; {own[0].text!r}"
        )

    def _outputs(self, model: Any) -> tuple[list[Any], list[Any]]:
        torch.cuda.empty_cache()
        found = []
        for group, most in ((RESPONSE, MOST_TOKENS), (AFTER_THINKING, MOST_ANSWER_TOKENS)):
            prompts = [before(example, group) for example in self.test]
            size = self.options.generation_batch
            found.append(complete(model, self.tokenizer, prompts, max_new_tokens=most, batch_size=size))
            torch.cuda.empty_cache()
        return found[0], found[1]

    def _signals(self, outputs: list[str]) -> dict[str, Any]:
        """What `sftkey.evaluation.diagnosis` measures beside the outputs."""
        thoughts = [own_thinking(output, self.tokenize) for output in outputs]
        with_own = [
            Example(example.question, thought, example.answer)
            for example, thought in zip(self.test_examples, thoughts, strict=True)
            if thought is not None
        ][:LEARNED_ROWS]
        some = self.options.generation_batch // 4
        found: dict[str, Any] = {"thoughts": thoughts}
        with evaluating(self.model):
            for name, examples in (
                ("on_training_rows", self.examples["sft-tag"][:LEARNED_ROWS]),
                ("given_reference", self.test[:LEARNED_ROWS]),
                ("given_own", self.tokenize(with_own) if with_own else []),
            ):
                loss = answer_loss(self.model, examples, some) if examples else None
                found[name] = loss and [loss.loss, loss.accuracy, loss.tokens, loss.rows]
            found["gradient_shares"] = gradient_shares(self.model, self.test[:GRADIENT_ROWS], min(some, 32))
        return found


def main(argv: list[str] | None = None) -> None:
    """Run one seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and validation.jsonl")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True, help="of the order of the rows")
    parser.add_argument("--rows", type=int, help="at most so many training rows")
    parser.add_argument("--items", type=int, help="at most so many held-out items")
    parser.add_argument("--stage1", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--stage1-steps", type=int, default=406)
    parser.add_argument("--stage2-steps", type=int, default=271, help="with --until: at most")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--generation-batch", type=int, default=512)
    parser.add_argument("--until", type=Path, help="file with the seconds since 1970 by which all has to be done")
    parser.add_argument("--wait-for", type=Path, help="start once this file is there")
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    Seed(options).run()


if __name__ == "__main__":
    main()
