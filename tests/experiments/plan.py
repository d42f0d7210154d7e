"""How many seeds, epochs and test items fit into a time budget, from speeds measured on the first steps."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from sftkey.evaluation.generation import complete
from sftkey.format.methods import METHODS
from sftkey.training.fit import fit, with_template
from sftkey.training.tokenization import TokenizedExample

from experiments.cells import CELLS, Cell
from experiments.data import Data, test_prompts
from experiments.models import Weights, generation_copy
from experiments.settings import Settings

PROBE_STEPS = 8
PROBE_WARMUP = 3
PROBE_TOKENS = 24
SHARE_OF_BUDGET = 0.85
"""What of the budget is planned for; the rest is for start-up, transfers and outputs longer than expected."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What the machine does.

    Attributes:
        step_seconds: An optimizer step on the whole tagged response, the slowest method.
        token_seconds: One more token for each prompt of a batch in generation.
    """

    step_seconds: float
    token_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the experiment is.

    Attributes:
        seeds: Every strategy is trained with seeds 0 to `seeds` - 1.
        epochs: Of a first stage.
        items: Test items per cell.
    """

    seeds: int
    epochs: float
    items: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def measure(
    model: Any, start: Weights, tokenizer: Any, data: Data, examples: list[TokenizedExample], settings: Settings
) -> Speed:
    """Train and generate for a moment; the model has the weights `start` again afterwards."""
    method = METHODS["sft-tag"]
    probe = fit(model, tokenizer, examples, epochs=1.0, learning_rate=1e-9, max_steps=PROBE_STEPS, **settings.training)
    model.load_state_dict(start)
    prompts = test_prompts(
        data, with_template(tokenizer, method, settings.system_message), method, settings.generation_batch
    )
    token_seconds = _seconds_per_token(generation_copy(model), tokenizer, prompts)
    return Speed(median(probe.step_seconds[PROBE_WARMUP:]), token_seconds)


def _seconds_per_token(model: Any, tokenizer: Any, prompts: list[list[int]]) -> float:
    def seconds(tokens: int) -> float:
        start = time.perf_counter()
        complete(model, tokenizer, prompts, max_new_tokens=tokens, min_new_tokens=tokens, batch_size=len(prompts))
        return time.perf_counter() - start

    seconds(2)
    return seconds(PROBE_TOKENS) / PROBE_TOKENS


def cell_seconds(cell: Cell, plan: Plan, speed: Speed, rows: int, settings: Settings) -> float:
    """How long a cell takes at most: training by its steps, generation as if no output ended before the limit."""
    epochs = plan.epochs * (settings.stage2_epochs if cell.after else 1.0)
    steps = math.ceil(epochs * math.ceil(rows / settings.batch_size))
    items = plan.items + (2 * settings.diagnosis_rows if cell.diagnosed else 0)
    batches = math.ceil(items / settings.generation_batch)
    return steps * speed.step_seconds + batches * settings.max_new_tokens * speed.token_seconds


def plan_seconds(plan: Plan, speed: Speed, rows: int, settings: Settings, cells: tuple[Cell, ...] = CELLS) -> float:
    """How long all cells of a plan take at most."""
    return plan.seeds * sum(cell_seconds(cell, plan, speed, rows, settings) for cell in cells)


def make_plan(
    limits: Plan, speed: Speed, rows: int, settings: Settings, seconds: float, cells: tuple[Cell, ...] = CELLS
) -> Plan:
    """The largest plan within the budget.

    It grows from the smallest: first to 200 items, one epoch, 500 items and two seeds, then to all epochs, all items,
    all seeds; a step that doesn't fit is taken as far as it does.

    Args:
        limits: The most of each.
        speed: What was measured.
        rows: Training rows.
        settings: The experiment.
        seconds: The budget.
        cells: What is trained for each seed.

    Returns:
        The plan; the smallest one where even that exceeds the budget.
    """
    choices: dict[str, list[float]] = {
        "seeds": list(range(1, limits.seeds + 1)),
        "epochs": [*(e for e in (0.1, 0.25, 0.5, 1.0, 2.0, 3.0) if e < limits.epochs), limits.epochs],
        "items": [*(n for n in (50, 100, 200, 300, 500, 1000) if n < limits.items), limits.items],
    }
    plan = Plan(1, choices["epochs"][0], int(choices["items"][0]))
    goals = (
        ("items", 200),
        ("epochs", 1.0),
        ("items", 500),
        ("seeds", 2),
        ("epochs", limits.epochs),
        ("items", limits.items),
        ("seeds", limits.seeds),
    )
    for name, goal in goals:
        for value in choices[name]:
            if getattr(plan, name) < value <= goal:
                grown = replace(plan, **{name: value})
                if plan_seconds(grown, speed, rows, settings, cells) <= SHARE_OF_BUDGET * seconds:
                    plan = grown
    return plan
