"""Embeddings of added tags that would never be trained are an error, however they come to be frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sftkey.axolotl.added_tags import refuse_frozen_tags
from sftkey.format.formats import THINKING_ANSWER
from sftkey.util.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(tiny_root: Path) -> Any:
    """The tiny model's tokenizer with the tags added."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_root / "model")
    tokenizer.add_tokens(list(THINKING_ANSWER.tags))
    return tokenizer


@pytest.fixture
def model(tiny_root: Path, tokenizer: Any) -> Any:
    """The tiny model with room for the tags."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_root / "model")
    model.resize_token_embeddings(len(tokenizer))
    return model


def lora(model: Any, **settings: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings))


def test_trained_embeddings_pass(model: Any, tokenizer: Any) -> None:
    refuse_frozen_tags(model, tokenizer, {})
    refuse_frozen_tags(lora(model, modules_to_save=["embed_tokens", "lm_head"]), tokenizer, {"adapter": "lora"})


def test_single_trained_embeddings(model: Any, tokenizer: Any) -> None:
    ids = tokenizer.convert_tokens_to_ids(list(THINKING_ANSWER.tags))
    adapted = lora(model, trainable_token_indices=ids)
    refuse_frozen_tags(adapted, tokenizer, {"adapter": "lora", "peft_trainable_token_indices": ids})
    recipe = {"adapter": "lora", "peft_trainable_token_indices": {"embed_tokens": ids[:3]}}
    with pytest.raises(UserError, match=rf"lacks {ids[3]} \(</Answer>\); add them"):
        refuse_frozen_tags(adapted, tokenizer, recipe)


def test_frozen_embeddings(model: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="adapter: the embeddings stay frozen"):
        refuse_frozen_tags(lora(model), tokenizer, {"adapter": "lora"})
    model.get_input_embeddings().weight.requires_grad = False
    with pytest.raises(UserError, match="unfrozen_parameters: the embeddings stay frozen"):
        refuse_frozen_tags(model, tokenizer, {"unfrozen_parameters": ["model.layers.*"]})
