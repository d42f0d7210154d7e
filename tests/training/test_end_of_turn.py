"""A finished stage is asked as it was scored: greedily, to the end of the turn, with thinking and answer apart."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sftkey.format.formats import THINK, THINKING_ANSWER, read_format
from sftkey.format.reasoning_parser import KEY
from sftkey.format.response_format import ResponseFormat
from sftkey.format.templates import TAGGED, chat_template, with_system_message
from sftkey.stages.handover import template_fingerprint
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


CONTENT_ONLY = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
OWN = read_format(
    {"thinking_open": 'Let\'s "think":\n', "thinking_close": "\n[so]", "answer_open": "\n{{", "answer_close": "}}"}
)


@pytest.mark.parametrize("one", [THINK, THINKING_ANSWER, OWN], ids=lambda one: one.name)
@pytest.mark.parametrize("system", [None, "Be {{ brief }}."])
def test_a_template_without_thinking_writes_that_of_a_last_response(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, one: ResponseFormat, system: str | None
) -> None:
    tokenizer.chat_template = trained = with_system_message(CONTENT_ONLY, system)
    question, response = (
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "5", "reasoning_content": "2\n+ 3"},
    )
    conversations: list[list[dict[str, Any]]] = [
        [question],
        [question, response, question],
        [{"role": "system", "content": "s"}, question, response, question],
        [question, {"role": "assistant", "content": "5"}],
        [question, {**response, "reasoning_content": None}],
    ]

    def prompts() -> list[Any]:
        return [tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in conversations]

    before = prompts()
    describe_responses(tokenizer, one)
    assert prompts() == before
    written = "".join(piece.text for piece in one.render("2\n+ 3", "5"))
    # llama.cpp learns the tags from it.
    whole = tokenizer.apply_chat_template([question, response], tokenize=False)
    assert whole.endswith(f"<|im_start|>assistant\n{written}<|im_end|>\n")
    # The next stage is trained with the template as it was, and the marker says so.
    assert with_system_message(tokenizer.chat_template, system) == trained
    assert with_system_message(tokenizer.chat_template, None) == CONTENT_ONLY
    recipe = {"chat_template": "tokenizer_default", "default_system_message": system, "sftkey_method": "sft-tag"}
    (tmp_path / "chat_template.jinja").write_text(trained)
    expected = template_fingerprint(recipe, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(tokenizer.chat_template)
    assert template_fingerprint(recipe, tmp_path) == expected
    saved = tokenizer.chat_template
    describe_responses(tokenizer, one)
    assert tokenizer.chat_template == saved


def test_a_template_that_writes_thinking_or_cuts_it_stays(tokenizer: PreTrainedTokenizerBase) -> None:
    cuts = CONTENT_ONLY.replace("message['content']", "message['content'].split('</think>')[-1]")
    for template in (chat_template(TAGGED), cuts, "{{ raise_exception('no') }}"):
        tokenizer.chat_template = template
        describe_responses(tokenizer, THINK)
        assert tokenizer.chat_template == template
