"""``sftkey init``: the recipes of both stages for rows of one's own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import echo, note, others_on_stderr, this_command
from sftkey.cli.options import known_keys
from sftkey.datasets.columns import COLUMNS
from sftkey.datasets.own_data import KINDS
from sftkey.util.errors import UserError
from sftkey.util.text import one_line, visible

if TYPE_CHECKING:
    from datasets import Dataset

    from sftkey.datasets.base import ReasoningDataset
    from sftkey.recipes.own_data import OwnData
    from sftkey.recipes.proposal import Proposal

_TYPE = "sftkey.datasets.columns"
_SHARES = (0.1, 0.2, 0.3, 0.5)
_MOST_HELD_OUT = 1_000
_MOST_MEASURED = 20_000
_BATCH = ("micro_batch_size", "gradient_accumulation_steps")
_NEEDED = ("question", "thinking", "answer")


@click.command("init")
@click.argument("data", type=click.Path(exists=True))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--model-id", metavar="ID", help="The base model: a name on the Hub or a folder.")
@click.option(
    "--test", metavar="FILE", type=click.Path(exists=True), help="Rows to evaluate, in place of a held-out part."
)
@click.option(
    "--question", metavar="COLUMN", help="The column of the question [default: proposed from the first rows]."
)
@click.option("--thinking", metavar="COLUMN", help="The column of the thinking.")
@click.option("--answer", metavar="COLUMN", help="The column of the answer.")
@click.option("--options", metavar="COLUMN", help="The column of the options, for multiple choice.")
@click.option("--answers", type=click.Choice(KINDS), help="What the answers are.")
@click.option("--gpus", type=click.IntRange(min=0), help="Number of GPUs to train on [default: this machine's].")
@click.option("--gpu-memory", type=click.IntRange(min=1), metavar="GB", help="The memory of each.")
@click.option("--output-root", metavar="DIR", help="Where outputs go, in place of outputs.")
@click.option(
    "-o",
    "--output",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where recipes go.",
)
@click.option("-y", "--yes", is_flag=True, help="Take what is proposed; ask nothing.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def init_command(
    data: str,
    overrides: tuple[str, ...],
    model_id: str | None,
    test: str | None,
    answers: str | None,
    gpus: int | None,
    gpu_memory: int | None,
    output_root: str | None,
    output: Path,
    yes: bool,
    force: bool,
    **given: str | None,
) -> None:
    """Write the recipes of both stages for rows of your own: JSON Lines, JSON, CSV, Parquet.

    Looks at the first rows of DATA and proposes which columns hold the question, the thinking and the answer, and what the
    answers are (number, maths, option or text); asks whether that is right, unless -y. A part of the rows is held out of
    training by a hash of the question and evaluated, or those of --test are. Batch and method (all weights, or an adapter)
    are those that fit the GPUs by the memory estimate. KEY=VALUE sets any key in both recipes, as in `sftkey recipe`.
    """
    from sftkey.recipes.proposal import ROWS

    with others_on_stderr():
        rows = _rows(data)
        named = {part: name for part in COLUMNS if (name := given[part])}
        proposal = _agreed(list(_first(rows, ROWS)), rows.column_names, named, answers, yes)
        own = _own_data(data, test, rows, proposal)
    model_id = model_id or (None if yes else click.prompt("Base model, a name on the Hub or a folder", err=True))
    if not model_id:
        raise UserError("--model-id: name the base model, such as Qwen/Qwen3-8B-Base or a folder")
    _write(own, rows, model_id, _machine(gpus, gpu_memory), overrides, output_root, output, force)


def _rows(data: str) -> Dataset:
    from sftkey.datasets.loading import entry_rows

    rows = entry_rows({"path": data, "type": _TYPE, "split": "train"}, "DATA")
    if not len(rows):
        raise UserError(f"{data}: it holds no rows")
    return rows


def _first(rows: Dataset, count: int) -> Dataset:
    return rows.select(range(min(len(rows), count)))


def _agreed(
    rows: Sequence[Mapping[str, Any]], there: list[str], named: Mapping[str, str], answers: str | None, yes: bool
) -> Proposal:
    """What is proposed, or what the user says instead."""
    from dataclasses import replace

    from sftkey.recipes.proposal import propose

    proposal = propose(rows, named, answers)
    names = {part: one_line(visible(str(name))) for part, name in proposal.columns.items()}
    shown = ", ".join(f"{part} {name}" for part, name in names.items())
    unnamed = [part for part in _NEEDED if part not in named]
    if yes or not unnamed:
        if unnamed and not proposal.sure:
            raise UserError(
                f"the columns can't be told apart for sure (the best guess: {shown}); name them with --question, --thinking "
                f"and --answer. There are {', '.join(one_line(visible(name)) for name in there[:20])}"
            )
        note(f"columns: {shown}; answers: {proposal.kind}")
        return proposal
    said = {
        part: click.prompt(
            f"Column of the {part} [{names[part]}]",
            default=proposal.columns[part],
            type=click.Choice(there),
            show_choices=False,
            show_default=False,
            err=True,
        )
        for part in unnamed
    }
    proposal = propose(rows, {**named, **said}, answers)
    kind = answers or click.prompt("The answers are", default=proposal.kind, type=click.Choice(KINDS), err=True)
    return replace(proposal, kind=kind)


def _own_data(data: str, test: str | None, rows: Dataset, proposal: Proposal) -> OwnData:
    """The keys of the recipes that are about the data, tried on the first rows."""
    from collections import Counter

    from sftkey.datasets.loading import entry_dataset
    from sftkey.evaluation.own_rows import own_rows
    from sftkey.format.example import SkippedRow
    from sftkey.recipes.own_data import OwnData
    from sftkey.recipes.proposal import ROWS

    entry = {"path": data, "split": "train", "type": _TYPE}
    renamed = {part: name for part, name in proposal.columns.items() if part == "options" or part != name}
    keys: dict[str, Any] = {"datasets": [entry], "sftkey_columns": renamed or None, "sftkey_answers": proposal.kind}
    keys = {key: value for key, value in keys.items() if value}
    on = entry_dataset(entry, keys)
    skipped: Counter[str] = Counter()
    looked = _first(rows, ROWS)
    for row in looked:
        try:
            on.to_example(row)
        except SkippedRow as reason:
            skipped[reason.reason] += 1
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    if sum(skipped.values()) == len(looked):
        raise UserError(f"{data}: none of its first {len(looked)} rows can be trained on ({reasons})")
    if skipped:
        note(f"of the first {len(looked)} rows are left out of training: {reasons}")
    comments = {
        "sftkey_answers": "# What the answers are, which decides how they are compared: number, maths, option or text.\n"
    }
    if test is not None:
        keys["test_datasets"] = [{**entry, "path": test}]
        comments["test_datasets"] = "# The rows that are evaluated; none of them should be in the training data.\n"
    else:
        keys["sftkey_held_out"] = share = _share(on, rows)
        comments["sftkey_held_out"] = (
            "# This share of the rows, by a hash of the question, is left out of training and evaluated.\n"
        )
        note(f"held out for evaluation: {share:g} of {len(rows):,} rows")
    own_rows(keys, data)  # what the evaluation would say against them
    return OwnData.of(keys, comments)


def _share(on: ReasoningDataset, rows: Dataset) -> float:
    """A tenth, of many rows less and of few more, so that some are held out."""
    from sftkey.datasets.holdout import row_is_held_out

    if len(rows) > _MOST_HELD_OUT * 10:
        return float(f"{_MOST_HELD_OUT / len(rows):.1g}")
    for share in _SHARES:
        count = sum(row_is_held_out(row, on.question_of, share) for row in rows)
        if 0 < count < len(rows):
            return share
    raise UserError(f"of {len(rows)} rows none is held out by the hash rule; add rows, or name others with --test FILE")


def _write(
    own: OwnData,
    rows: Dataset,
    model_id: str,
    machine: tuple[int, int],
    overrides: tuple[str, ...],
    output_root: str | None,
    output: Path,
    force: bool,
) -> None:
    from dataclasses import replace

    from sftkey.recipes.catalogue import shipped_recipe
    from sftkey.recipes.checks import check_recipe
    from sftkey.recipes.hub import config_of
    from sftkey.recipes.memory import architecture_of
    from sftkey.recipes.own_data import Target
    from sftkey.recipes.sizing import sequence_length, sizes
    from sftkey.recipes.writing import save_recipes, write_recipe

    folder, config = config_of(model_id)
    gpus, gigabytes = machine
    length = sequence_length(_texts(own, rows), _positive(config.get("max_position_embeddings")))
    shape = architecture_of(model_id) or architecture_of(folder)
    chosen = sizes(shape, length, gpus, gigabytes)
    method = {key: value for key, value in chosen.keys.items() if key not in _BATCH}
    comment = "# Longer rows are left out and counted: by the bytes of the first rows, 99 of 100 are shorter.\n"
    own = replace(
        own, keys={**own.keys, **method, "sequence_len": length}, comments={**own.comments, "sequence_len": comment}
    )
    written = write_recipe(
        shipped_recipe(chosen.pattern),
        model_id=model_id,
        output_root=output_root,
        overrides=[*(f"{key}={chosen.keys[key]}" for key in _BATCH), *overrides],
        file_name=f"{own.name}_stage2.yml",
        known_keys=known_keys,
        own=own,
        target=Target(
            this_command(), gpus or None, gigabytes if gpus else None, None if architecture_of(model_id) else folder
        ),
    )
    for recipe in written.chain:
        check_recipe(recipe.config)  # with the overrides
    for path in save_recipes(written.chain, output, force=force, option="-o"):
        echo(f"wrote {path}", err=True)
    for text in written.notes:
        note(text)
    if not gpus:
        note("written for the CPU of this machine; for GPUs say --gpus N --gpu-memory GB")
    echo(f"sftkey run {shlex.quote(str(output / written.file_name))} --eval")


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _texts(own: OwnData, rows: Dataset) -> Iterator[list[str]]:
    from sftkey.datasets.loading import entry_dataset
    from sftkey.format.example import SkippedRow

    on = entry_dataset(own.keys["datasets"][0], own.keys)
    for row in _first(rows, _MOST_MEASURED):
        with suppress(SkippedRow):
            example = on.to_example(row)
            yield [example.question, example.thinking, example.answer]


def _machine(gpus: int | None, gigabytes: int | None) -> tuple[int, int]:
    """The number of GPUs and the memory of each in GB, as far as they aren't given, by NVIDIA's driver."""
    found: list[int] = []
    if (gpus is None or (gpus and gigabytes is None)) and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
            found = [round(int(line) * 2**20 / 10**9) for line in answer.split()]
        visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible_devices is not None:
            found = found[: len([one for one in visible_devices.split(",") if one.strip() not in ("", "-1")])]
    gpus = len(found) if gpus is None else gpus
    if gpus and gigabytes is None and not found:
        raise UserError("--gpu-memory: say how many GB each of the GPUs has; there is none here to ask")
    return gpus, gigabytes or (min(found) if found else 0)
