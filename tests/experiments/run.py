"""Runs the paper's experiment on one device: see README.md beside this file.

python tests/experiments/run.py --model DIR --dataset gsm8k --train train.jsonl --test test.jsonl --output DIR --minutes 9
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if importlib.util.find_spec("sftkey") is None:
    sys.path.insert(0, str(HERE.parent.parent / "plugins"))
if "experiments" not in sys.modules:
    # Not by tests/ on the path: where the library datasets isn't installed, the folder tests/datasets would pass for it.
    spec = importlib.util.spec_from_file_location(
        "experiments", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    assert spec is not None
    sys.modules["experiments"] = importlib.util.module_from_spec(spec)

import torch  # noqa: E402
from sftkey.cli.diagnosis_text import verdict_text  # noqa: E402
from sftkey.evaluation.assess import assess  # noqa: E402
from sftkey.evaluation.diagnosis import diagnose  # noqa: E402
from sftkey.evaluation.verdicts import RuleVerdict, aggregate  # noqa: E402
from sftkey.format.methods import METHODS  # noqa: E402
from sftkey.training.fit import fit, with_template  # noqa: E402

from experiments.cells import CELLS, SCHEMA, WITHOUT_CONTEXT_GRAD, Cell, Store  # noqa: E402
from experiments.data import (  # noqa: E402
    Data,
    example_tokenizer,
    load_data,
    training_examples,
    usable_rows,
)
from experiments.models import environment, generation_copy, load_model, weights_of  # noqa: E402
from experiments.plan import Plan, Speed, cell_seconds, make_plan, measure, plan_seconds  # noqa: E402
from experiments.scoring import evaluate  # noqa: E402
from experiments.settings import InputError, Settings  # noqa: E402
from experiments.summary import summarise, table  # noqa: E402


class Experiment:
    """An experiment on this machine.

    Args:
        settings: What it is.
        output: Folder of its files; goes on from what is there.
        say: Where progress is told.
        cells: What is trained for each seed.
    """

    def __init__(self, settings: Settings, output: Path, say: Any = print, cells: tuple[Cell, ...] = CELLS) -> None:
        self.settings = settings
        self.cells = cells
        self.store = Store(output)
        self.say = say
        self.started = time.monotonic()
        torch.backends.cuda.matmul.allow_tf32 = True
        self.data: Data = load_data(settings)
        self.model, self.tokenizer = load_model(settings)
        self.base = weights_of(self.model)
        self._examples: dict[str, Any] = {}
        for note in self.data.notes:
            say(f"note: {note}")

    def run(self, limits: Plan, minutes: float | None) -> dict[str, Any]:
        """Train and evaluate all cells that fit into the budget, and summarise.

        Args:
            limits: The most seeds, epochs and items; exactly these without a budget.
            minutes: The budget of this call, start-up included; ``None`` for no budget.

        Returns:
            The summary.

        Raises:
            InputError: The folder holds another experiment, or no row can be trained on.
        """
        experiment, speed, plan = self._experiment(limits, minutes)
        deadline = None if minutes is None else self.started + 60 * minutes
        summary, counted = summarise(experiment, list(self.store.cells())), self.started
        for number, (seed, cell) in enumerate(self._missing(plan)):
            # The first cell of a call is always run: a budget that is too small still gets somewhere.
            if deadline is not None and speed is not None and number:
                needed = self._expected_seconds(cell, plan, speed)
                if time.monotonic() + needed > deadline:
                    left = len(self._missing(plan))
                    self.say(f"out of time: {left} cells are left; start again with the same arguments to go on")
                    break
            self._run_cell(cell, seed, plan)
            now = time.monotonic()
            experiment["seconds"], counted = round(experiment["seconds"] + now - counted, 1), now
            self.store.write("experiment.json", experiment)
            summary = summarise(experiment, list(self.store.cells()))
            self.store.write("summary.json", summary)
        self.say(table(summary))
        return summary

    def _experiment(self, limits: Plan, minutes: float | None) -> tuple[dict[str, Any], Speed | None, Plan]:
        known = self.store.read("experiment.json")
        if known is not None:
            if known["fingerprint"] != self.settings.fingerprint:
                changed = [k for k, v in self.settings.as_dict().items() if known["settings"].get(k) != v]
                raise InputError(
                    f"{self.store.folder} holds an experiment with other settings ({', '.join(changed)}); choose another "
                    "output folder"
                )
            for split, file in (("train", "training"), ("test", "test")):
                if known.get("rows_sha256", self.data.sha256)[split] != self.data.sha256[split]:
                    raise InputError(
                        f"{self.store.folder} holds an experiment with other rows in the {file} file; choose another output "
                        "folder"
                    )
            plan = Plan(**known["plan"])
            self.say(f"going on with {_text(plan)}; {len(self._missing(plan))} cells are left")
            if minutes is not None and not known["speed"]:
                # It was started without a budget, which measures nothing.
                known["speed"] = asdict(self._measure())
            return known, Speed(**known["speed"]) if known["speed"] else None, plan
        rows = len(self._training_examples("sft-tag"))
        limits = Plan(limits.seeds, limits.epochs, min(limits.items, len(self.data.test)))
        speed = None
        plan = limits
        if minutes is not None:
            speed = self._measure()
            seconds = 60 * minutes - (time.monotonic() - self.started)
            plan = make_plan(limits, speed, rows, self.settings, seconds, self.cells)
            self.say(
                f"measured {speed.step_seconds:.3f} s a training step, {speed.token_seconds:.3f} s a generated token of "
                f"{self.settings.generation_batch} prompts; planned {_text(plan)}: at most "
                f"{plan_seconds(plan, speed, rows, self.settings, self.cells) / 60:.1f} of {seconds / 60:.1f} minutes"
            )
        else:
            self.say(f"no time budget: {_text(plan)}")
        experiment: dict[str, Any] = {
            "schema": SCHEMA,
            "fingerprint": self.settings.fingerprint,
            "settings": self.settings.as_dict(),
            "plan": plan.as_dict(),
            "speed": speed and asdict(speed),
            "environment": environment(),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "training_rows": rows,
            "training_tokens_per_epoch": sum(len(e.input_ids) for e in self._training_examples("sft-tag")),
            "rows_sha256": self.data.sha256,
            "test_rows_left_out": dict(self.data.left_out),
            "notes": self.data.notes,
            "seconds": 0.0,
        }
        self.store.write("experiment.json", experiment)
        return experiment, speed, plan

    def _measure(self) -> Speed:
        return measure(
            self.model, self.base, self.tokenizer, self.data, self._training_examples("sft-tag"), self.settings
        )

    def _missing(self, plan: Plan) -> list[tuple[int, Cell]]:
        return [
            (seed, cell) for seed in range(plan.seeds) for cell in self.cells if not self.store.done(cell.name, seed)
        ]

    def _expected_seconds(self, cell: Cell, plan: Plan, speed: Speed) -> float:
        """By the longest finished cell of the same name; before there is one, by the measured speed."""
        same = [found["seconds"] for found in self.store.cells() if found["cell"] == cell.name]
        rows = len(self._training_examples(cell.method))
        return 1.1 * max(same) if same else cell_seconds(cell, plan, speed, rows, self.settings)

    def _training_examples(self, method: str) -> Any:
        if method not in self._examples:
            tokenizer = with_template(self.tokenizer, METHODS[method], self.settings.system_message)
            self._examples[method] = training_examples(self.data, tokenizer, METHODS[method], self.settings)
        return self._examples[method]

    def _run_cell(self, cell: Cell, seed: int, plan: Plan) -> None:
        settings, method = self.settings, METHODS[cell.method]
        weights = self.base
        if cell.after is not None:
            handed = self.store.load_weights(cell.after, seed)
            if handed is None:
                self.say(f"seed {seed}, {cell.after}: its weights are gone, trained again")
                before = next(other for other in self.cells if other.name == cell.after)
                self._run_cell(before, seed, plan)
                handed = self.store.load_weights(cell.after, seed)
                assert handed is not None
            weights = handed
        started = time.monotonic()
        self.model.load_state_dict(weights)
        tokenizer = with_template(self.tokenizer, method, settings.system_message)
        rate, epochs = settings.learning_rate, plan.epochs
        if cell.after is not None:
            rate, epochs = settings.stage2_learning_rate or rate, epochs * settings.stage2_epochs
        result = fit(
            self.model,
            tokenizer,
            self._training_examples(cell.method),
            epochs=epochs,
            learning_rate=rate,
            seed=seed,
            context_grad=cell.context_grad,
            **settings.training,
        )
        if any(other.after == cell.name for other in self.cells):
            self.store.save_weights(cell.name, seed, weights_of(self.model))
        model = generation_copy(self.model)
        generating = time.monotonic()
        records = evaluate(model, tokenizer, self.data, method, plan.items, settings)
        generation_seconds = time.monotonic() - generating
        diagnosis = self._diagnose(model, tokenizer, cell) if cell.diagnosed and settings.diagnosis_rows else None
        metrics = {name: aggregate(records)[name][0] for name in ("acc", "fmt", "score")}
        self.store.write(
            self.store.cell_path(cell.name, seed).relative_to(self.store.folder),
            {
                "schema": SCHEMA,
                "fingerprint": settings.fingerprint,
                "cell": cell.name,
                "seed": seed,
                "method": cell.method,
                "after": cell.after,
                "context_grad": cell.context_grad,
                "plan": plan.as_dict(),
                "environment": environment(),
                "skipped_rows": self.data.skipped.get(cell.method, {}),
                "training": {"steps": result.steps, "seconds": round(result.seconds, 2), "curve": result.curve},
                "generation_seconds": round(generation_seconds, 2),
                "seconds": round(time.monotonic() - started, 2),
                "metrics": metrics,
                "diagnosis": diagnosis,
                "items": records,
            },
        )
        self.say(
            f"seed {seed}, {cell.name}: Acc {metrics['acc']:.4f}, Fmt {metrics['fmt']:.4f}, Score "
            f"{metrics['score']:.4f} ({result.steps} steps in {result.seconds:.0f} s, {len(records)} items in "
            f"{generation_seconds:.0f} s)"
        )
        if all(self.store.done(other.name, seed) for other in self.cells if other.after):
            for other in self.cells:
                self.store.drop_weights(other.name, seed)

    def _diagnose(self, model: Any, tokenizer: Any, cell: Cell) -> dict[str, Any] | None:
        method, settings = METHODS[cell.method], self.settings
        held_out = usable_rows(self.data, tokenizer, method, settings.diagnosis_rows, test=True)
        trained = usable_rows(self.data, tokenizer, method, settings.diagnosis_rows, test=False)
        if not held_out:
            self.say("no diagnosis: no test row has a thinking")
            return None

        def is_right(index: int, output: str) -> bool:
            return assess(output, held_out[index][0], self.data.dataset, plain=False).rule_verdict is RuleVerdict.SAME

        found = diagnose(
            model,
            example_tokenizer(self.data, tokenizer, method),
            [example for _, example in held_out],
            is_right,
            training_examples=[example for _, example in trained],
            batch_size=min(settings.generation_batch, 64),
            max_new_tokens=settings.max_new_tokens,
            gradient_rows=64,
        )
        self.say(verdict_text(found))
        return found.as_dict()


def _text(plan: Plan) -> str:
    return f"{plan.seeds} seeds, {plan.epochs:g} epochs, {plan.items} test items"


def _positive(kind: type[int] | type[float]) -> Any:
    def parse(text: str) -> float:
        number = kind(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"{text} isn't positive")
        return number

    return parse


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; every field of `Settings` is an option of the same name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the pretrained model")
    parser.add_argument("--dataset", required=True, choices=["gsm8k", "openbookqa", "columns"])
    parser.add_argument("--train", required=True, dest="train_file", help="JSONL rows to train on")
    parser.add_argument("--test", required=True, dest="test_file", help="JSONL rows to generate for")
    parser.add_argument("--output", required=True, type=Path, help="folder of cells and summary; goes on from there")
    parser.add_argument(
        "--minutes", type=_positive(float), help="time budget of this call; without it everything is run"
    )
    parser.add_argument("--seeds", type=_positive(int), default=5, help="at most so many seeds (default 5)")
    parser.add_argument("--epochs", type=_positive(float), default=3.0, help="at most so many epochs (default 3)")
    parser.add_argument("--items", type=_positive(int), default=10**9, help="at most so many test items (default all)")
    parser.add_argument(
        "--without-context-grad",
        "--answer-only-gradient",  # the old name
        action="store_true",
        help=f"also train {WITHOUT_CONTEXT_GRAD.name!r}: Stage 2 with sftkey_context_grad: false",
    )
    parser.add_argument(
        "--leave-out",
        nargs="+",
        default=[],
        choices=[cell.name for cell in CELLS if cell.name not in {other.after for other in CELLS}],
        help="strategies that are not trained",
    )
    for field in fields(Settings):
        if field.name not in ("model", "dataset", "train_file", "test_file"):
            kind = {"str": str, "int": int, "float": float}[str(field.type).split(" | ")[0]]
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=kind, default=field.default, help=f"default {field.default}"
            )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run an experiment from the command line; what a user can mend ends it with a short message."""
    try:
        _run(arguments(argv))
    except (InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def _run(options: argparse.Namespace) -> None:
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    wanted = (*CELLS, WITHOUT_CONTEXT_GRAD) if options.without_context_grad else CELLS
    cells = tuple(cell for cell in wanted if cell.name not in options.leave_out)
    Experiment(settings, options.output, cells=cells).run(
        Plan(options.seeds, options.epochs, options.items), options.minutes
    )


if __name__ == "__main__":
    main()
