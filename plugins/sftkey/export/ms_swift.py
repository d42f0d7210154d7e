"""ms-swift 4.6: a row as consecutive messages of the assistant, each with its ``loss``, or its ``loss_scale``.

It joins neighbours of one ``loss_scale`` before it tokenises them, and drops empty messages. So neighbours differ by a hair:
a trained one has its weight or a billionth more (in 32 bits the same), one that isn't has 0 or a billionth less than that,
and what isn't above 0 gets no label.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from sftkey.export.rows import ExportedRow
from sftkey.recipes.load import adds_tag_tokens
from sftkey.util.errors import UserError
from sftkey.util.text import one_line, shorten

NAME, VERSION = "ms-swift", "4.6"

ARGUMENTS = {
    "base_model": "model",
    "sequence_len": "max_length",
    "lora_r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
    "attn_implementation": "attn_impl",
}

_HAIR = 1e-9
_SHOWN = 80

DIFFERENCES = (
    "Messages of the assistant with loss_scale -1e-09 aren't trained, those with 1.000000001 are: neighbours differ, because "
    "equal ones would be joined before they are tokenised.",
    "A loss_scale multiplies a token's loss, which is then divided by the number of trained tokens; here it is divided by "
    "the sum of their weights. With sftkey_segment_weights the learning rate means something else, by that factor.",
)


def check(cfg: Mapping[str, Any], weights: set[float]) -> None:
    """Refuse what this trainer can't do.

    Raises:
        UserError: The tags are tokens.
    """
    if adds_tag_tokens(cfg):
        raise UserError(
            f"sftkey_tags: tokens: {NAME} adds tokens as special ones only, which lm-eval and vLLM drop from the output; use "
            "sftkey_tags: text, or export for llamafactory"
        )


def row(exported: ExportedRow, system: str | None) -> dict[str, Any]:
    """A row of the dataset file.

    Raises:
        UserError: It has a history: turns before the response would be trained there, or written in another way.
    """
    if not exported.alone:
        raise UserError(
            f"datasets: {NAME} can't train one turn of a conversation as it is rendered here, such as the one that asks "
            f"{shorten(one_line(exported.question), _SHOWN)!r}; train with Axolotl, or export for llamafactory"
        )
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": exported.question})
    before = 0.0
    for piece in exported.response:
        before = _scale(piece.weight, before)
        message = {"role": "assistant", "content": piece.text, "loss": before != 0.0}
        messages.append(message | ({"loss_scale": before} if before not in (0.0, 1.0) else {}))
    return {"messages": messages}


def _scale(weight: float, before: float) -> float:
    """The weight, or where the piece before has that one, a hair beside it on the same side."""
    return weight if weight != before else weight * (1 + _HAIR) if weight else -_HAIR


def settings(
    cfg: Mapping[str, Any], name: str, evaluation: str | None, tags: list[str], weighted: bool
) -> dict[str, Any]:
    """What the configuration says beside `ARGUMENTS` and Hugging Face's arguments."""
    adapter = cfg.get("adapter")
    return {
        "tuner_type": "lora" if adapter else "full",
        "quant_method": "bnb" if adapter == "qlora" else None,
        "quant_bits": 4 if adapter == "qlora" else None,
        "dataset": [f"{name}.jsonl"],
        "val_dataset": [f"{evaluation}.jsonl"] if evaluation else None,
        "split_dataset_ratio": 0,
        "template": "chatml",
        "loss_scale": "default",
        "is_binary_loss_scale": False if weighted else None,
        "truncation_strategy": "delete",
        "add_version": False,
    }


def index(files: Mapping[str, str]) -> dict[str, Any]:
    """It needs no list of data sets."""
    return {}


def start(before: Mapping[str, Any], output_dir: str) -> dict[str, Any]:
    """What names the weights that a stage before ended with: the link to its last checkpoint."""
    last = f"{output_dir}/last"
    return {"model": before["model"], "adapters": [last]} if before["tuner_type"] == "lora" else {"model": last}


def commands(config: str, output_dir: str) -> list[str]:
    """What trains a stage, and names its last checkpoint for the next one."""
    place = shlex.quote(output_dir)
    newest = f"$(ls {place} | grep ^checkpoint- | sort -V | tail -1)"
    return [f"swift sft {config}", f'ln -sfn "{newest}" {place}/last']
