"""Causal language models with random weights, small enough for any test."""

from __future__ import annotations

from typing import Any


def small_model(vocab_size: int, model_type: str = "qwen3", *, seed: int = 0, **options: Any) -> Any:
    """Build one.

    Args:
        vocab_size: Size of its vocabulary.
        model_type: Its architecture, as transformers calls it.
        seed: Of its weights. They are large, so that each token's logits differ.
        **options: Other values of its config.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "initializer_range": 0.3,
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, vocab_size=vocab_size, **shape | options))
