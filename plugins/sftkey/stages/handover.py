"""The stage chain: where a stage starts from, and what it must agree on with the stage before."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftkey.format.methods import METHODS
from sftkey.format.templates import chat_template
from sftkey.recipes.load import (
    DEFAULT_OUTPUT_DIR,
    Recipe,
    adds_tag_tokens,
    load_recipe,
    recipe_before,
    template_name,
)
from sftkey.stages.marker import MARKER_FILE, checkpoints, read_marker, read_run
from sftkey.util.errors import UserError

_DATA_KEYS = ("path", "name", "split", "type", "revision", "data_files")


def start_from(cfg: Any) -> dict[str, Any] | None:
    """Make a recipe start from the stage before it, after checking that this stage finished and fits.

    Sets ``base_model`` (for an adapter: ``lora_model_dir`` and ``tokenizer_config``) in `cfg`.

    Args:
        cfg: The raw recipe; changed in place.

    Returns:
        The marker of the stage before, or ``None`` for a first stage.

    Raises:
        UserError: The stage before is missing, unfinished or was made in another way; names the command to run.
    """
    path = recipe_before(cfg)
    if path is None:
        return None
    own = cfg.get("axolotl_config_path")
    if own is not None and _same_path(str(path), str(own)):
        raise UserError(
            f"sftkey_after: {cfg['sftkey_after']} is this recipe itself; name the recipe of the stage that it starts from, "
            "or remove the key"
        )
    before = load_recipe(path)
    output_dir = output_before(cfg, before, path)
    marker = _finished(output_dir, path)
    check_agreement(cfg, marker, output_dir)
    if (Path(output_dir) / "adapter_config.json").exists() and cfg.get("adapter"):
        # The adapter is trained on: the weights of the stage before are its base model plus its adapter.
        cfg["base_model"] = marker["base_model"]
        cfg["lora_model_dir"] = output_dir
        cfg["tokenizer_config"] = output_dir
    elif (Path(output_dir) / "adapter_config.json").exists():
        raise UserError(
            f"{output_dir} holds an adapter, but this recipe trains no adapter; merge it first "
            f"(axolotl merge-lora {shlex.quote(str(path))}) and set base_model to the merged folder, or set adapter: here too"
        )
    else:
        cfg["base_model"] = output_dir
    return marker


def output_before(cfg: Recipe, before: Recipe, path: Path) -> str:
    output_dir = str(before.get("output_dir") or DEFAULT_OUTPUT_DIR)
    base_model = cfg.get("base_model")
    if not base_model or _same_path(base_model, output_dir):
        return output_dir
    if base_model == before.get("base_model") and not cfg.get("lora_model_dir"):
        raise UserError(
            f"base_model: {base_model} is what {path.name} itself starts from; to start from its output set "
            f"base_model: {output_dir}, or leave base_model out"
        )
    # The stage before may have been run with another --output-dir: what counts is the marker there.
    return str(base_model)


def _same_path(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _finished(output_dir: str, path: Path) -> dict[str, Any]:
    marker = read_marker(output_dir)
    if marker is not None:
        return marker
    command = f"axolotl train {shlex.quote(str(path))}"
    if not Path(output_dir).is_dir():
        raise UserError(f"{path.name} has not been run: there is no {output_dir}. Run\n  {command}")
    whole, _ = checkpoints(output_dir)
    weights = any(Path(output_dir).glob("*.safetensors"))
    if read_run(output_dir) is None and not whole and not weights:
        raise UserError(f"{path.name} has not been run: {output_dir} holds no {MARKER_FILE}. Run\n  {command}")
    if weights:
        state = f"was interrupted: the weights in {output_dir} are half-trained (no {MARKER_FILE})"
    else:
        state = f"has not finished: {output_dir} holds no {MARKER_FILE}"
    resume = f"to go on from {whole[-1].name}" if whole else "again (it left no checkpoint to go on from)"
    raise UserError(f"{path.name} {state}. Run it {resume}:\n  {command}")


def check_agreement(cfg: Recipe, marker: Mapping[str, Any], output_dir: str) -> None:
    """Check that a recipe fits the stage that it starts from: method, tags, template, tokenizer and data.

    Args:
        cfg: The raw recipe.
        marker: The completion marker of the stage before.
        output_dir: Where that stage's weights are.

    Raises:
        UserError: They differ in something that both must share.
    """
    ours = METHODS[cfg["sftkey_method"]]
    theirs = METHODS.get(str(marker.get("method")))
    if theirs is None:
        raise UserError(
            f"{output_dir} was made by the method {marker.get('method')!r}, which this version doesn't know"
        )
    if ours.tagged != theirs.tagged:
        fitting = "sft-tag" if ours.tagged else "sft"
        raise UserError(
            f"{output_dir} was made by {theirs.name}, but {ours.name} builds on {'tagged' if ours.tagged else 'untagged'} "
            f"data: start it from an {fitting} stage"
        )
    mode = "tokens" if adds_tag_tokens(cfg) else "text"
    if marker.get("tags") != mode and ours.tagged:
        raise UserError(
            f"{output_dir} was made with the tags as {_tag_mode(marker.get('tags'))}, this recipe has them as "
            f"{_tag_mode(mode)}; set sftkey_tags: {marker.get('tags')} here or run the stage before again"
        )
    template = template_fingerprint(cfg)
    if marker.get("chat_template") != template:
        raise UserError(
            f"{output_dir} was made with another chat template or system message ({marker.get('chat_template')}, here "
            f"{template}); use the same default_system_message in both recipes"
        )
    tokenizer = tokenizer_file_sha256(cfg.get("tokenizer_config") or output_dir)
    if tokenizer is not None and tokenizer != marker.get("tokenizer", {}).get("sha256"):
        raise UserError(
            f"the tokenizer in {cfg.get('tokenizer_config') or output_dir} is not the one that {output_dir} was trained "
            "with; remove tokenizer_config, or run the stage before again"
        )
    data, previous = data_identity(cfg), [{k: d.get(k) for k in _DATA_KEYS} for d in marker.get("data", [])]
    if data != previous and not cfg.get("sftkey_other_data"):
        raise UserError(
            f"{output_dir} was trained on {_data_names(previous)}, this recipe is on {_data_names(data)}; if that is meant, "
            "set sftkey_other_data: true"
        )


def _tag_mode(mode: Any) -> str:
    return {"tokens": "added tokens", "text": "plain text"}.get(str(mode), str(mode))


def _data_names(entries: list[dict[str, Any]]) -> str:
    return "; ".join(" ".join(str(entry[key]) for key in _DATA_KEYS if entry.get(key)) for entry in entries)


def data_identity(cfg: Recipe) -> list[dict[str, Any]]:
    """What a recipe trains on, as far as two stages must agree on it."""
    return [{key: entry.get(key) for key in _DATA_KEYS} for entry in cfg["datasets"]]


def template_fingerprint(cfg: Recipe) -> dict[str, str]:
    """Name and SHA-256 of a recipe's chat template, with its system message."""
    name = template_name(cfg)
    text = chat_template(name, cfg.get("default_system_message"))
    return {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def tokenizer_file_sha256(folder: str | Path) -> str | None:
    """SHA-256 of a folder's ``tokenizer.json``; ``None`` where there is none (a Hub name, say)."""
    path = Path(folder) / "tokenizer.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
