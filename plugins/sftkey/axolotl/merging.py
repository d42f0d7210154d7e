"""``axolotl merge-lora``: which adapter is merged, and what the merged checkpoint takes over from it.

Axolotl fills the merged folder with the base model's files: its tokenizer has neither the chat template nor the tags, and its
end of text isn't the end of a turn. Prompts would be others than in training, and generation wouldn't stop.
"""

from __future__ import annotations

import atexit
import json
import shlex
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from axolotl.utils.logging import get_logger

from sftkey.recipes.load import DEFAULT_OUTPUT_DIR
from sftkey.stages.marker import MARKER_FILE, Marker
from sftkey.util.errors import UserError

LOG = get_logger(__name__)

MERGED_FOLDER = "merged"

# Older forms of what tokenizer.json and tokenizer_config.json say; a base model's would contradict them.
_STALE = ("special_tokens_map.json", "added_tokens.json", "chat_template.json")


def merge_own_adapter(cfg: Any, named: str | None) -> None:
    """Let ``axolotl merge-lora RECIPE`` merge the adapter of this stage, not that of the stage it started from.

    Args:
        cfg: The raw recipe, after `sftkey.stages.handover.start_from`; changed in place.
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
    if not hasattr(BasePlugin, "post_lora_merge"):
        # Axolotl 0.19 and 0.20 call no plugin after a merge.
        atexit.register(complete_merged, adapter_dir, str(Path(output_dir) / MERGED_FOLDER))


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
    end_of_turn = tokenizer.eos_token_id
    config = _read(merged_dir / "config.json")
    _write(merged_dir / "config.json", {**config, "eos_token_id": end_of_turn})
    generation = _read(merged_dir / "generation_config.json")
    # Marks a file that may be overruled by the model's config.
    generation.pop("_from_model_config", None)
    generation["eos_token_id"] = stop_tokens(end_of_turn, generation.get("eos_token_id"))
    _write(merged_dir / "generation_config.json", {**generation, "pad_token_id": tokenizer.pad_token_id})
    # Past Axolotl's adapter, which may ask for a process group at the end of the process.
    LOG.logger.info("%s has the tokenizer, chat template and end of turn of %s", merged_dir, adapter_dir)


def stop_tokens(end_of_turn: int, previous: int | list[int] | None) -> list[int]:
    """The tokens at which generation stops: the end of the turn, and what the model stopped at before.

    Args:
        end_of_turn: Id of the token that ends a turn.
        previous: ``eos_token_id`` of the model's generation config.
    """
    tokens = previous if isinstance(previous, list) else [previous]
    return [end_of_turn, *(token for token in tokens if token is not None and token != end_of_turn)]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
