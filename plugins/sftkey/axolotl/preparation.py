"""Translates the plugin's recipe keys into Axolotl's own, before Axolotl validates the recipe."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sftkey.axolotl.chat_template import own_template
from sftkey.datasets.columns import with_carried_columns
from sftkey.datasets.data_paths import loadable
from sftkey.datasets.registry import source_of
from sftkey.format.templates import END_OF_TURN, chat_template
from sftkey.recipes.load import (
    DEFAULT_OUTPUT_DIR,
    Recipe,
    adds_tag_tokens,
    has_own_template,
    response_format,
    template_name,
    warmup_ratio,
)
from sftkey.recipes.machine import obstacles
from sftkey.recipes.settings import Role, has_role, plain
from sftkey.stages.content import data_content
from sftkey.stages.handover import added_tokens
from sftkey.stages.marker import Marker
from sftkey.stages.readiness import ADAPTER_FILE
from sftkey.stages.reference import columns_stamp
from sftkey.util.errors import UserError
from sftkey.util.sources import read_json
from sftkey.util.version import __version__

DEFAULT_PREPARED_PATH = "last_run_prepared"

EMBEDDINGS = ("embed_tokens", "lm_head")
"""The modules that hold a row for each token."""


def prepare_recipe(cfg: Any) -> None:
    """Complete a checked recipe in place.

    Args:
        cfg: The raw recipe, after `check_recipe`.
    """
    if has_own_template(cfg):
        cfg["chat_template_jinja"], end_of_turn = own_template(cfg)
    else:
        cfg["chat_template_jinja"] = chat_template(template_name(cfg), cfg.get("default_system_message"))
        end_of_turn = END_OF_TURN
    cfg["chat_template"] = "jinja"
    # The end of the turn, so that a trained checkpoint stops by itself whatever the base tokenizer's EOS is.
    cfg["special_tokens"] = {**(cfg.get("special_tokens") or {}), "eos_token": end_of_turn}
    _add_tokens(cfg)
    if cfg.get("sftkey_warmup_epochs") is not None:
        cfg["warmup_ratio"] = warmup_ratio(cfg)
    if cfg.get("auto_resume_from_checkpoints") is None:
        cfg["auto_resume_from_checkpoints"] = True
    _find_deepspeed(cfg)
    for key in ("datasets", "test_datasets"):
        if cfg.get(key):
            entries = [loadable(entry, f"{key}[{index}]") for index, entry in enumerate(cfg[key])]
            cfg[key] = [with_carried_columns(entry) for entry in entries]
    # Axolotl recognises prepared data by a hash that knows neither the method nor the added tokens; without a folder of
    # its own, Stage 2 would be handed Stage 1's labels.
    base = Path(cfg.get("dataset_prepared_path") or DEFAULT_PREPARED_PATH)
    fingerprint = data_fingerprint(cfg)
    if base.name != fingerprint:
        cfg["dataset_prepared_path"] = str(base / fingerprint)


def _add_tokens(cfg: Any) -> None:
    """List the tokens that are to be added: not those that the stage before has added.

    With an adapter Axolotl takes every token that is listed for a new one, which has to be trained.
    """
    listed = list(cfg.get("tokens") or [])
    if adds_tag_tokens(cfg):
        cfg["sftkey_tags"] = "tokens"
        listed += [tag for tag in response_format(cfg).tags if tag not in listed]
    start = str(cfg.get("tokenizer_config") or cfg.get("base_model"))
    added = added_tokens(start) if cfg.get("sftkey_after") else frozenset()
    if listed:
        cfg["tokens"] = [token for token in listed if token not in added] or None
    if not cfg.get("adapter"):
        return
    saved = list(cfg.get("lora_modules_to_save") or [])
    new = cfg.get("tokens") and not cfg.get("peft_trainable_token_indices")
    if new and not set(EMBEDDINGS) <= set(saved):
        raise UserError(
            f"tokens: {', '.join(cfg['tokens'])}: added here, and adapter: {cfg['adapter']} would leave the new embeddings "
            "untrained. Add `lora_modules_to_save: [embed_tokens, lm_head]`, or remove the tokens"
        )
    if cfg.get("tokens") and cfg.get("peft_trainable_token_indices"):
        # Axolotl asks for them before it loads the model; `train_rows_alone` takes them out again.
        cfg["lora_modules_to_save"] = [*saved, *(name for name in EMBEDDINGS if name not in saved)]
    elif set(EMBEDDINGS) <= set(saved) and cfg.get("peft_ensure_weight_tying") is None:
        # Otherwise a tied model's two copies are trained apart; a run that began so goes on so.
        begun = Path(str(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR)).glob(f"checkpoint-*/{ADAPTER_FILE}")
        cfg["peft_ensure_weight_tying"] = all(read_json(path).get("ensure_weight_tying") for path in begun)


def train_rows_alone(cfg: Any) -> None:
    """Train the embeddings of single tokens alone, and not the whole layers that Axolotl asks for where tokens are added.

    Args:
        cfg: The recipe as Axolotl validated it, before the adapter is loaded; changed in place.
    """
    if cfg.peft_trainable_token_indices:
        saved = cfg.lora_modules_to_save or []
        cfg.lora_modules_to_save = [name for name in saved if name not in EMBEDDINGS] or None


def train_together_on_cpus(cfg: Any) -> None:
    """Let several processes without an accelerator train together, instead of each for itself.

    accelerate has to be told that the CPU is meant: otherwise it finds no device to share work between, starts no process
    group, and every process trains a model of its own into the same ``output_dir``, without a word.

    Args:
        cfg: The raw recipe. DeepSpeed finds its devices itself.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or cfg.get("deepspeed") or has_accelerator():
        return
    os.environ["ACCELERATE_USE_CPU"] = "true"
    from accelerate import PartialState

    # Before Axolotl asks for it: its main process alone prepares the data.
    PartialState(cpu=True)


def load_without_device_map(cfg: Any) -> None:
    """Keep several processes without an accelerator from placing their models on one.

    Axolotl maps the model of process n to "device n", which transformers takes for a GPU. Without a map the model stays
    where it is loaded.

    Args:
        cfg: The recipe as Axolotl validated it; changed in place.
    """
    if (cfg.get("world_size") or 1) > 1 and not has_accelerator():
        cfg["device_map"] = None


def refuse_obstacles(cfg: Recipe) -> None:
    """Raise what keeps this machine from preparing the data as a `UserError`."""
    obstacle = first_obstacle(cfg, trains=False)
    if obstacle is not None:
        raise UserError(obstacle)


def first_obstacle(cfg: Recipe, *, trains: bool) -> str | None:
    """The first of `sftkey.recipes.machine.obstacles` on this machine; ``None`` for a stage that has finished."""
    if Marker.read(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR) is not None:
        return None
    return next(obstacles(cfg, accelerator=has_accelerator(), trains=trains), None)


def is_main_process() -> bool:
    """Whether this process is the one that writes and reports."""
    return int(os.environ.get("RANK", 0)) == 0


def has_accelerator() -> bool:
    """Whether there is a GPU or the like."""
    import torch

    return torch.accelerator.is_available()


def _find_deepspeed(cfg: Any) -> None:
    """Let a recipe name its DeepSpeed file relative to itself, so that it works from any working directory."""
    path, own = cfg.get("deepspeed"), cfg.get("axolotl_config_path")
    if isinstance(path, str) and own and not Path(path).exists() and (Path(own).parent / path).exists():
        cfg["deepspeed"] = str(Path(own).parent / path)


def data_fingerprint(cfg: Recipe) -> str:
    """Name the folder of a recipe's prepared data by everything that decides its tokens and labels.

    Unlike `sftkey.training.prepare.fingerprint`, which goes by the objects, it is known before any of them is loaded.
    """
    entries = [dict(entry) for key in ("datasets", "test_datasets") for entry in cfg.get(key) or []]
    decides = {
        "sftkey": __version__,
        "recipe": {str(key): plain(value) for key, value in cfg.items() if value and has_role(str(key), Role.DATA)},
        **({"columns": columns} if (columns := columns_stamp(cfg)) else {}),
        "code": [source_of(str(entry.get("type"))) for entry in entries],
        "files": [_content(entry) for entry in entries],
        "tokenizer": _stamp(Path(str(cfg.get("tokenizer_config") or cfg.get("base_model"))) / "tokenizer.json"),
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return f"sftkey-{cfg['sftkey_method']}-{digest[:16]}"


def _content(entry: dict[str, Any]) -> list[Any]:
    # A folder's README.md may say which of its files are data.
    described = None if entry.get("data_files") else _stamp(Path(str(entry.get("path"))) / "README.md")
    return [data_content(entry).model_dump(), described]


def _stamp(path: Path) -> list[int] | None:
    if not path.is_file():
        return None
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
