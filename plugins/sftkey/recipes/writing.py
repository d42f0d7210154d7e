"""Write a shipped recipe for another model, data set, place or setting, with its comments.

A written recipe stands alone: the DeepSpeed settings are in it, and a second stage names a first stage that is written
with it (or can be, by the command in the notes), never a file of the installation.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sftkey.datasets.base import ReasoningDataset
from sftkey.datasets.registry import dataset
from sftkey.recipes.catalogue import ShippedRecipe
from sftkey.recipes.layout import recipe_text
from sftkey.recipes.load import deepspeed_settings
from sftkey.recipes.memory import MemoryNote, memory_note
from sftkey.recipes.overrides import parse_override, set_key
from sftkey.recipes.own_data import OwnData, Target
from sftkey.recipes.settings import Role, has_role
from sftkey.recipes.sharding import SHARDINGS, shard_with_fsdp2
from sftkey.recipes.unknown_keys import KnownKeys
from sftkey.util.errors import UserError
from sftkey.util.files import replace_files
from sftkey.util.origin import this_version

SEQUENCES_PER_DEVICE = 32
"""The paper's batch (section 3)."""


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe ready to be saved.

    Attributes:
        file_name: What the file should be called; a stage after it refers to it by this name.
        text: The YAML.
        config: What the YAML says.
        notes: Remarks for the user, the one on memory included.
        before: The stage that it starts from.
        command: The command that writes this recipe.
        memory: Whether it fits the GPUs that it is written for.
    """

    file_name: str
    text: str
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    before: WrittenRecipe | None
    command: str
    memory: MemoryNote

    @property
    def chain(self) -> tuple[WrittenRecipe, ...]:
        """All recipes from the first stage to this one."""
        return (*(self.before.chain if self.before else ()), self)


def write_recipe(
    recipe: ShippedRecipe,
    *,
    dataset_name: str | None = None,
    model_id: str | None = None,
    output_root: str | None = None,
    sharding: str | None = None,
    overrides: Sequence[str] = (),
    file_name: str | None = None,
    known_keys: Callable[[], KnownKeys] | None = None,
    own: OwnData | None = None,
    target: Target | None = None,
) -> WrittenRecipe:
    """Write a shipped recipe, changed as asked, and the stages before it likewise.

    Args:
        recipe: The shipped recipe.
        dataset_name: One of `sftkey.datasets.registry.DATASETS`, in place of the recipe's own.
        model_id: A base model (Hub name or folder) in place of the recipe's own.
        output_root: The folder in place of ``outputs``.
        sharding: One of `sftkey.recipes.sharding.SHARDINGS` in place of the recipe's own.
        overrides: ``key=value`` pairs; the value is YAML, the key may be a path such as ``datasets.0.split``. They hold for
            every stage, except for keys that belong to one stage only, such as ``output_dir``.
        file_name: What the file is called; by default model, data set (unless GSM8K) and stage.
        known_keys: Called for the keys that Axolotl knows when a key isn't in the recipe yet.
        own: Data of the user's own, in place of the recipe's.
        target: What it is written for and by, in place of the recipe's hardware and `sftkey recipe`.

    Raises:
        UserError: An override isn't of that form, its key is unknown, the recipe isn't made for other models or data, or
            there is nothing to shard.
    """
    if sharding and not recipe.zero_stage:
        raise UserError(
            f"--sharding: {recipe.name} is written for one device, with nothing to shard; remove the option"
        )
    changes = [parse_override(override) for override in overrides]
    options = {"--dataset": dataset_name, "--model-id": model_id, "--output-root": output_root, "--sharding": sharding}
    given = [word for option, value in options.items() if value for word in (option, value)]
    command = target.command if target else shlex.join(["sftkey", "recipe", recipe.name, *given, *overrides])

    document: dict[str, Any] = copy.deepcopy(dict(recipe.config))
    prefix = _move(document, recipe, own.name if own else dataset_name, model_id, output_root)
    own_name = file_name or f"{prefix}_{recipe.stage}.yml"
    before = None
    if recipe.before is not None:
        named = dict(changes).get("sftkey_after")
        before = write_recipe(
            recipe.before,
            dataset_name=dataset_name,
            model_id=model_id,
            output_root=output_root,
            sharding=sharding,
            overrides=[
                override
                for override, (key, _) in zip(overrides, changes, strict=True)
                if not has_role(key.split(".")[0], Role.ONE_STAGE)
            ],
            file_name=str(named or _name_before(own_name, recipe.stage, recipe.before.stage)),
            known_keys=known_keys,
            own=own,
            target=target,
        )
        if before.file_name == own_name:
            raise UserError(f"{own_name} can't be both stages of {recipe.name}; choose another file name")
        document["sftkey_after"] = before.file_name
        document["base_model"] = before.config["output_dir"]
    elif model_id:
        document["base_model"] = model_id
    notes = _change_dataset(document, dataset(dataset_name), recipe.dataset) if dataset_name else []
    if own:
        sequence_len = own.keys.get("sequence_len", document["sequence_len"])
        document |= {**own.keys, **_batch(document, sequence_len)}
    if sharding == "fsdp2":
        shard_with_fsdp2(document)
    elif document.get("deepspeed"):
        document["deepspeed"] = deepspeed_settings(document["deepspeed"], recipe.path.parent)
    for key, value in changes:
        set_key(document, key, value, known_keys)
    memory = memory_note(
        (target.shape_of if target else None) or model_id or recipe.model,
        document,
        recipe.path.parent,
        gpus=target.gpus if target else recipe.gpus,
        gigabytes=target.gigabytes if target else recipe.gpu_gigabytes,
    )
    notes += [memory.text] if memory.text else []
    comments = _comments(recipe, {key.partition(".")[0] for key, _ in changes}, memory)
    comments |= own.comments if own else {}
    run_with = f"{file_name or '<this file>'}{f' (after {before.file_name})' if before else ''}"
    title = own.title if own else dataset(dataset_name or recipe.dataset).title if recipe.movable else ""
    header = _header(recipe, title, model_id, sharding, run_with, memory)
    if document.get("sftkey_format") == "think":
        header[0] = header[0].replace("</Thinking>", "</think>")
    if target:
        header = [line for line in header if not line.startswith("Hardware: ")] + [target.described]
    text = recipe_text(document, [*header, f"Written with {this_version()}: {command}"], comments)
    return WrittenRecipe(own_name, text, yaml.safe_load(text), tuple(notes), before, command, memory)


def save_recipes(recipes: Iterable[WrittenRecipe], folder: Path, *, force: bool, option: str) -> list[Path]:
    """Write recipes into a folder.

    Args:
        recipes: The recipes; several that are the same may have one name.
        folder: Where to.
        force: Replace files that say something else.
        option: What to change for another place, for the message.

    Returns:
        The files.

    Raises:
        UserError: A file exists and says something else, or there can be none; nothing is written then.
    """
    files = {folder / recipe.file_name: recipe.text for recipe in recipes}
    changed = [str(path) for path, text in files.items() if path.exists() and path.read_text("utf-8") != text]
    if changed and not force:
        names = f"{', '.join(changed[:3])}{' and others' if len(changed) > 3 else ''}"
        say, them = ("exist and say", "them") if len(changed) > 1 else ("exists and says", "it")
        raise UserError(f"{names} {say} something else; choose another {option}, or --force to replace {them}")
    try:
        # Whole or not at all: half a recipe of a killed run would be taken for one that somebody changed.
        replace_files({path: [text.encode()] for path, text in files.items()})
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{folder} can't be written into ({error.strerror}); choose another {option}") from error
    return list(files)


def _comments(recipe: ShippedRecipe, overridden: set[str], memory: MemoryNote) -> dict[str, str]:
    """The comments of a shipped recipe by key, without what isn't true any more."""
    if overridden & {"micro_batch_size", "gradient_accumulation_steps"}:
        overridden = {*overridden, "micro_batch_size"}
    _, _, body = recipe.text.partition("\nbase_model:")
    if memory.too_large is not None:
        body = body.replace(f" in micro-batches that fit {recipe.gpu_gigabytes} GB.", " in micro-batches.")
    found = re.findall(r"^((?:#.*\n)+)(\w+):", body, re.MULTILINE)
    return {key: comment for comment, key in found if key not in overridden}


def model_slug(model_id: str) -> str:
    """The name of a model in recipe and output names: its last part, lower case, no ``-Base``, other signs as ``_``."""
    name = model_id.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9]+", "_", name.removesuffix("-base")).strip("_") or "model"


def _name_before(own_name: str, stage: str, before: str) -> str:
    """What the stage before is called, like the file of the stage after it."""
    stem, dot, suffix = own_name.rpartition(".")
    stem = stem.removesuffix(stage) + before if stem.endswith(stage) else f"{stem}_{before}"
    return f"{stem}{dot}{suffix}"


def _move(
    document: dict[str, Any],
    recipe: ShippedRecipe,
    dataset_name: str | None,
    model_id: str | None,
    output_root: str | None,
) -> str:
    """Set where the outputs go; return what the name of the file begins with."""
    if not recipe.movable:
        if dataset_name or model_id:
            raise UserError(f"{recipe.name} is made for its own model and data; take another recipe as the pattern")
        if output_root:
            raise UserError(f"{recipe.name} has fixed places; set output_dir= instead of --output-root")
        return recipe.family
    model, data = recipe.family, dataset_name or recipe.dataset
    if model_id:
        marks = (recipe.config.get("sftkey_format"), "lora" if recipe.config.get("adapter") else None)
        model = "_".join([model_slug(model_id), *(str(mark) for mark in marks if mark)])
    root = (output_root or "outputs").rstrip("/") or "/"
    document["output_dir"] = f"{root}/{model}/{data}/{recipe.stage}"
    document["dataset_prepared_path"] = f"{root}/prepared"
    return model if data == "gsm8k" else f"{model}_{data}"


def _change_dataset(document: dict[str, Any], new: ReasoningDataset, old: str) -> list[str]:
    published = {"path": new.path, "name": new.config, "split": new.train_split, "revision": new.revision}
    entry = {key: value for key, value in document["datasets"][0].items() if key not in published}
    document["datasets"][0] = {
        **{key: value for key, value in published.items() if value is not None},
        **entry,
        "type": f"sftkey.datasets.{new.name}",
    }
    if new.name == old:
        return []
    document |= _batch(document, new.sequence_len)
    notes = []
    if new.test_split is None:
        notes.append(
            f"{new.title} has no test split: the rows that sftkey_{new.name} evaluates are left out of training"
        )
    return [*notes, new.note] if new.note else notes


def _batch(document: Mapping[str, Any], sequence_len: int) -> dict[str, int]:
    """The same tokens in a micro-batch, and the same batch, with sequences of another length."""
    micro = max(1, int(document["micro_batch_size"]) * int(document["sequence_len"]) // sequence_len)
    micro = next(size for size in range(min(micro, SEQUENCES_PER_DEVICE), 0, -1) if SEQUENCES_PER_DEVICE % size == 0)
    return {
        "sequence_len": sequence_len,
        "micro_batch_size": micro,
        "gradient_accumulation_steps": SEQUENCES_PER_DEVICE // micro,
    }


def _header(
    recipe: ShippedRecipe,
    data_title: str,
    model_id: str | None,
    sharding: str | None,
    run_with: str,
    memory: MemoryNote,
) -> list[str]:
    """The lines at the top, true for the recipe as written."""
    lines = [line.removeprefix("# ") for line in recipe.text.partition("base_model:")[0].splitlines()]
    hardware = [line for line in lines if line.startswith("Hardware: ")]
    what = "\n".join(line for line in lines if not re.match(r"Run with: |Hardware: | +or: ", line))
    if recipe.movable:
        old, new = (name.rstrip("/").rpartition("/")[2] for name in (recipe.model, model_id or recipe.model))
        what = what.replace(f"{old} on {dataset(recipe.dataset).title},", f"{new} on {data_title},", 1)
    if sharding:
        hardware = [line.replace(SHARDINGS["zero3"], SHARDINGS[sharding]) for line in hardware]
    if memory.too_large is not None:
        hardware.append(f"Memory: about {memory.too_large:.0f} GiB per GPU by the estimate, more than these have.")
    return [what, f"Run with: axolotl train {run_with}", *hardware]
