"""A finished stage is asked as it was scored: greedily, to the end of the turn, with thinking and answer apart."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sftkey.format.formats import THINK, THINKING_ANSWER
from sftkey.format.reasoning_parser import KEY
from sftkey.format.templates import TAGGED, chat_template
from sftkey.training.end_of_turn import greedy, stop_at_end_of_turn
from sftkey.training.served_tokenizer import describe_responses
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

SAMPLED = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.05}
OLD = Path(__file__).parents[1] / "stages" / "written_by_9c54c77" / "old" / "stage1"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    found = AutoTokenizer.from_pretrained(OLD)
    found.chat_template = chat_template(TAGGED)
    return found


def test_a_base_models_sampling_does_not_survive(tmp_path: Path) -> None:
    config = GenerationConfig(eos_token_id=[7, 8], bos_token_id=1, **SAMPLED)
    model: Any = SimpleNamespace(config=SimpleNamespace(eos_token_id=7), generation_config=config)
    trainer = SimpleNamespace(
        processing_class=SimpleNamespace(eos_token_id=5, pad_token_id=0),
        accelerator=SimpleNamespace(unwrap_model=lambda _: model),
        model=model,
    )
    stop_at_end_of_turn(trainer)
    config.save_pretrained(tmp_path)  # refuses what contradicts itself
    loaded = GenerationConfig.from_pretrained(tmp_path)
    assert not loaded.do_sample
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.bos_token_id) == ([5, 7, 8], 0, 1)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert not {name for name in SAMPLED if name != "do_sample"} & written.keys()
    merged = {**SAMPLED, "eos_token_id": 7}
    greedy(merged)
    assert merged == {"do_sample": False, "eos_token_id": 7}


def test_a_saved_tokenizer_splits_responses(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    pytest.importorskip("transformers.utils.chat_parsing")
    for one in (THINKING_ANSWER, THINK):
        describe_responses(tokenizer, one)
        tokenizer.save_pretrained(tmp_path / one.name)
        saved: Any = AutoTokenizer.from_pretrained(tmp_path / one.name)
        assert saved.response_template["start_anchor"] == "<|im_start|>assistant\n"
        assert saved.init_kwargs[KEY]["thinking_open"] == one.thinking_open
        message = {"role": "assistant", "thinking": "2 + 3 = 5", "content": "5"}
        written = "".join(piece.text for piece in one.render(message["thinking"], message["content"]))
        question = [{"role": "user", "content": "What is 2 + 3?"}]
        prompt = saved.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        ids = saved(written + "<|im_end|>", add_special_tokens=False)["input_ids"]
        assert saved.parse_response(ids, prefix=prompt) == message
        if one is THINKING_ANSWER:
            # What was parsed comes back as the history of the next turn, as it was written.
            assert f"assistant\n{written}<|im_end|>" in saved.apply_chat_template([*question, message], tokenize=False)
