"""LLaMA-Factory 0.9.5: a row as turns whose answers are trained, under a template that adds nothing of its own.

Its turns are tokenised one by one, each question masked and each answer trained, so a turn for each piece cuts the tokens
where they are cut here: an empty answer after a piece that isn't trained, an empty question before one that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkey.export.rows import ExportedRow
from sftkey.util.errors import UserError

NAME, VERSION = "LLaMA-Factory", "0.9.5"

ARGUMENTS = {
    "base_model": "model_name_or_path",
    "sequence_len": "cutoff_len",
    "lora_r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
}
"""Recipe key -> argument, beside Hugging Face's own."""

_ATTENTION = {"flash_attention_2": "fa2", "flash_attention_3": "fa3", "sdpa": "sdpa", "eager": "disabled"}

DIFFERENCES = (
    "Its v1 (USE_V1=1) has a loss_weight for each message, but writes <|im_start|>ROLE and <|im_end|> around each of them: "
    "a response in parts, as Stage 2 needs it, is no message there. These files are for the trainer that it runs by default.",
    "template: empty adds no turn markers: a chat with the trained model needs the chat template beside these files "
    "(chat_template.jinja); generation must be told to stop at <|im_end|>.",
)


def check(cfg: Mapping[str, Any], weights: set[float]) -> None:
    """Refuse what this trainer can't do.

    Raises:
        UserError: Tokens weigh more or less than others.
    """
    if len(weights - {0.0}) > 1:
        raise UserError(
            f"sftkey_segment_weights: {NAME} {VERSION} trains a token or doesn't; it has no weights between them. Remove the "
            "key, or export for ms-swift"
        )


def row(exported: ExportedRow, system: str | None) -> dict[str, Any]:
    """A row of the dataset file."""
    turns: list[list[str]] = [[exported.prompt, ""]]
    for piece in exported.response:
        if not piece.weight:
            turns.append([piece.text, ""])
        elif turns[-1][1]:
            turns.append(["", piece.text])
        else:
            turns[-1][1] = piece.text
    return {
        "conversations": [
            {"from": speaker, "value": text}
            for turn in turns
            for speaker, text in zip(("human", "gpt"), turn, strict=True)
        ]
    }


def settings(
    cfg: Mapping[str, Any], name: str, evaluation: str | None, tags: list[str], weighted: bool
) -> dict[str, Any]:
    """What the configuration says beside `ARGUMENTS` and Hugging Face's arguments."""
    adapter = cfg.get("adapter")
    target = cfg.get("lora_target_modules")
    linear = "all" if cfg.get("lora_target_linear") else None
    return {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora" if adapter else "full",
        "quantization_bit": 4 if adapter == "qlora" else None,
        "lora_target": ",".join(target) if isinstance(target, list) else linear,
        "dataset_dir": ".",
        "dataset": name,
        "eval_dataset": evaluation,
        "template": "empty",
        "flash_attn": _ATTENTION.get(str(cfg.get("attn_implementation"))),
        "add_tokens": ",".join(tags) or None,
        "resize_vocab": True if tags else None,
    }


def index(files: Mapping[str, str]) -> dict[str, Any]:
    """``dataset_info.json``: data set -> file."""
    columns = {"messages": "conversations"}
    return {name: {"file_name": file, "formatting": "sharegpt", "columns": columns} for name, file in files.items()}


def start(before: Mapping[str, Any], output_dir: str) -> dict[str, Any]:
    """What names the weights that a stage before ended with."""
    name = "model_name_or_path"
    lora = before["finetuning_type"] == "lora"
    return {name: before[name], "adapter_name_or_path": output_dir} if lora else {name: output_dir}


def commands(config: str, output_dir: str) -> list[str]:
    """What trains a stage."""
    return [f"llamafactory-cli train {config}"]
