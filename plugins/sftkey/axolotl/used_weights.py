"""Which weights a command that trains nothing uses: those that the user named, else those that the stage starts from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from axolotl.utils.logging import get_logger

from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, load_recipe
from sftkey.stages.handover import start_from, start_of
from sftkey.stages.links import split_part
from sftkey.stages.marker import Marker
from sftkey.stages.readiness import ADAPTER_FILE
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile, read_json

LOG = get_logger(__name__)

_USING = frozenset({"inference", "evaluate", "merge_lora", "merge_sharded_fsdp_weights", "quantize", "vllm_serve"})


def using_command(cfg: Any) -> str | None:
    """The command that reads the recipe, if it is one that uses weights and trains none.

    Axolotl doesn't tell plugins which command runs; the module of that command is on the stack.
    """
    if cfg.get("inference") or cfg.get("merge_lora"):
        return "inference" if cfg.get("inference") else "merge_lora"
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        name, spec = str(frame.f_globals.get("__name__")), frame.f_globals.get("__spec__")
        folder, _, command = (spec.name if name == "__main__" and spec else name).rpartition(".")
        if folder == "axolotl.cli" and command in (*_USING, "train", "preprocess"):
            return command if command in _USING else None
    return None


def choose_weights(cfg: Any) -> tuple[Stage | None, bool]:
    """Point a recipe at the weights that are trained on or used.

    Args:
        cfg: The raw recipe; changed in place.

    Returns:
        The stage before, as far as it counts; and whether the command trains.

    Raises:
        UserError: See `sftkey.stages.handover.start_from` and `use_weights`.
    """
    command = using_command(cfg)
    if command is None:
        return start_from(cfg), True
    before, used = use_weights(cfg, command)
    if int(os.environ.get("RANK", 0)) == 0:
        LOG.warning("the weights are those of %s", used)
    return before, False


def use_weights(cfg: Any, command: str) -> tuple[Stage | None, str]:
    """Point a recipe at the weights that a command uses.

    Sets ``base_model`` (for an adapter: ``lora_model_dir`` and ``tokenizer_config``) in `cfg`. A named adapter or model
    wins; only without one the stage before counts, as in training.

    Args:
        cfg: The raw recipe; changed in place.
        command: The command, see `using_command`.

    Returns:
        The stage before, where that is what is used, and where the weights are, in words.

    Raises:
        UserError: What is named is no adapter, or the recipe trains none; or see `sftkey.stages.handover.start_from`.
    """
    adapter, base = cfg.get("lora_model_dir"), cfg.get("base_model")
    named = base if base and base != _in_the_file(cfg, "base_model") else None
    if named and (Path(named) / ADAPTER_FILE).is_file():
        adapter, named = adapter or named, None
    own = str(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR)
    if adapter is None and named is None and command == "merge_lora" and Marker.read(own) is not None:
        adapter = own
    if adapter is None:
        if named is not None:
            return None, f"{named}, as named"
        before = start_from(cfg)
        return before, f"{start_of(cfg)}, the stage before; name others with --lora-model-dir or --base-model"
    if not cfg.get("adapter"):
        raise UserError(
            f"lora_model_dir: {adapter}: this recipe trains no adapter, so it would be left out; set adapter:"
        )
    folder = Path(adapter)
    if not (folder / ADAPTER_FILE).is_file() and (folder.is_dir() or Path(folder.parts[0]).is_dir()):
        raise UserError(f"lora_model_dir: {adapter} holds no adapter (no {ADAPTER_FILE}); name a folder that does")
    base = named or (_base_of(folder) if cfg.get("sftkey_after") else None)
    if base is None:
        start_from(cfg)
    else:
        cfg["base_model"] = base
    if (folder / "tokenizer.json").is_file() and not _in_the_file(cfg, "tokenizer_config"):
        cfg["tokenizer_config"] = str(adapter)
    cfg["lora_model_dir"] = str(adapter)
    return None, f"{adapter} on {cfg['base_model']}"


def stage_of(adapter: str | Path) -> tuple[Path, Marker | None]:
    """The output directory that an adapter belongs to, and the marker there: its own folder, or that of its checkpoint."""
    for folder in dict.fromkeys((str(adapter), split_part(str(adapter))[0])):
        if (marker := Marker.read(folder)) is not None:
            return Path(folder), marker
    return Path(adapter), None


def _base_of(adapter: Path) -> str | None:
    """The model that an adapter was trained on, where that can still be told; an output may have been moved since."""
    _, marker = stage_of(adapter)
    recorded = marker.base_model if marker else None
    if recorded is None and (adapter / ADAPTER_FILE).is_file():
        try:
            recorded = read_json(adapter / ADAPTER_FILE).get("base_model_name_or_path")
        except UnreadableFile as error:
            raise UserError(f"{adapter / ADAPTER_FILE} {error}") from error
    if not recorded or (marker and marker.after and not Path(recorded).exists()):
        return None
    return str(recorded)


def _in_the_file(cfg: Any, key: str) -> Any:
    """What the recipe file says, without the command line."""
    path = Path(str(cfg.get("axolotl_config_path") or ""))
    return load_recipe(path).get(key) if path.is_file() else None
