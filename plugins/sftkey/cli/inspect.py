"""``axolotl sftkey inspect``: what a recipe will train on, before any GPU is rented.

Rows go through the code that makes the training data, so the counts are those of training. The recipe isn't validated
against this machine's hardware: one for bf16, DeepSpeed and eight GPUs can be inspected on a laptop. Nothing
is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from sftkey.axolotl.preparation import prepare_recipe
from sftkey.format.methods import METHODS
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.hub import check_hub_data
from sftkey.recipes.load import load_recipe
from sftkey.stages.handover import stages_before, start_from
from sftkey.training.inspection import DatasetStatistics, render_colour, render_plain, table, visible
from sftkey.training.rows import RowTokenizer
from sftkey.training.tokenization import TokenizedExample
from sftkey.util.errors import UserError

_BATCH = 1_000


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rows", default=3, show_default=True, type=click.IntRange(min=0), help="How many rows to show in full.")
@click.option("--color/--no-color", default=None, help="Mark trained tokens by colour; default: in a terminal only.")
def inspect_command(recipe: Path, rows: int, color: bool | None) -> None:
    """Show what RECIPE will train on, before any GPU is rented.

    For a few rows of each data set the text with the trained tokens marked; over all rows how many are used or skipped
    and why, lengths in tokens, and the share of trained tokens.
    """
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    cfg, notes = recipe_to_inspect(recipe)
    tokenizer = _load_tokenizer(cfg)
    method = METHODS[cfg.sftkey_method]
    click.echo(f"{recipe}: {method.name}, {method.summary}")
    for note in notes:
        click.echo(f"note: {note}")

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    empty = []
    for label, entry, split in _entries(cfg):
        statistics, shown = _read_rows(label, entry, split, cfg, tokenizer, rows)
        click.echo(f"\n== {label} ==")
        for index, example in shown:
            render = render_colour if color else render_plain
            click.echo(f"\nrow {index}, {len(example.input_ids):,} tokens")
            click.echo(render(example, decode), file=_stdout(color), color=color)
        click.echo(f"\n{table(statistics)}")
        if not statistics.kept:
            empty.append(label)
    if empty:
        raise UserError(f"no row can be used of {'; '.join(empty)}: training would stop there")


def _stdout(color: bool) -> Any:
    """Where to write: for colours past colorama, which Axolotl starts and which takes them out of a pipe to a pager."""
    from colorama import initialise

    return initialise.orig_stdout if color and sys.stdout is initialise.wrapped_stdout else sys.stdout


def recipe_to_inspect(path: Path) -> tuple[Any, list[str]]:
    """Read a recipe as far as its data needs it: method, template, tokens, tokenizer, data sets.

    Args:
        path: The recipe file.

    Returns:
        The recipe, prepared as for training but not validated, and remarks for the user.

    Raises:
        UserError: The recipe, or one that it comes after, has to be changed.
    """
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlInputConfig

    cfg = DictDefault(load_recipe(path))
    cfg.axolotl_config_path = str(path)
    check_recipe(cfg)
    check_hub_data(cfg)
    notes = _start(cfg)
    prepare_recipe(cfg)
    # Again, so that what was written into it is made of the same type all the way down.
    cfg = DictDefault(cfg.to_dict())
    if cfg.sequence_len is None:
        cfg.sequence_len = AxolotlInputConfig.model_fields["sequence_len"].default
    cfg.base_model_config = cfg.base_model_config or cfg.base_model
    cfg.tokenizer_config = cfg.tokenizer_config or cfg.base_model_config
    if cfg.val_set_size:
        notes.append(f"val_set_size: {cfg.val_set_size} of the rows below are set aside for evaluation")
    if cfg.dataset_exact_deduplication:
        notes.append("dataset_exact_deduplication: rows that occur twice are counted twice below, and trained on once")
    return cfg, notes


def _start(cfg: Any) -> list[str]:
    """Point the recipe at a tokenizer: that of the nearest finished stage before it, else that of the first one's model."""
    recipe, missing = cfg, []
    for stage in stages_before(cfg):
        if stage.finished:
            start_from(recipe)
            break
        missing.append(stage.recipe.name)
        recipe = dict(stage.config)
    if not recipe.get("base_model"):
        raise UserError(f"{recipe['axolotl_config_path']}: base_model is missing")
    for key in ("base_model", "base_model_config", "tokenizer_config", "revision_of_model"):
        cfg[key] = recipe.get(key)
    return [f"{name} has not been run yet; the tokenizer is that of {cfg.base_model}" for name in reversed(missing)]


def _load_tokenizer(cfg: Any) -> Any:
    from axolotl.loaders import load_tokenizer

    try:
        return load_tokenizer(cfg)
    except OSError as error:
        raise UserError(f"base_model: {cfg.base_model}: no tokenizer and model config there ({error})") from error


def _entries(cfg: Any) -> Iterator[tuple[str, Any, str]]:
    """Each data set of the recipe: how it is called, its entry, the split that is its default."""
    from axolotl.utils.data.shared import datasets_with_name_generator

    for key, split in (("datasets", "train"), ("test_datasets", "test")):
        for entry in datasets_with_name_generator(cfg[key] or []):
            names = [str(entry[part]) for part in ("path", "name", "split") if entry[part]]
            yield f"{key}: {visible(' '.join(names))}", entry, split


def _read_rows(
    label: str, entry: Any, split: str, cfg: Any, tokenizer: Any, shown: int
) -> tuple[DatasetStatistics, list[tuple[int, TokenizedExample]]]:
    """Send all rows of a data set through the tokenization of training.

    Returns:
        The statistics, and the first `shown` rows that are used with their indices.
    """
    tokenize = row_tokenizer(entry, cfg, tokenizer)
    dataset = load_rows(entry, split, cfg, tokenizer)
    statistics = DatasetStatistics(tokenize.sequence_len)
    # Longer rows are measured before they are dropped, to tell which sequence_len would keep them.
    tokenize.sequence_len = sys.maxsize
    examples: list[tuple[int, TokenizedExample]] = []
    with click.progressbar(length=len(dataset), label=label, file=sys.stderr) as progress:
        for batch in dataset.iter(batch_size=_BATCH):
            rows: list[Mapping[str, Any]] = [
                dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
            ]
            try:
                results = tokenize(rows)
            except KeyError as error:
                raise UserError(f"{label}: {error.args[0]}") from error
            for result in results:
                kept = statistics.kept
                statistics.add(result)
                if statistics.kept > kept and len(examples) < shown and not isinstance(result, str):
                    examples.append((statistics.rows - 1, result))
            progress.update(len(rows))
    return statistics, examples


def row_tokenizer(entry: Any, cfg: Any, tokenizer: Any) -> RowTokenizer:
    # Here, because it brings datasets, which --help doesn't need.
    from axolotl.prompt_strategies import load

    from sftkey.axolotl.strategy import SegmentedDatasetStrategy

    strategy = load(entry.type, tokenizer, cfg, entry)
    if not isinstance(strategy, SegmentedDatasetStrategy):
        raise UserError(f"datasets: type {entry.type}: there is no such module with a `load` of this package")
    return strategy.tokenize


def load_rows(entry: Any, split: str, cfg: Any, tokenizer: Any) -> Any:
    """The rows of an entry as Axolotl hands them to the strategy: the same split, shard and sample."""
    from axolotl.utils.data.sft import _load_and_process_single_dataset

    unprepared = type(cfg)({**cfg, "skip_prepare_dataset": True})
    dataset, _ = _load_and_process_single_dataset(
        dataset_config=entry, cfg=unprepared, tokenizer=tokenizer, split=split, seed=cfg.seed
    )
    return dataset
