"""``axolotl sftkey diagnose``: what Stage 2 can gain from a Stage 1 checkpoint, before it is trained."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from sftkey.evaluation.diagnosis_terms import MEANINGS
from sftkey.util.errors import UserError

if TYPE_CHECKING:
    from sftkey.format.example import Example
    from sftkey.training.rows import RowTokenizer


class _Rows(NamedTuple):
    """A sample of rows.

    Attributes:
        source: Where they come from, for people.
        tokenize: The tokenization of their data set.
        usable: Each row with its example.
    """

    source: str
    tokenize: RowTokenizer
    usable: list[tuple[dict[str, Any], Example]]


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
    help="Held-out rows (JSONL, in the form of the recipe's first data set). Default: the recipe's test_datasets, or the "
    "published test split of its data.",
)
@click.option(
    "--answers",
    type=click.Choice(["number", "maths", "text"]),
    help="What the answers of your own rows are. [default: text, which knows numbers, too]",
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
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the numbers there, too, with their definitions.",
)
def diagnose_command(
    stage1_output: Path,
    rows: int,
    data: Path | None,
    answers: str | None,
    batch_size: int,
    max_new_tokens: int,
    gradient: bool,
    json_file: Path | None,
) -> None:
    """Tell what Stage 2 can gain from a Stage 1 checkpoint.

    STAGE1_OUTPUT is the output_dir of a finished sft-tag stage. The model answers held-out rows with its own thinking
    and with the reference thinking in its place: where it is wrong with both, the answer is to blame, which Stage 2
    trains; where it is wrong with its own only, the thinking is, which Stage 2 doesn't train. Rules only, no judge.
    """
    from sftkey.datasets.base import AnswerKind
    from sftkey.evaluation.assess import assess
    from sftkey.evaluation.diagnosis import diagnose, report, verdict_text
    from sftkey.evaluation.verdicts import RuleVerdict

    cfg, tokenizer = _stage(stage1_output)
    held_out = _held_out(cfg, tokenizer, data, rows)
    try:
        on = held_out.tokenize.dataset.with_kind(AnswerKind(answers) if answers else None)
    except ValueError as error:
        raise UserError(f"--answers: {error}") from error
    if json_file is not None:
        # Now, not after minutes of work.
        json_file.parent.mkdir(parents=True, exist_ok=True)

    def is_right(index: int, output: str) -> bool:
        return assess(output, held_out.usable[index][0], on, plain=False).rule_verdict is RuleVerdict.SAME

    try:
        trained = _training_rows(cfg, tokenizer, rows)
    except UserError as error:
        # A checkpoint may be away from the data that it was trained on.
        click.echo(f"note: whether the training rows' answers are learned already isn't looked at: {error}", err=True)
        trained = None
    click.echo(f"{stage1_output}: {held_out.source}")
    diagnosis = diagnose(
        _load_model(stage1_output, len(tokenizer)),
        held_out.tokenize.tokenizer,
        [example for _, example in held_out.usable],
        is_right,
        training_examples=[example for _, example in trained.usable] if trained else (),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        gradient_rows=64 if gradient else 0,
    )
    click.echo(report(diagnosis))
    if json_file is not None:
        content = {
            "checkpoint": str(stage1_output),
            "held_out": held_out.source,
            "training_rows": trained and trained.source,
            "max_new_tokens": max_new_tokens,
            **diagnosis.as_dict(),
            "summary": verdict_text(diagnosis),
            "definitions": dict(MEANINGS),
        }
        json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _stage(output_dir: Path) -> tuple[Any, Any]:
    """The recipe that a stage was made with, as far as its data needs it, and the stage's tokenizer.

    Raises:
        UserError: The stage isn't a finished ``sft-tag`` stage.
    """
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from transformers import AutoTokenizer

    from sftkey.axolotl.preparation import prepare_recipe
    from sftkey.stages.marker import MARKER_FILE, Marker

    try:
        marker = Marker.read(output_dir)
    except ValueError as error:
        raise UserError(str(error)) from error
    if marker is None:
        raise UserError(f"{output_dir} is no finished stage: it holds no {MARKER_FILE}; train it first")
    if marker.method != "sft-tag":
        raise UserError(
            f"{output_dir} was made by {marker.method}; a diagnosis is about what Stage 2 can gain after sft-tag"
        )
    cfg = DictDefault(marker.recipe.config)
    cfg.axolotl_config_path = str(output_dir / marker.recipe.name)
    # It was checked when the stage was trained; its data may be elsewhere by now.
    prepare_recipe(cfg)
    cfg = DictDefault(cfg.to_dict())
    if cfg.sequence_len is None:
        cfg.sequence_len = AxolotlInputConfig.model_fields["sequence_len"].default
    cfg.base_model = cfg.base_model_config = cfg.tokenizer_config = str(output_dir)
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    tokenizer.chat_template = cfg.chat_template_jinja
    return cfg, tokenizer


def _held_out(cfg: Any, tokenizer: Any, data: Path | None, rows: int) -> _Rows:
    """Held-out rows as `_usable` gives them.

    Raises:
        UserError: There are none.
    """
    from axolotl.utils.data.shared import datasets_with_name_generator

    from sftkey.cli.inspect import row_tokenizer

    entries = list(datasets_with_name_generator(cfg.test_datasets or []))
    if data is not None:
        entries = [type(cfg)({"path": str(data), "type": cfg.datasets[0].type, "split": "train"})]
    if entries:
        if len({entry.type for entry in entries}) > 1:
            click.echo(f"note: of test_datasets only the first, {entries[0].path}, is looked at", err=True)
        return _usable(entries[0], "test", cfg, tokenizer, rows, evaluation=True)
    entry = next(iter(datasets_with_name_generator(cfg.datasets)))
    dataset = row_tokenizer(entry, cfg, tokenizer).dataset
    if dataset.path is None:
        raise UserError(
            "the recipe has no test_datasets, so it isn't known which rows are held out: give some with --data FILE"
        )
    published = type(cfg)({**entry, "split": dataset.test_split or dataset.train_split})
    return _usable(published, published.split, cfg, tokenizer, rows, evaluation=True)


def _training_rows(cfg: Any, tokenizer: Any, rows: int) -> _Rows:
    """Rows of the recipe's first data set as `_usable` gives them."""
    from axolotl.utils.data.shared import datasets_with_name_generator

    entry = next(iter(datasets_with_name_generator(cfg.datasets)))
    return _usable(entry, "train", cfg, tokenizer, rows, evaluation=False)


def _usable(entry: Any, split: str, cfg: Any, tokenizer: Any, rows: int, *, evaluation: bool) -> _Rows:
    """A random sample (the same at every call) of the rows of an entry that can be tokenised.

    Raises:
        UserError: There are none, or they can't be read.
    """
    from datasets.exceptions import DatasetsError

    from sftkey.cli.inspect import load_rows, row_tokenizer
    from sftkey.format.example import SkippedRow

    tokenize = row_tokenizer(entry, cfg, tokenizer)
    tokenize.evaluation = evaluation
    try:
        with _quiet():
            dataset = load_rows(entry, split, cfg, tokenizer).shuffle(seed=0)
    except UserError:
        raise
    except StopIteration:
        # What datasets makes of an empty file.
        raise UserError(f"{entry.path}: it holds no rows") from None
    except (OSError, ValueError, DatasetsError) as error:
        cause = error.__cause__ or error
        raise UserError(f"{entry.path}: its rows can't be read ({type(cause).__name__}: {cause})") from error
    usable: list[tuple[dict[str, Any], Example]] = []
    skipped: Counter[str] = Counter()
    for row in dataset:
        if len(usable) == rows:
            break
        try:
            usable.append((row, tokenize.example(row)))
        except SkippedRow as reason:
            skipped[reason.reason] += 1
        except KeyError as error:
            raise UserError(f"{entry.path}: {error.args[0]}") from error
    reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
    if not usable:
        raise UserError(
            f"{entry.path}: none of its {len(dataset)} rows can be used ({reasons}); a row needs a question, a reference "
            "thinking and an answer"
            if skipped
            else f"{entry.path}: it holds no rows"
        )
    if skipped:
        click.echo(f"{entry.path}: left out {reasons}", err=True)
    # A file has but one split, whatever it is called.
    named_split = None if Path(str(entry.path)).is_file() else entry.split
    names = [str(part) for part in (entry.path, entry.name, named_split) if part]
    return _Rows(f"{len(usable):,} of {len(dataset):,} rows of {' '.join(names)}", tokenize, usable)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Axolotl's remarks on loading."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _load_model(folder: Path, tokens: int) -> Any:
    """The checkpoint on the GPU in bf16, or on the CPU in fp32; an adapter is merged into its base model.

    Args:
        folder: The stage's output directory.
        tokens: The size of its tokenizer.

    Raises:
        UserError: There are no weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    source = folder
    try:
        if (folder / "adapter_config.json").is_file():
            from peft import PeftConfig

            source = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.bfloat16 if on_gpu else torch.float32, attn_implementation="sdpa"
        )
        if source != folder:
            model = _with_adapter(model, folder, tokens)
    except OSError as error:
        where = folder if source == folder else f"{source}, the base model of the adapter in {folder}"
        raise UserError(f"{where}: its weights can't be loaded ({error})") from error
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model.to("cuda" if on_gpu else "cpu")


def _with_adapter(model: Any, folder: Path, tokens: int) -> Any:
    from peft import PeftModel
    from transformers import AutoConfig

    # As it was in training: room for added tag tokens, and as much padding as the stage's config says.
    config = folder / "config.json"
    size = max(tokens, AutoConfig.from_pretrained(folder).vocab_size if config.is_file() else 0)
    if size > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    adapted: Any = PeftModel.from_pretrained(model, str(folder))
    return adapted.merge_and_unload()
