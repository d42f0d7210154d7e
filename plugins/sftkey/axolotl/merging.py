"""``axolotl merge-lora``: which adapter is merged, and what the merged checkpoint takes over from it.

Axolotl fills the merged folder with the base model's files: its tokenizer has neither the chat template nor the tags, and its
end of text isn't the end of a turn. Prompts would be others than in training, and generation wouldn't stop.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from axolotl.utils.logging import get_logger

from sftkey.axolotl.merge_check import checked_merge, untie
from sftkey.axolotl.used_weights import stage_of
from sftkey.recipes.load import DEFAULT_OUTPUT_DIR
from sftkey.stages.card import CARD_FILE
from sftkey.stages.links import MERGED_FOLDER
from sftkey.stages.marker import LOG_FILE, MARKER_FILE, RUN_FILE, Marker
from sftkey.stages.readiness import ADAPTER_FILE
from sftkey.stages.serving import write_reasoning_parser
from sftkey.training.end_of_turn import greedy, stop_tokens
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically

LOG = get_logger(__name__)

# Older forms of what tokenizer.json and tokenizer_config.json say; a base model's would contradict them.
_STALE = ("special_tokens_map.json", "added_tokens.json", "chat_template.json")

# What a stage leaves beside its weights; of a base model that is a stage, Axolotl copies it into the merged folder.
_OF_THE_BASE = (RUN_FILE, LOG_FILE, CARD_FILE, "training_args.bin")


def merge_own_adapter(cfg: Any, named: str | None) -> None:
    """Let ``axolotl merge-lora RECIPE`` merge the adapter of this stage, not that of the stage it started from.

    Args:
        cfg: The raw recipe, with the weights that it uses; changed in place.
        named: The adapter that the user named (``--lora-model-dir``), ``None`` for the recipe's own.

    Raises:
        UserError: The recipe's own stage hasn't finished.
    """
    output_dir = str(cfg.get("output_dir") or DEFAULT_OUTPUT_DIR)
    if named is None and Marker.read(output_dir) is None:
        raise UserError(
            f"{output_dir} holds no finished stage (no {MARKER_FILE}), so there is nothing to merge. Run\n"
            f"  axolotl train {shlex.quote(str(cfg.get('axolotl_config_path')))}"
        )
    adapter_dir = cfg["lora_model_dir"] = named or output_dir
    trained = _read(Path(adapter_dir) / ADAPTER_FILE)
    if trained.get("trainable_token_indices") or "embed_tokens" in (trained.get("target_modules") or []):
        cfg["merge_method"] = "legacy"  # the other one leaves what these change out
    # While the weights are written, the folder is nobody's.
    (Path(output_dir) / MERGED_FOLDER / MARKER_FILE).unlink(missing_ok=True)
    if not hasattr(BasePlugin, "post_lora_merge"):
        _finish_merges()


def _finish_merges() -> None:
    """Axolotl 0.19 and 0.20 call no plugin after a merge."""
    from axolotl.cli import merge_lora

    merge = merge_lora.do_merge_lora
    if getattr(merge, "_sftkey", False):
        return

    def merge_and_finish(*, cfg: Any) -> None:
        merge(cfg=cfg)
        if cfg.sftkey_method:
            finish_merge(cfg, cfg.lora_model_dir, Path(cfg.output_dir) / MERGED_FOLDER)

    merge_and_finish._sftkey = True  # type: ignore[attr-defined]
    merge_lora.do_merge_lora = merge_and_finish


def finish_merge(cfg: Any, adapter_dir: str | Path, merged_dir: str | Path) -> None:
    """Complete and check a merged checkpoint, and leave the marker of its stage there.

    Args:
        cfg: The validated recipe.
        adapter_dir: What was merged.
        merged_dir: Where the merged weights are.

    Raises:
        UserError: The merged model isn't the adapter's.
    """
    adapter_dir, merged_dir = Path(adapter_dir), Path(merged_dir)
    for name in (MARKER_FILE, *_OF_THE_BASE):
        (merged_dir / name).unlink(missing_ok=True)
    complete_merged(adapter_dir, merged_dir)
    untie(adapter_dir, merged_dir)
    record = checked_merge(cfg, adapter_dir, merged_dir)
    _, marker = stage_of(adapter_dir)
    if marker is None:
        LOG.logger.warning("%s belongs to no finished stage: %s gets no marker", adapter_dir, merged_dir)
        return
    write_atomically(merged_dir / MARKER_FILE, marker.model_copy(update={"merged": record}).content)


def complete_merged(adapter_dir: str | Path, merged_dir: str | Path) -> None:
    """Give a merged checkpoint the tokenizer, the chat template and the end of generation of its adapter.

    Args:
        adapter_dir: Output directory of the stage.
        merged_dir: Where the merged weights are; nothing happens where there are none.
    """
    from transformers import AutoTokenizer

    merged_dir = Path(merged_dir)
    if not any(merged_dir.glob("*.safetensors")) and not any(merged_dir.glob("*.bin")):
        return
    tokenizer = AutoTokenizer.from_pretrained(str(adapter_dir))
    for name in _STALE:
        (merged_dir / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(str(merged_dir))
    write_reasoning_parser(merged_dir)
    # As it was trained with, byte by byte: the next stage compares.
    shutil.copyfile(Path(adapter_dir) / "tokenizer.json", merged_dir / "tokenizer.json")
    end_of_turn = tokenizer.eos_token_id
    config = _read(merged_dir / "config.json")
    _write(merged_dir / "config.json", {**config, "eos_token_id": end_of_turn})
    generation = _read(merged_dir / "generation_config.json")
    # Marks a file that may be overruled by the model's config.
    generation.pop("_from_model_config", None)
    greedy(generation)
    generation["eos_token_id"] = stop_tokens(end_of_turn, generation.get("eos_token_id"))
    _write(merged_dir / "generation_config.json", {**generation, "pad_token_id": tokenizer.pad_token_id})
    # Past Axolotl's adapter, which may ask for a process group at the end of the process.
    LOG.logger.info("%s has the tokenizer, chat template and end of turn of %s", merged_dir, adapter_dir)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
