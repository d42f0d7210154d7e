"""Whether merged weights are those of the adapter, on a few rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftkey.format.formats import THINKING_ANSWER
from sftkey.stages.manifest import identity, record_files, weights_files
from sftkey.stages.marker import MergeRecord
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically

# Root mean square of the difference between the logits, over that of the logits: rounding makes less than 1e-6 in fp32 and
# a few thousandths in 16 bit, a part of the adapter that is left out makes more.
_TOLERANCE, _TOLERANCE_16_BIT = 3e-5, 5e-2

_PREFIX = "base_model.model."
_EMBEDDINGS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_MOST_ADDED_TOKENS = 256


def untie(adapter_dir: Path, merged_dir: Path) -> None:
    """Give a merged model the output layer that its adapter trained apart from the embeddings.

    The base model ties the two and has no weights for the first, so a merge finds no place for it.

    Args:
        adapter_dir: The adapter.
        merged_dir: The merged model; changed where the adapter holds two that differ.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights, config_path = adapter_dir / "adapter_model.safetensors", merged_dir / "config.json"
    config = _read(config_path)
    if not config.get("tie_word_embeddings") or not weights.is_file():
        return
    trained = load_file(weights)
    embeddings, head = trained.get(_PREFIX + _EMBEDDINGS), trained.get(_PREFIX + _HEAD)
    if embeddings is None or head is None or torch.equal(embeddings, head):
        return
    index_path = merged_dir / "model.safetensors.index.json"
    index = _read(index_path)
    shard = merged_dir / index.get("weight_map", {}).get(_EMBEDDINGS, "model.safetensors")
    tensors = load_file(shard)
    save_file({**tensors, _HEAD: head.to(tensors[_EMBEDDINGS].dtype)}, shard, metadata={"format": "pt"})
    if index:
        index["weight_map"][_HEAD] = shard.name
        write_atomically(index_path, index)
    write_atomically(config_path, {**config, "tie_word_embeddings": False})


def checked_merge(cfg: Any, adapter_dir: Path, merged_dir: Path) -> MergeRecord:
    """Compare the logits of a merged model with those of its adapter on the base model.

    Args:
        cfg: The validated recipe.
        adapter_dir: The adapter.
        merged_dir: The merged model.

    Returns:
        What was compared.

    Raises:
        UserError: They differ by more than rounding.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(adapter_dir))
    rows = _rows(tokenizer)
    quantization = None
    if cfg._original_load_in_4bit or cfg._original_adapter == "qlora":
        from transformers import BitsAndBytesConfig

        # As it was trained; the merge rounds the base model in the same way.
        options = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, **(cfg.bnb_config_kwargs or {})}
        quantization = BitsAndBytesConfig(load_in_4bit=True, **options)
    size = len(tokenizer)
    expected, _ = _logits(rows, adapter_dir, size, base=str(cfg.base_model), quantization=quantization, merge=False)
    found, exact = _logits(rows, merged_dir, size)
    width = min(expected.shape[-1], found.shape[-1])
    difference = (found[:, :width] - expected[:, :width]).square().mean().sqrt().item()
    scale = expected[:, :width].square().mean().sqrt().item()
    # Not "more than": the logits may be no numbers.
    if not difference <= (_TOLERANCE if exact else _TOLERANCE_16_BIT) * scale:
        raise UserError(
            f"{merged_dir} is not the model that {adapter_dir} is on {cfg.base_model}: over {len(expected)} positions the "
            f"logits differ by {difference:.2g} of {scale:.2g}, so the merge left something out. Use the adapter itself"
            + ("" if cfg.merge_method == "legacy" else ", or merge with merge_method: legacy")
        )
    weights = identity(record_files(merged_dir, weights_files(merged_dir)))
    return MergeRecord(adapter=str(adapter_dir), weights=weights, difference=difference, positions=len(expected))


def _rows(tokenizer: Any) -> list[list[int]]:
    """A conversation with all tags, and every token that was added to the vocabulary."""
    thinking, end_of_thinking, answer, end_of_answer = THINKING_ANSWER.tags
    response = f"{thinking}Half of 12 is 6, and 12 + 6 = 18.{end_of_thinking}{answer}18{end_of_answer}"
    turns = [{"role": "user", "content": "How many are 12 and half of it?"}, {"role": "assistant", "content": response}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    added = sorted(tokenizer.get_added_vocab().values())[-_MOST_ADDED_TOKENS:]
    return [row for row in (tokenizer.encode(text, add_special_tokens=False), added) if row]


def _logits(rows: list[list[int]], folder: Path, size: int, **options: Any) -> tuple[Any, bool]:
    """The logits of all rows, one position a line, and whether the weights are stored and used in fp32."""
    import torch

    from sftkey.evaluation.generation import load_model

    model = load_model(folder, size, **options).eval()
    # Where single embeddings are trained, a wrapper with no count of its own is around the layer.
    if (embeddings := len(model.get_input_embeddings().weight)) < size:
        raise UserError(f"{folder} has {embeddings} embeddings for {size} tokens: the merge left the added ones out")
    with torch.no_grad():
        found = [model(input_ids=row[None].to(model.device)).logits[0].float().cpu() for row in map(torch.tensor, rows)]
    stored = str(_read(folder / "config.json").get("dtype"))
    return torch.cat(found), stored == "float32" and next(model.parameters()).dtype == torch.float32


def _read(path: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
