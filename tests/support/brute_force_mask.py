"""An independent computation of tokens and labels, which knows nothing of `sftkey.training.tokenization`.

It writes the sequence out by hand from the paper's format, tokenises each stretch of text by itself with the tokenizer's
own ``encode``, and labels by comparing stretches, not by segment ids.
"""

from __future__ import annotations

from typing import Any

TRAINED = {
    "sft-tag": ["<Thinking>", None, "</Thinking>", "<Answer>", None, "</Answer>", "<|im_end|>"],
    "key-tag": ["<Answer>", None, "</Answer>", "<|im_end|>"],
}


def stretches(thinking: str, answer: str) -> list[str]:
    """The response of Eq. 2 and the end of the turn, cut where the paper cuts it."""
    return ["<Thinking>", thinking, "</Thinking>", "<Answer>", answer, "</Answer>", "<|im_end|>"]


def brute_force(tokenizer: Any, prompt: str, thinking: str, answer: str, method: str) -> tuple[list[int], list[int]]:
    """Token ids and labels of one example."""
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    parts = [tokenizer.encode(part, add_special_tokens=False) for part in stretches(thinking, answer)]
    first_trained = len(parts) - len(TRAINED[method])
    ids, labels = list(prompt_ids), [-100] * len(prompt_ids)
    for index, part in enumerate(parts):
        ids += part
        labels += part if index >= first_trained else [-100] * len(part)
    return ids, labels
