"""Batched generation against one token at a time, one prompt at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from demo.tiny_model import make_tokenizer
from sftkey.evaluation.generation import complete
from support.small_models import small_model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(["the red box and the blue box " * 20, "a lamp costs 31"], vocab_size=300)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    options = {"initializer_range": 0.4, "eos_token_id": tokenizer.eos_token_id}
    model = small_model(len(tokenizer), seed=3, **shape, **options).eval()
    # What greedy decoding must not take from a checkpoint.
    model.generation_config.repetition_penalty = 1.5
    model.generation_config.do_sample = True
    return model


def slowly(model: Any, prompt: list[int], ends: set[int], limit: int) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) - len(prompt) < limit and (len(ids) == len(prompt) or ids[-1] not in ends):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_equals_one_token_at_a_time(model: Any, tokenizer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(3, len(tokenizer), (length,), generator=generator).tolist()
        for length in (1, 9, 4, 17, 2, 30, 5, 12)
    ]
    end, base_end = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>"))
    free = [slowly(model, prompt, set(), 25) for prompt in prompts]
    often = sorted({token for tokens in free for token in tokens}, key=lambda t: sum(t in tokens for tokens in free))
    rare, rarer = often[1], often[0]
    with torch.no_grad():
        # What some prompts led to ends the turn from now on.
        model.lm_head.weight[[rare, rarer, end, base_end]] = model.lm_head.weight[[end, base_end, rare, rarer]]
    expected = [slowly(model, prompt, {end, base_end}, 25) for prompt in prompts]
    assert {end, base_end} <= {tokens[-1] for tokens in expected}
    assert max(map(len, expected)) == 25
    for batch_size in (1, 3, 8):
        found = complete(model, tokenizer, prompts, max_new_tokens=25, batch_size=batch_size)
        assert [completion.tokens for completion in found] == [len(tokens) for tokens in expected]
        assert [completion.finished for completion in found] == [t[-1] in (end, base_end) for t in expected]
        assert [completion.text for completion in found] == [
            tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected
        ]


def test_leaves_the_model_as_it_was(model: Any, tokenizer: Any) -> None:
    model.train()
    assert complete(model, tokenizer, [], max_new_tokens=2, batch_size=4) == []
    assert complete(model, tokenizer, [[5]], max_new_tokens=4, min_new_tokens=4, batch_size=4)[0].tokens <= 4
    assert model.training
    model.eval()


def test_needs_the_end_of_the_turn(model: Any) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    without = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, "?")), unk_token="?"
    )
    with pytest.raises(ValueError, match=r"has no token <\|im_end\|> to stop at"):
        complete(model, without, [[0]], max_new_tokens=2, batch_size=1)
