"""``sftkey diagnose``: what Stage 2 can gain after a Stage 1 checkpoint, before it is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import echo, note, others_on_stderr, print_json
from sftkey.datasets.own_data import KINDS
from sftkey.evaluation.headroom import MEANINGS
from sftkey.util.errors import UserError
from sftkey.util.extras import extra

if TYPE_CHECKING:
    from sftkey.axolotl.rows import Sample
    from sftkey.stages.stage import Stage

_STDOUT = Path("-")


class _WithMeanings(click.Command):
    """Help that ends with what the numbers mean."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("What the numbers mean, by their names in the JSON"):
            formatter.write_dl(list(MEANINGS.items()))


@click.command("diagnose", cls=_WithMeanings)
@click.argument("stage1_output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", default=200, show_default=True, type=click.IntRange(min=1), help="How many held-out rows.")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Held-out rows (JSONL, in the form of the recipe's first data set). Default: the recipe's test_datasets, what its "
    "sftkey_held_out left out, or the published test split of its data.",
)
@click.option(
    "--answers",
    type=click.Choice(KINDS),
    help="What the answers of your own rows are. [default: the recipe's sftkey_answers]",
)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(min=1), help="Rows per forward pass.")
@click.option(
    "--max-new-tokens",
    default=512,
    show_default=True,
    type=click.IntRange(min=1),
    help="Limit of a generated response.",
)
@click.option("--gradient/--no-gradient", default=True, help="Without, half of the memory is enough.")
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run the code that STAGE1_OUTPUT names: its model's, and data sets' that aren't of this package.",
)
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value=str(_STDOUT),
    metavar="[FILE]",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Print JSON in place of the text, or write it to FILE, too; with the definitions of the numbers.",
)
def diagnose_command(
    stage1_output: Path,
    rows: int,
    data: Path | None,
    answers: str | None,
    batch_size: int,
    max_new_tokens: int,
    gradient: bool,
    trust_remote_code: bool,
    json_file: Path | None,
) -> None:
    """Tell what Stage 2 can gain from a Stage 1 checkpoint.

    STAGE1_OUTPUT is the output_dir of a finished sft-tag stage. The model answers held-out rows with its own thinking
    and with the reference thinking in its place: where it is wrong with both, the answer is to blame, which Stage 2
    trains; where it is wrong with its own only, the thinking is, which Stage 2 doesn't train. Rules only, no judge.
    """
    stage = _checked(stage1_output)
    with others_on_stderr():
        from sftkey.datasets.own_data import as_recipe_says
        from sftkey.evaluation.assess import assess
        from sftkey.evaluation.diagnosis import diagnose
        from sftkey.evaluation.generation import load_model
        from sftkey.evaluation.verdicts import RuleVerdict

        cfg, tokenizer = recipe_and_tokenizer(stage, trust_remote_code)
        held_out = held_out_rows(cfg, tokenizer, data, rows)
        try:
            on = as_recipe_says(held_out.tokenize.dataset, {}, answers)
        except ValueError as error:
            raise UserError(f"--answers: {error}") from error
        if json_file is not None:
            # Now, not after minutes of work.
            json_file.parent.mkdir(parents=True, exist_ok=True)
        trained = _training_rows(cfg, tokenizer, rows)

    def is_right(index: int, output: str) -> bool:
        row, form = held_out.usable[index][0], held_out.tokenize.tokenizer
        item = assess(output, row, on, plain=False, response_format=form.response_format, opened=form.opened)
        return item.rule_verdict is RuleVerdict.SAME

    if json_file != _STDOUT:
        echo(f"{stage1_output}: {held_out.source}")
    with others_on_stderr():
        diagnosis = diagnose(
            load_model(stage1_output, len(tokenizer), trust_remote_code),
            held_out.tokenize.tokenizer,
            [example for _, example in held_out.usable],
            is_right,
            training_examples=[example for _, example in trained.usable] if trained else (),
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            gradient_rows=64 if gradient else 0,
        )
    from sftkey.cli.diagnosis_text import report, verdict_text

    content = {
        "checkpoint": str(stage1_output),
        "held_out": held_out.source,
        "training_rows": trained and trained.source,
        "max_new_tokens": max_new_tokens,
        **diagnosis.as_dict(),
        "summary": verdict_text(diagnosis),
        "definitions": dict(MEANINGS),
    }
    if json_file == _STDOUT:
        print_json(content)
        return
    echo(report(diagnosis))
    if json_file is not None:
        json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _checked(output_dir: Path) -> Stage:
    """The stage in a directory.

    Raises:
        UserError: It isn't a finished ``sft-tag`` stage.
    """
    from sftkey.stages.marker import MARKER_FILE
    from sftkey.stages.stage import Stage

    stage = Stage.read(output_dir)
    if not stage.finished:
        raise UserError(f"{output_dir} is no finished stage: it holds no {MARKER_FILE}; train it first")
    if stage.method != "sft-tag":
        raise UserError(
            f"{output_dir} was made by {stage.method}; a diagnosis is about what Stage 2 can gain after sft-tag"
        )
    return stage


def recipe_and_tokenizer(stage: Stage, trust_remote_code: bool) -> tuple[Any, Any]:
    """The recipe that a stage was made with, as far as its rows need it, and the stage's tokenizer.

    Raises:
        UserError: The marker, which may be a stranger's, names code that would run, and the user doesn't.
    """
    from sftkey.axolotl.rows import prepared_for_rows
    from sftkey.evaluation.generation import load_tokenizer
    from sftkey.recipes.foreign_code import refuse_foreign_code
    from sftkey.stages.marker import MARKER_FILE

    with extra("axolotl"):
        from axolotl.utils.dict import DictDefault

    assert stage.marker is not None
    if not trust_remote_code:
        refuse_foreign_code(dict(stage.config), str(stage.output_dir / MARKER_FILE))
    cfg = DictDefault(stage.config)
    cfg.axolotl_config_path = str(stage.output_dir / stage.marker.recipe.name)
    cfg.tokenizer_config = str(stage.output_dir)  # whose chat template may be the one to use
    # It was checked when the stage was trained; its data may be elsewhere by now.
    cfg = prepared_for_rows(cfg)
    cfg.base_model = cfg.base_model_config = cfg.tokenizer_config = str(stage.output_dir)
    tokenizer = load_tokenizer(stage.output_dir, trust_remote_code)
    tokenizer.chat_template = cfg.chat_template_jinja
    return cfg, tokenizer


def held_out_rows(cfg: Any, tokenizer: Any, data: Path | None, rows: int) -> Sample:
    """A sample of the held-out rows.

    Raises:
        UserError: There are none.
    """
    from sftkey.axolotl.rows import entries, row_tokenizer
    from sftkey.recipes.entry_keys import LOADING

    tests = entries(cfg, "test_datasets")
    if data is not None:
        # All of its rows are for evaluation, and read as those of the recipe.
        cfg = type(cfg)({**cfg, "sftkey_held_out": None})
        names = {key: value for key, value in cfg.datasets[0].items() if key not in LOADING}
        tests = [type(cfg)({**names, "path": str(data), "type": cfg.datasets[0].type, "split": "train"})]
    if tests:
        if len({entry.type for entry in tests}) > 1:
            note(f"of test_datasets only the first, {tests[0].path}, is looked at")
        return _sample(tests[0], "test", cfg, tokenizer, rows, evaluation=True)
    entry = entries(cfg, "datasets")[0]
    dataset = row_tokenizer(entry, cfg, tokenizer).dataset
    if dataset.path is None and dataset.held_out is not None:
        return _sample(entry, "train", cfg, tokenizer, rows, evaluation=True)
    if dataset.path is None or dataset.evaluation_split is None:
        raise UserError(
            "the recipe has no test_datasets, so it isn't known which rows are held out: give some with --data FILE"
        )
    published = type(cfg)({**entry, "split": dataset.evaluation_split})
    return _sample(published, published.split, cfg, tokenizer, rows, evaluation=True)


def _training_rows(cfg: Any, tokenizer: Any, rows: int) -> Sample | None:
    """A sample of the recipe's first data set; ``None`` where the checkpoint is away from what it was trained on."""
    from sftkey.axolotl.rows import entries

    try:
        return _sample(entries(cfg, "datasets")[0], "train", cfg, tokenizer, rows, evaluation=False)
    except UserError as error:
        note(f"whether the training rows' answers are learned already isn't looked at: {error}")
        return None


def _sample(entry: Any, split: str, cfg: Any, tokenizer: Any, rows: int, *, evaluation: bool) -> Sample:
    from sftkey.axolotl.rows import reasons, sample_rows

    sample = sample_rows(entry, split, cfg, tokenizer, rows, evaluation=evaluation)
    if sample.skipped:
        note(f"{entry.path}: left out ({reasons(sample.skipped)})")
    return sample
