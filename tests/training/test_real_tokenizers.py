"""Masks with the tokenizers and chat templates of several families, row by row: `make test-tokenizers` downloads them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.messages import MESSAGES
from sftkey.format.formats import FORMATS, read_format
from sftkey.format.methods import METHODS
from sftkey.training.own_template import OwnTemplateTokenizer
from sftkey.training.served_tokenizer import describe_responses
from sftkey.training.tokenizers import TokenizerError
from support.chats import chats, check_chat
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


WITHOUT_TOOLS = ("llama3", "llama3_1", "gemma3")
"""Their templates, in these packages, know no tools."""


@pytest.mark.parametrize("family", FAMILIES)
def test_turns_after_their_history(family: str) -> None:
    tokenizer = load(family)
    counts: Counter[str] = Counter()

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(chats(tools=family not in WITHOUT_TOOLS), st.sampled_from(WRITTEN), st.sampled_from(["sft-tag", "key-tag"]))
    def check_one(row: dict[str, Any], written: Any, method: str) -> None:
        tokenize = OwnTemplateTokenizer(tokenizer, METHODS[method], MESSAGES.untagged, written)
        example = MESSAGES.to_example(row)
        (tokens,) = tokenize([example])
        counts["turns"] += 1
        counts["exact"] += bool(tokens.input_ids)
        if tokens.input_ids:
            check_chat(tokenize, row, tokens)
            counts["as the template writes them"] += tokenize.is_as_rendered(example, tokens)

    check_one()
    print(f"{family}: {dict(counts)}")
    assert counts["exact"] == counts["turns"]


@pytest.mark.parametrize("family", [*FAMILIES, "deepseek_v3"])
@pytest.mark.parametrize("written", WRITTEN, ids=lambda one: one.name)
def test_a_saved_template_writes_the_thinking_of_a_response(family: str, written: Any) -> None:
    """llama.cpp learns the tags from it; no prompt is another by it."""
    tokenizer = load(family)
    question, response = (
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "5", "reasoning_content": "2+3"},
    )

    def prompt() -> str:
        sent = [question, response, question]
        return str(tokenizer.apply_chat_template(sent, tokenize=False, add_generation_prompt=True))

    before = prompt()
    describe_responses(tokenizer, written)
    assert prompt() == before
    # Qwen3's own writes thinking by itself, in its own tags.
    one = FORMATS["think"] if family == "qwen3" else written
    text = "".join(piece.text for piece in one.render("2+3", "5"))
    assert text in tokenizer.apply_chat_template([question, response], tokenize=False)
