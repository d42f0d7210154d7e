"""Masks with the tokenizers and chat templates of several families, row by row: `make test-tokenizers` downloads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sftkey.datasets.gsm8k import GSM8K
from sftkey.format.formats import FORMATS, read_format
from sftkey.format.methods import METHODS
from sftkey.training.own_template import OwnTemplateTokenizer
from sftkey.training.tokenizers import TokenizerError
from support.row_check import check

pytestmark = pytest.mark.tokenizers

FAMILIES = {
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "mistral_nemo": "</s>",
}
WRITTEN = [*FORMATS.values(), read_format({"thinking_open": "### Reasoning\n", "thinking_close": "\n### Answer\n"})]


def load(family: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(Path(os.environ["TOKENIZERS"]) / family / "package" / "models")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_real_row(family: str, gsm8k_rows: dict[str, list[dict[str, Any]]]) -> None:
    tokenizer = load(family)
    examples = [GSM8K.to_example(row) for row in gsm8k_rows["test"]]
    for written in WRITTEN:
        for method in ("sft-tag", "key-tag"):
            tokenize = OwnTemplateTokenizer(tokenizer, METHODS[method], GSM8K.untagged, written)
            assert tokenize.end_of_turn == FAMILIES[family]
            rows = tokenize(examples)
            assert all(row.input_ids for row in rows)
            for example, row in zip(examples, rows, strict=True):
                check(tokenize, example, row)
        print(f"{family}, {written.name} {written.tags[0]}: {len(rows):,} of {len(examples):,} rows exact, two methods")


def test_a_tokenizer_that_changes_text_is_refused() -> None:
    """DeepSeek's, which transformers 5 loads as another kind of tokenizer."""
    with pytest.raises(TokenizerError, match="doesn't give back the text"):
        OwnTemplateTokenizer(load("deepseek_v3"), METHODS["sft-tag"], GSM8K.untagged)


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(TokenizerError, match="has no chat template"):
        OwnTemplateTokenizer(load("gptoss"), METHODS["sft-tag"], GSM8K.untagged)
