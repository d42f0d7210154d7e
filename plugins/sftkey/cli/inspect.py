"""``sftkey inspect``: what a recipe will train on, before any GPU is rented.

Rows go through the code that makes the training data, so the counts are those of training. The recipe isn't validated
against this machine's hardware: one for bf16, DeepSpeed and eight GPUs can be inspected on a laptop. Nothing
is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import echo, in_color, is_quiet, json_option, others_on_stderr, print_json
from sftkey.util.errors import UserError
from sftkey.util.extras import extra
from sftkey.util.text import visible

if TYPE_CHECKING:
    from sftkey.training.inspection import DatasetStatistics
    from sftkey.training.tokenization import TokenizedExample


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rows", default=3, show_default=True, type=click.IntRange(min=0), help="How many rows to show in full.")
@click.option("--color/--no-color", default=None, help="Mark trained tokens by colour; default: in a terminal only.")
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run the code that RECIPE names: its model's (trust_remote_code), and data sets' that aren't of this package.",
)
@json_option
def inspect_command(recipe: Path, rows: int, color: bool | None, trust_remote_code: bool, as_json: bool) -> None:
    """Show what RECIPE will train on, before any GPU is rented.

    For a few rows of each data set the text with the trained tokens marked; over all rows how many are used or skipped
    and why, lengths in tokens, and the share of trained tokens.
    """
    color = in_color(color)
    with others_on_stderr():
        from sftkey.datasets.registry import naming_keys
        from sftkey.format.methods import METHODS
        from sftkey.training.inspection import render_colour, render_plain, table

        cfg, notes = recipe_to_inspect(recipe, trust_remote_code)
        tokenizer = _load_tokenizer(cfg)
    method = METHODS[cfg.sftkey_method]
    if not as_json:
        echo(f"{recipe}: {method.name}, {method.summary}")
        for text in () if is_quiet() else notes:
            echo(f"note: {text}")

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    found: dict[str, DatasetStatistics] = {}
    empty: list[str] = []
    for label, entry, split in _entries(cfg):
        with others_on_stderr():
            found[label], shown, held = _read_rows(label, entry, split, cfg, tokenizer, rows)
        if not found[label].kept:
            empty.append(f"{label} ({held}. {naming_keys(entry.type)})")
        if as_json:
            continue
        echo(f"\n== {label} ==")
        for index, example in shown:
            render = render_colour if color else render_plain
            echo(f"\nrow {index}, {len(example.input_ids):,} tokens")
            click.echo(render(example, decode), file=_stdout(color), color=color)
        echo(f"\n{table(found[label])}")
    if as_json:
        data = [{"data": label, **statistics.as_dict()} for label, statistics in found.items()]
        print_json({"recipe": str(recipe), "method": method.name, "notes": notes, "data": data})
    if empty:
        raise UserError(f"no row can be used of {'; '.join(empty)}: training would stop there")


def _stdout(color: bool) -> Any:
    """Where to write: for colours past colorama, which Axolotl starts and which takes them out of a pipe to a pager."""
    with extra("axolotl"):
        from colorama import initialise

    return initialise.orig_stdout if color and sys.stdout is initialise.wrapped_stdout else sys.stdout


def recipe_to_inspect(path: Path, trust_remote_code: bool = False) -> tuple[Any, list[str]]:
    """Read a recipe as far as its data needs it: method, template, tokens, tokenizer, data sets.

    Args:
        path: The recipe file.
        trust_remote_code: Whether the code that it names may run.

    Returns:
        The recipe, prepared as for training but not validated, and remarks for the user.

    Raises:
        UserError: The recipe, or one that it comes after, has to be changed.
    """
    from sftkey.axolotl.known_keys import known_keys
    from sftkey.axolotl.rows import prepared_for_rows
    from sftkey.recipes.checks import check_recipe
    from sftkey.recipes.foreign_code import refuse_foreign_code
    from sftkey.recipes.hub import check_hub_data
    from sftkey.recipes.load import load_recipe
    from sftkey.recipes.machine import obstacles
    from sftkey.recipes.unknown_keys import check_keys

    with extra("axolotl"):
        from axolotl.utils.dict import DictDefault

    cfg = DictDefault(load_recipe(path))
    cfg.axolotl_config_path = str(path)
    if not trust_remote_code:
        refuse_foreign_code(cfg, str(path))
    check_recipe(cfg)
    _refuse_missing_plugin(cfg)
    notes = check_keys(cfg, known_keys())
    check_hub_data(cfg)
    notes += _start(cfg)
    # Places alone: a GPU and packages are those of the machine that trains.
    missing = obstacles(cfg, accelerator=False, trains=False)
    notes += [f"axolotl train would stop on this machine: {one}" for one in missing]
    cfg = prepared_for_rows(cfg)
    cfg.base_model_config = cfg.base_model_config or cfg.base_model
    cfg.tokenizer_config = cfg.tokenizer_config or cfg.base_model_config
    if cfg.val_set_size:
        notes.append(f"val_set_size: {cfg.val_set_size} of the rows below are set aside for evaluation")
    if cfg.dataset_exact_deduplication:
        notes.append("dataset_exact_deduplication: rows that occur twice are counted twice below, and trained on once")
    return cfg, notes


def _refuse_missing_plugin(cfg: Any) -> None:
    """Say what Axolotl says, or goes on without, where a plugin isn't there; with known names those keys count as known."""
    from sftkey.recipes.plugins import check_plugins

    with extra("axolotl"):
        from axolotl.integrations.base import PluginManager

    check_plugins(cfg)
    for name in cfg.plugins:
        if name.startswith(("sftkey.", "axolotl.")):  # no other code runs here
            PluginManager.get_instance().register(name)


def _start(cfg: Any) -> list[str]:
    """Point the recipe at a tokenizer: that of the nearest finished stage before it, else that of the first one's model."""
    from sftkey.stages.handover import stages_before, start_from

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
    with extra("axolotl"):
        from axolotl.loaders import load_tokenizer

    try:
        return load_tokenizer(cfg)
    except OSError as error:
        raise UserError(f"base_model: {cfg.base_model}: no tokenizer and model config there ({error})") from error


def _entries(cfg: Any) -> Iterator[tuple[str, Any, str]]:
    """Each data set of the recipe: how it is called, its entry, the split that is its default."""
    from sftkey.axolotl.rows import entries

    for key, split in (("datasets", "train"), ("test_datasets", "test")):
        for entry in entries(cfg, key):
            names = [str(entry[part]) for part in ("path", "name", "split") if entry[part]]
            yield f"{key}: {visible(' '.join(names))}", entry, split


def _read_rows(
    label: str, entry: Any, split: str, cfg: Any, tokenizer: Any, shown: int
) -> tuple[DatasetStatistics, list[tuple[int, TokenizedExample]], str]:
    """Send all rows of a data set through the tokenization of training.

    Returns:
        The statistics, the first `shown` rows that are used with their indices, and what the first row holds.
    """
    from sftkey.axolotl.rows import load_rows, row_tokenizer
    from sftkey.datasets.first_row import first_row
    from sftkey.training.inspection import COMPARED_ROWS, DatasetStatistics
    from sftkey.training.own_template import OwnTemplateTokenizer
    from sftkey.training.prepare import batch_rows

    tokenize = row_tokenizer(entry, cfg, tokenizer)
    own = tokenize.tokenizer if isinstance(tokenize.tokenizer, OwnTemplateTokenizer) else None
    dataset = load_rows(entry, split, cfg, tokenizer)
    statistics = DatasetStatistics(tokenize.sequence_len)
    # Longer rows are measured before they are dropped, to tell which sequence_len would keep them.
    tokenize.sequence_len = sys.maxsize
    examples: list[tuple[int, TokenizedExample]] = []
    with click.progressbar(length=len(dataset), label=label, file=sys.stderr, hidden=is_quiet()) as progress:
        for batch in dataset.iter(batch_size=batch_rows(dataset)):
            published: list[Mapping[str, Any]] = [
                dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
            ]
            try:
                rows = list(tokenize.expand(published))
                results = tokenize.each(rows)
            except KeyError as error:
                raise UserError(f"{label}: {error.args[0]}") from error
            for row, result in zip(rows, results, strict=True):
                kept = statistics.kept
                statistics.add(result)
                if statistics.kept == kept or isinstance(result, str):
                    continue
                if len(examples) < shown:
                    examples.append((statistics.rows - 1, result))
                if own is not None and statistics.compared < COMPARED_ROWS:
                    statistics.compare(own.is_as_rendered(tokenize.example(row), result))
            progress.update(len(published))
    return statistics, examples, first_row(dataset)
