"""``sftkey init``: the recipes of both stages for rows of one's own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import echo, note, others_on_stderr, this_command
from sftkey.cli.options import known_keys
from sftkey.datasets.columns import COLUMNS
from sftkey.datasets.own_data import KINDS
from sftkey.util.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from sftkey.recipes.own_data import OwnData

_COMMENTS = {
    "sequence_len": "# Longer rows are left out and counted: by the bytes of the first rows, 99 of 100 are shorter.\n",
    "sftkey_format": "# <think> blocks in the model's own chat template; without both keys the paper's tags.\n",
}
_THINK = {"chat_template": "tokenizer_default", "sftkey_format": "think"}
_BATCH = ("micro_batch_size", "gradient_accumulation_steps")


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

    Looks at the first rows of DATA and proposes which columns hold the question, the thinking and the answer, or that
    they are conversations, and what the answers are (number, maths, option or text); asks whether that is right, unless
    -y. A part of the rows is held out of training by a hash of the question and evaluated, or those of --test are. Batch
    and method (all weights, or an adapter) are those that fit the GPUs by the memory estimate. KEY=VALUE sets any key in
    both recipes, as in `sftkey recipe`.
    """
    from sftkey.cli.init_data import agreed_data, rows_of

    with others_on_stderr():
        rows = rows_of(data)
        named = {part: name for part in COLUMNS if (name := given[part])}
        own, thinks = agreed_data(data, test, rows, named, answers, yes)
    model_id = model_id or (None if yes else click.prompt("Base model, a name on the Hub or a folder", err=True))
    if not model_id:
        raise UserError("--model-id: name the base model, such as Qwen/Qwen3-8B-Base or a folder")
    _write(own, thinks, rows, model_id, _machine(gpus, gpu_memory), overrides, output_root, output, force)


def _write(
    own: OwnData,
    thinks: bool | None,
    rows: Dataset,
    model_id: str,
    machine: tuple[int, int],
    overrides: tuple[str, ...],
    output_root: str | None,
    output: Path,
    force: bool,
) -> None:
    from dataclasses import replace

    from sftkey.cli.init_data import texts_of
    from sftkey.recipes.catalogue import shipped_recipe
    from sftkey.recipes.checks import check_recipe
    from sftkey.recipes.hub import config_of
    from sftkey.recipes.memory import architecture_of
    from sftkey.recipes.own_data import Target
    from sftkey.recipes.sizing import sequence_length, sizes
    from sftkey.recipes.writing import save_recipes, write_recipe

    folder, config = config_of(model_id)
    gpus, gigabytes = machine
    length = sequence_length(texts_of(own, rows), _positive(config.get("max_position_embeddings")))
    shape = architecture_of(model_id) or architecture_of(folder)
    chosen = sizes(shape, length, gpus, gigabytes)
    method = {key: value for key, value in chosen.keys.items() if key not in _BATCH}
    form = _THINK if thinks is not None and _writes_think(model_id, folder, thinks) else {}
    own = replace(
        own, keys={**own.keys, **method, **form, "sequence_len": length}, comments={**own.comments, **_COMMENTS}
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
    if form:
        note("responses are written as <think> blocks, in the model's own chat template")
    if not gpus:
        note("written for the CPU of this machine; for GPUs say --gpus N --gpu-memory GB")
    echo(f"sftkey run {shlex.quote(str(output / written.file_name))} --eval")


def _writes_think(model_id: str, folder: str, thinks: bool) -> bool:
    """Whether the model is to write ``<think>`` blocks in its own chat template: as the rows do, or as it does already."""
    from sftkey.datasets.think_block import THINK_OPEN
    from sftkey.stages.handover import template_in

    template = template_in(Path(folder))
    if template is None:  # of a name on the Hub it may be there all the same
        return thinks and not Path(model_id).is_dir()
    return thinks or THINK_OPEN in template


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


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
