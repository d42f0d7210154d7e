"""Rows of a recipe's data sets as training reads them, for commands that train nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from axolotl.prompt_strategies import load
from axolotl.utils.data.sft import _load_and_process_single_dataset
from axolotl.utils.data.shared import datasets_with_name_generator
from axolotl.utils.dict import DictDefault
from axolotl.utils.schemas.config import AxolotlInputConfig
from datasets.exceptions import DatasetsError

from sftkey.axolotl.preparation import prepare_recipe
from sftkey.axolotl.strategy import SegmentedDatasetStrategy
from sftkey.datasets.data_files import check_data_files
from sftkey.datasets.first_row import first_row
from sftkey.datasets.registry import naming_keys
from sftkey.format.example import Example, SkippedRow
from sftkey.training.rows import RowTokenizer
from sftkey.util.errors import UserError


class Sample(NamedTuple):
    """Rows of one data set that can be tokenised.

    Attributes:
        source: How many of which rows, for people.
        tokenize: The tokenization of the data set.
        usable: Each row with its example.
        skipped: Reason -> rows left out.
    """

    source: str
    tokenize: RowTokenizer
    usable: list[tuple[dict[str, Any], Example]]
    skipped: Counter[str]


def prepared_for_rows(cfg: Any) -> Any:
    """Prepare a checked recipe as far as its rows need it: as for training, but not validated against this machine."""
    prepare_recipe(cfg)
    # Again, so that what was written into it is made of the same type all the way down.
    cfg = DictDefault(cfg.to_dict())
    if cfg.sequence_len is None:
        cfg.sequence_len = AxolotlInputConfig.model_fields["sequence_len"].default
    return cfg


def entries(cfg: Any, key: str) -> list[Any]:
    """The entries of ``datasets`` or ``test_datasets``, one for each name of an entry that has several."""
    return list(datasets_with_name_generator(cfg[key] or []))


def row_tokenizer(entry: Any, cfg: Any, tokenizer: Any) -> RowTokenizer:
    """The tokenization of an entry's rows, as its ``type`` says.

    Raises:
        UserError: The type isn't a data set of this package's kind.
    """
    strategy = load(entry.type, tokenizer, cfg, entry)
    if not isinstance(strategy, SegmentedDatasetStrategy):
        raise UserError(f"datasets: type {entry.type}: there is no such module with a `load` of this package")
    return strategy.tokenize


def load_rows(entry: Any, split: str, cfg: Any, tokenizer: Any) -> Any:
    """The rows of an entry as Axolotl hands them to the strategy: the same split, shard and sample.

    Raises:
        UserError: They can't be read.
    """
    check_data_files(entry)
    unprepared = type(cfg)({**cfg, "skip_prepare_dataset": True})
    try:
        dataset, _ = _load_and_process_single_dataset(
            dataset_config=entry, cfg=unprepared, tokenizer=tokenizer, split=split, seed=cfg.seed
        )
    except UserError:
        raise
    except StopIteration:
        # What datasets makes of an empty file.
        raise UserError(f"{entry.path}: it holds no rows") from None
    except (OSError, ValueError, DatasetsError) as error:
        cause = error.__cause__ or error
        raise UserError(f"{entry.path}: its rows can't be read ({type(cause).__name__}: {cause})") from error
    return dataset


def sample_rows(entry: Any, split: str, cfg: Any, tokenizer: Any, rows: int, *, evaluation: bool) -> Sample:
    """Draw a random sample, the same at every call, of the rows of an entry that can be tokenised.

    Args:
        entry: The entry.
        split: Its default split.
        cfg: The prepared recipe.
        tokenizer: The stage's tokenizer.
        rows: The most rows.
        evaluation: Whether to read them as held-out rows.

    Raises:
        UserError: There are none, or they can't be read.
    """
    tokenize = row_tokenizer(entry, cfg, tokenizer)
    tokenize.evaluation = evaluation
    dataset = load_rows(entry, split, cfg, tokenizer).shuffle(seed=0)
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
    if not usable:
        raise UserError(
            f"{entry.path}: none of its {len(dataset)} rows can be used ({reasons(skipped)}); a row needs a question, a "
            f"reference thinking and an answer. {first_row(dataset)}. {naming_keys(entry.type)}"
            if skipped
            else f"{entry.path}: it holds no rows"
        )
    # A file has but one split, whatever it is called.
    named_split = None if Path(str(entry.path)).is_file() else entry.split
    names = [str(part) for part in (entry.path, entry.name, named_split) if part]
    return Sample(f"{len(usable):,} of {len(dataset):,} rows of {' '.join(names)}", tokenize, usable, skipped)


def reasons(skipped: Counter[str]) -> str:
    """Why rows were left out, and how many for each reason."""
    return ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
