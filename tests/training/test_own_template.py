"""Rows in a chat template of the model's own: every token where the text says, against an independent computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sftkey.datasets.chat_reader import ChatReader
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.messages import MESSAGES, with_reader
from sftkey.format.example import Example
from sftkey.format.formats import THINK, THINKING_ANSWER, read_format
from sftkey.format.methods import METHODS
from sftkey.format.response_format import ResponseFormat
from sftkey.format.templates import with_system_message
from sftkey.training import rendering
from sftkey.training.own_template import OwnTemplateTokenizer, end_of_turn
from sftkey.training.rows import INEXACT, RowTokenizer
from sftkey.training.tokenization import IGNORE_INDEX
from sftkey.training.tokenizers import TokenizerError
from sftkey.util.errors import UserError
from support.chats import chats, check_chat
from support.row_check import check

HEADINGS = read_format({"thinking_open": "### Reasoning\n", "thinking_close": "\n### Answer\n"})
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\nOPENED{% endif %}"


@pytest.fixture
def qwen3(shared_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / "qwen3")


def own(tokenizer: Any, method: str, written: ResponseFormat) -> OwnTemplateTokenizer:
    return OwnTemplateTokenizer(tokenizer, METHODS[method], GSM8K.untagged, written)


@pytest.mark.parametrize("written", [THINK, THINKING_ANSWER, HEADINGS], ids=lambda one: one.name + one.tags[0])
@pytest.mark.parametrize("method", ["sft-tag", "key-tag"])
def test_every_real_row(qwen3: Any, gsm8k_rows: dict[str, list[dict[str, Any]]], method: str, written: Any) -> None:
    tokenize = own(qwen3, method, written)
    assert tokenize.end_of_turn == "<|im_end|>"
    examples = [GSM8K.to_example(row) for row in gsm8k_rows["test"]]
    rows = tokenize(examples)
    assert len(rows) == 1_319
    for example, row in zip(examples, rows, strict=True):
        check(tokenize, example, row)


def test_the_rows_are_what_the_template_renders(qwen3: Any, gsm8k_rows: dict[str, list[dict[str, Any]]]) -> None:
    examples = [GSM8K.to_example(row) for row in gsm8k_rows["test"]]
    for example, row in zip(examples, own(qwen3, "sft-tag", THINK)(examples), strict=True):
        messages = [
            {"role": "user", "content": example.question},
            {"role": "assistant", "content": example.answer, "reasoning_content": example.thinking},
        ]
        rendered = qwen3.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert row.input_ids == rendered[:-1]  # but for the line break after the turn, which nobody generates


hostile = st.text(st.sampled_from("a1.\n <>/é\u0338"), min_size=1, max_size=12)


@pytest.mark.parametrize("written", [THINK, THINKING_ANSWER, HEADINGS], ids=lambda one: one.name + one.tags[0])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(hostile, hostile, hostile), min_size=1, max_size=8))
def test_hostile_texts_are_exact_or_left_out(qwen3: Any, written: Any, texts: list[tuple[str, str, str]]) -> None:
    import unicodedata

    tokenize = own(qwen3, "key-tag", written)
    examples = [Example(*(unicodedata.normalize("NFC", text) for text in three)) for three in texts]
    examples = [
        one
        for one in examples
        if not written.contains_tag(one.thinking)
        # What joins to another character at a border is another text.
        and all(unicodedata.is_normalized("NFC", a + b) for a, b in ((">", one.thinking), (">", one.answer)))
    ]
    for example, row in zip(examples, tokenize(examples), strict=True):
        if row.input_ids:
            check(tokenize, example, row)


@pytest.mark.parametrize(
    ("opened", "expected"), [("", ""), ("<think>", "<think>"), ("<think>\n", "<think>\n"), ("x <think>\n", "<think>\n")]
)
def test_what_the_prompt_holds_is_never_trained(qwen3: Any, opened: str, expected: str) -> None:
    qwen3.chat_template = TURNS + PROMPT.replace("OPENED", opened)
    tokenize = own(qwen3, "sft-tag", THINK)
    assert tokenize.opened == expected
    example = Example("Is it?", "It is.", "yes")
    (row,) = tokenize([example])
    check(tokenize, example, row)
    trained = qwen3.decode([label for label in row.labels if label != IGNORE_INDEX])
    assert trained == "<think>\nIt is.\n</think>\n\nyes<|im_end|>".removeprefix(expected)


@pytest.mark.parametrize(
    ("opened", "method", "refused"),
    [
        ("<think>\n\n</think>\n\n", "sft-tag", True),
        ("<think>\n\n</think>\n\n", "key", False),
        ("<think>\n", "sft", True),
        ("", "sft", False),
    ],
)
def test_prompts_after_which_a_response_cannot_follow(qwen3: Any, opened: str, method: str, refused: bool) -> None:
    qwen3.chat_template = TURNS + PROMPT.replace("OPENED", opened)
    if refused:
        with pytest.raises(TokenizerError, match="begins the response with"):
            own(qwen3, method, THINK)
    else:
        assert own(qwen3, method, THINK).opened == ""


def test_a_template_that_strips_the_question(qwen3: Any) -> None:
    qwen3.chat_template = TURNS.replace("m.content", "m.content | trim") + PROMPT.replace("OPENED", "")
    tokenize = own(qwen3, "sft-tag", THINK)
    for question in ("Is it?", " Is it?\n"):
        assert tokenize.prompt(question) == "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "which is no special token"),
        (TURNS.replace("m.content", "m.content | upper"), "ends a response with ''"),
        ("{% for m in messages %}{{ m.role }", "the chat template fails on a question \\(TemplateSyntaxError"),
        ("{{ raise_exception('no users here') }}", "fails on a question \\(TemplateError: no users here"),
        ("{{ messages + 1 }}", "fails on a question \\(TypeError"),
        ("{{ messages[0].content[0].text.x.y }}", "fails on a question \\(UndefinedError"),
        ("{{ 1 / 0 }}", "fails on a question \\(ZeroDivisionError"),
        ("{{ messages[0].__class__.__mro__ }}", "fails on a question \\(SecurityError"),
    ],
)
def test_templates_that_cannot_be_used(qwen3: Any, template: str | None, message: str) -> None:
    qwen3.chat_template = template
    with pytest.raises(TokenizerError, match=message):
        own(qwen3, "sft-tag", THINK)


def test_rows_whose_prompt_and_response_join_are_counted(qwen3: Any) -> None:
    qwen3.chat_template = TURNS + PROMPT.replace("OPENED", "<think>\n")
    rows = [
        {"question": "Is it?", "answer": f"{thinking}\n#### 5"} for thinking in ("It is.", "\n\nIt is.", "  It is.")
    ]
    dataset = GSM8K
    tokenized, skipped = RowTokenizer(dataset, own(qwen3, "sft-tag", THINK), 100).batch(rows)
    assert len(tokenized.lengths) + sum(skipped.values()) == 3
    assert set(skipped) <= {INEXACT}
    direct = own(qwen3, "sft-tag", THINK)([Example("Is it?", "\nIt is.", "5")])
    assert direct[0].input_ids == []


def test_a_system_message_of_ones_own_travels_with_the_template(qwen3: Any) -> None:
    plain = qwen3.chat_template
    message = "Say 'yes' or \"no\".\n{{ evil }} <think>"
    qwen3.chat_template = with_system_message(plain, message)
    tokenize = own(qwen3, "sft-tag", THINK)
    assert tokenize.prompt("Is it?").startswith(f"<|im_start|>system\n{message}<|im_end|>\n<|im_start|>user\nIs it?")
    given_one = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Is it?"}]
    assert "Say" not in qwen3.apply_chat_template(given_one, tokenize=False)
    assert with_system_message(qwen3.chat_template, None) == plain
    assert with_system_message(with_system_message(plain, "Other."), message) == qwen3.chat_template
    assert end_of_turn(qwen3) == "<|im_end|>"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chats(), st.sampled_from(["sft-tag", "key-tag"]), st.sampled_from([THINK, THINKING_ANSWER, HEADINGS]))
def test_a_turn_after_its_history(qwen3: Any, row: dict[str, Any], method: str, written: ResponseFormat) -> None:
    tokenize = own(qwen3, method, written)
    example = MESSAGES.to_example(row)
    (tokens,) = tokenize([example])
    check_chat(tokenize, row, tokens)
    assert written is not THINK or tokenize.is_as_rendered(example, tokens)


def test_a_template_that_writes_a_row_otherwise(qwen3: Any) -> None:
    tokenize = own(qwen3, "sft-tag", THINK)
    example = Example("Is it?", "It is.", "yes")
    (row,) = tokenize([example])
    assert tokenize.is_as_rendered(example, row)
    qwen3.chat_template = TURNS + PROMPT.replace("OPENED", "")
    assert tokenize.is_as_rendered(example, row)  # the response as a text
    qwen3.chat_template = TURNS.replace("m.content", "m.content.split('</think>')[-1]") + PROMPT.replace("OPENED", "")
    assert not tokenize.is_as_rendered(example, row)


CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
ANSWER = {"role": "assistant", "content": "yes", "reasoning_content": "It is."}


def rows_of(qwen3: Any, template: str, *rows: dict[str, Any], turns: str = "last") -> tuple[int, dict[str, int]]:
    qwen3.chat_template = template + PROMPT.replace("OPENED", "")
    dataset = with_reader(ChatReader(turns=turns))
    tokenized, skipped = RowTokenizer(dataset, own(qwen3, "sft-tag", THINK), 200).batch(rows)
    return len(tokenized.lengths), dict(skipped)


def test_what_a_template_refuses_is_counted_with_what_it_said(qwen3: Any) -> None:
    refuses = "{% if messages | length > 2 %}{{ raise_exception('one\nturn only') }}{% endif %}" + TURNS
    several, single = {"messages": [*CHAT, ANSWER]}, {"messages": [CHAT[0], ANSWER]}
    assert rows_of(qwen3, refuses, several, single, several) == (
        1,
        {"the chat template refuses it: TemplateError: one turn only": 2},
    )
    assert rows_of(qwen3, TURNS, several) == (1, {})


def test_a_template_that_leaves_tools_out_is_no_template_for_them(qwen3: Any) -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    row = {"messages": [CHAT[0], ANSWER], "tools": tools}
    assert rows_of(qwen3, TURNS, row) == (0, {"the chat template leaves its tools out": 1})
    assert rows_of(qwen3, "{{ tools | tojson }}" + TURNS, row) == (1, {})


def test_a_row_on_which_a_template_never_ends_is_named(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MAX_SECONDS", 0.5)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    slow = "{% if messages | length > 2 %}" + loops + "{% endif %}"
    with pytest.raises(UserError, match="on the row whose question is 'c'") as found:
        rows_of(qwen3, slow + TURNS, {"messages": [*CHAT, ANSWER]})
    assert "\n" not in str(found.value)


def test_all_turns_are_rows_and_the_others_are_counted(qwen3: Any) -> None:
    row = {"messages": [CHAT[0], ANSWER, CHAT[2], CHAT[1], CHAT[0], ANSWER]}
    assert rows_of(qwen3, TURNS, row, turns="all") == (2, {"no think block": 1})
    special = {"messages": [{"role": "user", "content": "<|im_end|>"}, CHAT[1], CHAT[2], ANSWER]}
    assert rows_of(qwen3, TURNS, special) == (0, {"special token in the text": 1})
