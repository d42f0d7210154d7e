"""Write a recipe and the stages before it for another trainer: rows, configuration, and what is different there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from sftkey.export import llamafactory, ms_swift
from sftkey.export.configuration import configuration, deepspeed_of, refuse_inexpressible
from sftkey.export.rows import exported_rows
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.templates import TAGGED, chat_template, system_prompt
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.foreign_code import refuse_foreign_code
from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, adds_tag_tokens, load_recipe, recipe_before, template_name
from sftkey.training.prepare import describe_counts
from sftkey.training.recipe_rows import set_up_tokenizer
from sftkey.util.errors import UserError
from sftkey.util.files import write_text_atomically

TRAINERS: Mapping[str, ModuleType] = {"llamafactory": llamafactory, "ms-swift": ms_swift}
"""The trainers by the name that ``--for`` takes."""

DIFFERENCES_FILE = "DIFFERENCES.md"

_DEFAULT_SEQUENCE_LEN = 512
"""Axolotl's."""

_EVERYWHERE = (
    "Nothing checks there whether a stage fits the one before, or whether that one finished; a stage leaves no marker, so "
    "`sftkey report`, `share` and `run` don't know it.",
    "The loss of each segment isn't logged.",
    "The rows come in another order.",
)


@dataclass(frozen=True)
class ExportedStage:
    """What was written for one stage.

    Attributes:
        name: The recipe's name, and that of the files.
        files: The files.
        commands: What trains it there.
        rows: How many rows are used and skipped, in words.
        left_out: A line for each key of the recipe that has no counterpart.
    """

    name: str
    files: list[str]
    commands: list[str]
    rows: str
    left_out: list[str]


def chain_of(recipe: Path, *, trust_code: bool) -> list[dict[str, Any]]:
    """A recipe and those of the stages before, the first one first; each checked.

    Raises:
        UserError: One is wrong, missing, or they go round in a circle.
    """
    chain: list[dict[str, Any]] = []
    path: Path | None = recipe
    while path is not None:
        if any(Path(cfg["axolotl_config_path"]).resolve() == path.resolve() for cfg in chain):
            raise UserError(f"sftkey_after goes round in a circle: {path} comes twice")
        cfg = {**load_recipe(path), "axolotl_config_path": str(path)}
        if not trust_code:
            refuse_foreign_code(cfg, str(path))
        check_recipe(cfg)
        cfg.setdefault("sequence_len", _DEFAULT_SEQUENCE_LEN)
        cfg.setdefault("output_dir", DEFAULT_OUTPUT_DIR)
        chain.insert(0, cfg)
        path = recipe_before(cfg)
    names = [Path(cfg["axolotl_config_path"]).stem for cfg in chain]
    if len({*names}) < len(names):
        raise UserError(f"{' and '.join(names)}: two recipes of the chain have one name; rename one")
    return chain


def export(recipe: Path, trainer: ModuleType, folder: Path, *, trust_code: bool = False) -> list[ExportedStage]:
    """Write the stages of a recipe for another trainer.

    Args:
        recipe: The recipe of the last stage.
        trainer: One of `TRAINERS`.
        folder: Where to; made if it isn't there.
        trust_code: Whether the code that the recipes name may run.

    Raises:
        UserError: A recipe is wrong, or says something that this trainer would train as something else.
    """
    from sftkey.evaluation.generation import load_tokenizer

    chain = chain_of(recipe, trust_code=trust_code)
    for cfg in chain:
        refuse_inexpressible(cfg, trainer)
    base = str(chain[0].get("base_model") or "")
    if not base:
        raise UserError(f"{Path(chain[0]['axolotl_config_path']).name}: base_model is missing")
    tokenizer = load_tokenizer(Path(base), trust_code and bool(chain[0].get("trust_remote_code")))
    folder.mkdir(parents=True, exist_ok=True)
    stages: list[ExportedStage] = []
    index: dict[str, str] = {}
    before: dict[str, Any] | None = None
    for cfg in chain:
        name = Path(cfg["axolotl_config_path"]).stem
        system = cfg.get("default_system_message")
        set_up_tokenizer(tokenizer, template_name(cfg), system, tags_as_tokens=adds_tag_tokens(cfg))
        counts = Counter[str]()
        used = _write_rows(folder / f"{name}.jsonl", cfg, tokenizer, trainer, counts)
        index[name] = f"{name}.jsonl"
        evaluation = None
        if cfg.get("test_datasets"):
            evaluation = f"{name}_eval"
            _write_rows(folder / f"{evaluation}.jsonl", cfg, tokenizer, trainer, Counter(), evaluation=True)
            index[evaluation] = f"{evaluation}.jsonl"
        written, left_out = configuration(cfg, trainer, name, evaluation=evaluation, tags=list(THINKING_ANSWER.tags))
        model = next(argument for key, argument in trainer.ARGUMENTS.items() if key == "base_model")
        written[model] = str(Path(base).resolve()) if Path(base).exists() else base
        if before is not None:
            written |= trainer.start(before, str(before["output_dir"]))
        if (deepspeed := deepspeed_of(cfg)) is not None:
            _write(folder / f"{name}_deepspeed.json", json.dumps(deepspeed, indent=2) + "\n")
            written["deepspeed"] = f"{name}_deepspeed.json"
        _write(folder / f"{name}.yaml", yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
        commands = trainer.commands(f"{name}.yaml", str(cfg["output_dir"]))
        files = [f"{name}.yaml", f"{name}.jsonl"]
        stages.append(ExportedStage(name, files, commands, describe_counts(used, counts), left_out))
        before = written
    if entries := trainer.index(index):
        _write(folder / "dataset_info.json", json.dumps(entries, indent=2) + "\n")
    template = chat_template(template_name(chain[-1]), chain[-1].get("default_system_message"))
    _write(folder / "chat_template.jinja", template)
    _write(folder / DIFFERENCES_FILE, differences(trainer, stages))
    return stages


def differences(trainer: ModuleType, stages: list[ExportedStage]) -> str:
    """What is different there, and the commands, as Markdown."""
    lines = [f"# {', '.join(stage.name for stage in stages)} for {trainer.NAME} {trainer.VERSION}", ""]
    lines += ["Rows and trained tokens are those of the recipe. In this folder, one after the other:", "", "```"]
    lines += [*(command for stage in stages for command in stage.commands), "```", "", "Different there:", ""]
    lines += [f"- {text}" for text in (*_EVERYWHERE, *trainer.DIFFERENCES)]
    for stage in stages:
        lines += [f"- {stage.name}: {text}" for text in (stage.rows, *stage.left_out)]
    return "\n".join(lines) + "\n"


def _write_rows(
    path: Path,
    cfg: Mapping[str, Any],
    tokenizer: Any,
    trainer: ModuleType,
    skipped: Counter[str],
    *,
    evaluation: bool = False,
) -> int:
    system = cfg.get("default_system_message")
    if system is None and template_name(cfg) == TAGGED:
        system = system_prompt()
    used = 0

    def lines() -> Iterator[str]:
        nonlocal used
        for row in exported_rows(cfg, tokenizer, skipped, evaluation=evaluation):
            used += 1
            yield json.dumps(trainer.row(row, system), ensure_ascii=False) + "\n"

    write_text_atomically(path, lines())
    return used


def _write(path: Path, text: str) -> None:
    write_text_atomically(path, text)
