"""The hand-over between stages: which stage a recipe starts from, and what the two must agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftkey.format.formats import FORMATS
from sftkey.format.methods import METHODS
from sftkey.format.response_format import ResponseFormat
from sftkey.format.templates import turns_template, with_system_message
from sftkey.recipes.load import (
    DEFAULT_OUTPUT_DIR,
    TOKENIZER_DEFAULT,
    Recipe,
    adds_tag_tokens,
    has_own_template,
    load_recipe,
    own_system_message,
    recipe_before,
    response_format,
    template_name,
)
from sftkey.stages.links import MERGED_FOLDER, split_part
from sftkey.stages.marker import MARKER_FILE, RUN_FILE
from sftkey.stages.readiness import ADAPTER_FILE, refuse_missing_part, refuse_unfinished
from sftkey.stages.same_data import check_same_data, reading
from sftkey.stages.stage import Stage, State
from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile, read_json


def stages_before(cfg: Recipe, prepare: Callable[[dict[str, Any]], None] = lambda _: None) -> Iterator[Stage]:
    """Follow ``sftkey_after`` back: the stages that a recipe builds on as they are on disk, the nearest first.

    Args:
        cfg: The raw recipe.
        prepare: Changes or checks the recipe of each of these stages before it is looked for.

    Raises:
        UserError: A recipe is missing, the recipes come after each other in a circle, or ``base_model`` names something
            else than the stage before, or where it was run but didn't finish.
    """
    files = [Path(str(cfg["axolotl_config_path"]))] if cfg.get("axolotl_config_path") else []
    while (path := recipe_before(cfg)) is not None:
        _refuse_circle(cfg, path, files)
        files.append(path)
        config = {**load_recipe(path), "axolotl_config_path": str(path)}
        prepare(config)
        own = str(config.get("output_dir") or DEFAULT_OUTPUT_DIR)
        config["output_dir"], part = _split(_start(cfg, config, own), own)
        stage = Stage.of_recipe(path, config)
        if not part and not cfg.get("adapter") and _is_adapter(stage):
            part = MERGED_FOLDER  # an adapter's weights as a model
        stage = replace(stage, part=part)
        if not _same_path(config["output_dir"], own):
            # The stage before was run with another --output-dir: what counts is the marker there.
            if stage.state is State.NOT_STARTED:
                name = f"{Path(str(cfg['axolotl_config_path'])).name}: " if cfg.get("axolotl_config_path") else ""
                key = "lora_model_dir" if cfg.get("lora_model_dir") else "base_model"
                raise UserError(
                    f"{name}{key}: {stage.output_dir} is neither the output_dir of {path.name} ({own}) nor a finished stage; "
                    f"leave {key} out"
                )
            stage = replace(stage, as_trained=True)
            refuse_unfinished(stage)
        yield stage
        cfg = config


def _refuse_circle(cfg: Recipe, path: Path, files: list[Path]) -> None:
    if files and _same_path(path, files[-1]):
        raise UserError(
            f"sftkey_after: {cfg['sftkey_after']} is this recipe itself, which goes round in a circle; name the recipe of "
            "the stage that it starts from, or remove the key"
        )
    if any(_same_path(path, file) for file in files):
        circle = " -> ".join(file.name for file in (*files, path))
        raise UserError(f"sftkey_after goes round in a circle: {circle}")


def _start(cfg: Recipe, before: Recipe, own: str) -> str:
    """Where the weights are that a recipe starts from, as it names it."""
    base_model, adapter = cfg.get("base_model"), cfg.get("lora_model_dir")
    if adapter:
        return str(adapter)
    if not base_model or _same_path(base_model, own):
        return own
    if base_model != before.get("base_model"):
        return str(base_model)
    raise UserError(
        f"base_model: {base_model} is what {Path(str(before['axolotl_config_path'])).name} itself starts from; to start from "
        f"its output set base_model: {own}, or leave base_model out"
    )


def _split(start: str, own: str) -> tuple[str, str]:
    """The output directory that a recipe starts from, and the part of it; a folder that only has such a name is whole."""
    folder, part = split_part(start)
    if not part or _same_path(start, own):
        return start, ""
    is_output = _same_path(folder, own) or any((Path(folder) / name).is_file() for name in (MARKER_FILE, RUN_FILE))
    return (folder, part) if is_output else (start, "")


def _same_path(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def start_from(cfg: Any) -> Stage | None:
    """Make a recipe start from the stage before it, after checking that this stage finished and fits.

    Sets ``base_model`` (for an adapter: ``lora_model_dir`` and ``tokenizer_config``) in `cfg`.

    Args:
        cfg: The raw recipe; changed in place.

    Returns:
        The stage before, or ``None`` for a first stage.

    Raises:
        UserError: The stage before is missing, unfinished or was made in another way; names the command to run.
    """
    before = next(stages_before(cfg), None)
    if before is None:
        return None
    refuse_unfinished(before)
    check_agreement(cfg, before)
    refuse_missing_part(before, adapter=bool(cfg.get("adapter")))
    for key, value in start_settings(cfg, before).items():
        cfg[key] = value
    return before


def start_settings(cfg: Recipe, before: Stage) -> dict[str, str]:
    """What a recipe sets to start from a stage: its weights, or the base model and the adapter that was trained on it."""
    place = before.place
    if before.marker is None or before.part == MERGED_FOLDER or not _is_adapter(before):
        return {"base_model": place}
    # The adapter is trained on: the weights of the stage before are its base model plus its adapter.
    base = str(cfg.get("base_model") or place)
    named = cfg.get("lora_model_dir") and not any(_same_path(base, one) for one in (place, before.output_dir))
    base = base if named and not (Path(base) / MARKER_FILE).is_file() else before.marker.base_model
    return {"base_model": base, "lora_model_dir": place, "tokenizer_config": place}


def start_of(cfg: Any) -> str:
    """Where the weights are that a recipe starts from, once `start_from` has set them."""
    return str(cfg.get("lora_model_dir") or cfg.get("base_model"))


def _is_adapter(stage: Stage) -> bool:
    if (stage.output_dir / ADAPTER_FILE).exists():
        return True
    # The marker may be all that is left of it; a merged folder, whose recipe is the adapter's, holds whole weights.
    return bool(stage.config.get("adapter")) and not any(stage.output_dir.glob("*.safetensors"))


def check_agreement(cfg: Recipe, before: Stage) -> None:
    """Check that a recipe fits the stage that it starts from: method, tags, template, tokenizer and data.

    Args:
        cfg: The raw recipe.
        before: The stage before, one of `stages_before`. Until it has finished, its recipe counts.

    Raises:
        UserError: They differ in something that both must share.
    """
    marker, place = before.marker, before.place
    trained = (marker and marker.recipe.config) or before.config  # its file may say something else by now
    ours, theirs = METHODS[cfg["sftkey_method"]], METHODS.get(before.method)
    if theirs is None:
        raise UserError(f"{place} was made by the method {before.method!r}, which this version doesn't know")
    if ours.tagged != theirs.tagged:
        fitting = "sft-tag" if ours.tagged else "sft"
        raise UserError(
            f"{place} was made by {theirs.name}, but {ours.name} builds on {'tagged' if ours.tagged else 'untagged'} "
            f"data: start it from an {fitting} stage"
        )
    mode, previous_mode = tag_mode(cfg), marker.tags if marker else tag_mode(before.config)
    if previous_mode != mode and ours.tagged:
        raise UserError(
            f"{place} was made with the tags as {_described(previous_mode)}, this recipe has them as {_described(mode)}; "
            f"set sftkey_tags: {previous_mode} here or run the stage before again"
        )
    try:
        earlier_format, earlier_reading = response_format(trained), reading(trained)
    except UserError as error:
        raise UserError(f"{place}: its recipe: {error}") from error
    if ours.tagged and response_format(cfg) != earlier_format:
        raise UserError(
            f"{place} was made with sftkey_format: {_shown(earlier_format)}, this recipe has "
            f"{_shown(response_format(cfg))}; set the same in both"
        )
    template = template_fingerprint(cfg, place)
    previous_template = marker.chat_template if marker else template_fingerprint(before.config, place)
    if previous_template != template:
        raise UserError(
            f"{place} was made with another chat template or system message ({previous_template}, here {template}); use the "
            "same default_system_message in both recipes"
        )
    folder = cfg.get("tokenizer_config") or place
    tokenizer = tokenizer_file_sha256(folder)
    if marker is not None and tokenizer is not None and tokenizer != marker.tokenizer.sha256:
        raise UserError(
            f"the tokenizer in {folder} is not the one that {place} was trained with; remove tokenizer_config, or run the "
            "stage before again"
        )
    check_same_data(cfg, before, earlier_reading)


def _described(mode: str | None) -> str:
    return {"tokens": "added tokens", "text": "plain text"}.get(str(mode), str(mode))


def tag_mode(cfg: Recipe) -> str:
    """How a recipe has the tags: ``tokens`` or ``text``."""
    return "tokens" if adds_tag_tokens(cfg) else "text"


def template_fingerprint(cfg: Recipe, folder: str | Path = "") -> dict[str, str]:
    """Name and SHA-256 of a recipe's chat template, with its system message.

    Args:
        cfg: The recipe.
        folder: Where the tokenizer is whose template counts, if the recipe uses that; ``sha256`` is empty as long as it isn't
            there.
    """
    name = template_name(cfg)
    if not has_own_template(cfg):
        text = turns_template(name, cfg.get("default_system_message"))
    else:
        name, source = TOKENIZER_DEFAULT, cfg.get("chat_template_jinja") or template_in(Path(folder))
        if source is None:
            return {"name": name, "sha256": ""}
        text = with_system_message(str(source), own_system_message(cfg))
    return {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def template_in(folder: Path) -> str | None:
    """The chat template of the tokenizer in a folder; ``None`` where there is none."""
    path, older = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    source = read_json(older).get("chat_template") if older.is_file() else None
    return source if isinstance(source, str) else None


def _shown(response_format: ResponseFormat) -> str:
    return response_format.name if response_format.name in FORMATS else " ".join(response_format.tags)


def added_tokens(folder: str | Path) -> frozenset[str]:
    """The tokens that were added to the vocabulary of a folder's ``tokenizer.json``; none where there is no such file."""
    path = Path(folder) / "tokenizer.json"
    try:
        listed = read_json(path).get("added_tokens") if path.is_file() else None
        return frozenset(token["content"] for token in listed or [])
    except (UnreadableFile, TypeError, KeyError) as error:
        raise UserError(f"{path} can't be used ({error})") from error


def tokenizer_file_sha256(folder: str | Path) -> str | None:
    """SHA-256 of a folder's ``tokenizer.json``; ``None`` where there is none (a Hub name, say)."""
    path = Path(folder) / "tokenizer.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
