"""A tiny model that has learnt one chat of two turns by heart, saved as a stage is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sftkey.format.formats import FORMATS, THINKING_ANSWER
from sftkey.format.templates import TAGGED, chat_template
from sftkey.stages.serving import write_reasoning_parser
from sftkey.training.end_of_turn import greedy
from sftkey.training.served_tokenizer import describe_responses
from support.small_models import small_model

TURNS = [
    ("How much is 2 plus 3?", "2 plus 3 is 5; a < b.", "5"),
    ("And times 4?", "5 times 4\nis 20.", "20"),
]
"""Question, thinking and answer of each turn."""


def messages(turns: int, key: str = "reasoning_content", *, in_parts: bool = False) -> list[dict[str, Any]]:
    """The chat up to the question of a turn, with the thinking under a key and questions as texts or in two parts."""
    sent: list[dict[str, Any]] = []
    for question, thinking, answer in TURNS[:turns]:
        half = len(question) // 2
        parts = [{"type": "text", "text": text} for text in (question[:half], question[half:])]
        sent += [
            {"role": "user", "content": parts if in_parts else question},
            {"role": "assistant", "content": answer, key: thinking},
        ]
    return sent[:-1]


def make_served_model(folder: Path, tokenizer_folder: Path, response_format: str) -> Path:
    """Train it, and write what a finished stage leaves for a server.

    Args:
        folder: Where to write.
        tokenizer_folder: Qwen3's real tokenizer: llama.cpp's conversion takes those whose ids for a text it knows.
        response_format: Name of a format. The paper's goes with the shipped chat template, others with the tokenizer's own.
    """
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    if FORMATS[response_format] is THINKING_ANSWER:
        tokenizer.chat_template = chat_template(TAGGED)
    describe_responses(tokenizer, FORMATS[response_format])
    texts = []
    for number, (_, thinking, answer) in enumerate(TURNS, 1):
        response = "".join(piece.text for piece in FORMATS[response_format].render(thinking, answer))
        prompt = tokenizer.apply_chat_template(messages(number), add_generation_prompt=True, tokenize=False)
        texts.append(tokenizer(prompt + response + tokenizer.eos_token, return_tensors="pt")["input_ids"][0])
    used, targets = torch.cat(texts).unique(return_inverse=True)
    model = small_model(
        len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_key_value_heads=2,
        head_dim=32,
        initializer_range=0.02,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(300):
        losses = []
        for ids, wanted in zip(texts, targets.split([len(ids) for ids in texts]), strict=True):
            # Over the tokens that occur: over the whole vocabulary it would take minutes.
            logits = model.model(input_ids=ids[None]).last_hidden_state[0, :-1] @ model.lm_head.weight[used].T
            losses.append(torch.nn.functional.cross_entropy(logits, wanted[1:]))
        if (loss := sum(losses)).item() < 0.02:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    generation = {"temperature": 0.6, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    greedy(generation)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    write_reasoning_parser(folder)
    return folder
