"""vLLM's reasoning parser as vLLM calls it, in the server and in the engine, without vLLM."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.format import reasoning_parser
from sftkey.format.formats import FORMATS, read_format, texts_of
from sftkey.format.response_format import ResponseFormat

FORMATS_TRIED = [
    *FORMATS.values(),
    read_format({"thinking_open": "### Reasoning\n", "thinking_close": "\n### Answer\n"}),
    read_format({"thinking_open": "<r>", "thinking_close": "</r>", "answer_open": "\nAnswer: "}),
]
END, TURN = "<|im_end|>", "<|im_start|>assistant\n"


class Tokenizer:
    """Tokens are whatever pieces a text is cut into, numbered as they come."""

    eos_token_id = 0

    def __init__(self, one: ResponseFormat, opened: str = "", single_tokens: tuple[str, ...] = ()) -> None:
        self.init_kwargs = {reasoning_parser.KEY: texts_of(one)}
        self.opened, self.texts, self.single_tokens = opened, [END], single_tokens

    def get_vocab(self) -> dict[str, int]:
        return {text: number for number, text in enumerate(self.single_tokens)}

    def apply_chat_template(self, messages: list[dict[str, str]], enable_thinking: bool = True, **_: Any) -> str:
        turns = "".join(f"<|im_start|>{one['role']}\n{one['content']}{END}\n" for one in messages)
        empty = "".join(texts_of(read_format(self.init_kwargs[reasoning_parser.KEY]))[key] for key in THOUGHT)
        return turns + TURN + (self.opened if enable_thinking else empty)

    def ids(self, text: str, sizes: list[int]) -> list[int]:
        """Cut a text into pieces of these sizes, over and over."""
        found, place = [], 0
        while place < len(text):
            size = sizes[len(found) % len(sizes)]
            self.texts.append(text[place : place + size])
            found.append(len(self.texts) - 1)
            place += size
        return found

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(self.texts[one] for one in ids if one or not skip_special_tokens)


THOUGHT = ("thinking_open", "thinking_close")


@pytest.fixture(scope="module")
def make() -> Callable[..., Any]:
    """The class as vLLM has it after loading the file beside the weights, with what it inherits there."""

    class Base:
        def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
            self.model_tokenizer = tokenizer
            self.vocab = tokenizer.get_vocab()

    registered: dict[str, Any] = {}
    manager = SimpleNamespace(register_module=lambda name: lambda found: registered.setdefault(name, found))
    names = [
        "vllm",
        "vllm.reasoning",
        *accumulate(["vllm", "entrypoints", "generate", "base", "protocol"], "{}.{}".format),
    ]
    modules = {name: ModuleType(name) for name in names}
    modules["vllm.reasoning"].__dict__.update(ReasoningParser=Base, ReasoningParserManager=manager)
    modules["vllm.entrypoints.generate.base.protocol"].__dict__.update(DeltaMessage=SimpleNamespace)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("beside_the_weights", Path(reasoning_parser.__file__))
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return registered["sftkey"]


def streamed(parser: Any, tokenizer: Tokenizer, prompt: list[int], output: list[int], chunk: int) -> tuple[str, str]:
    """What a client gets, as vLLM 0.32's ``DelegatingParser.parse_delta`` goes about it."""
    thinking, answer = "", ""
    passed_on = parser.is_reasoning_end(prompt)
    for start in range(0, len(output), chunk):
        delta, so_far = output[start : start + chunk], output[: start + chunk]
        before, text = (tokenizer.decode(ids, True) for ids in (output[:start], so_far))
        if passed_on:
            answer += tokenizer.decode(delta, True)
            continue
        said = parser.extract_reasoning_streaming(before, text, text[len(before) :], output[:start], so_far, delta)
        thinking += getattr(said, "reasoning", None) or ""
        answer += getattr(said, "content", None) or ""
        if passed_on := parser.is_reasoning_end_streaming(so_far, delta):
            # The tokens of what this step has of the answer, for the parser of tool calls.
            ids = parser.extract_content_ids(delta)
            assert tokenizer.decode(ids, True).endswith(getattr(said, "content", None) or "")
    if not passed_on:
        answer += parser.get_streaming_fallback_content(tokenizer.decode(output, True), None) or ""
    return thinking, answer


texts = st.text("ab <>/\n", max_size=12)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@settings(deadline=None, max_examples=150)
@given(
    one=st.sampled_from(FORMATS_TRIED),
    thinking=texts,
    answer=texts,
    cut=sizes,
    chunk=st.integers(1, 5),
    opened=st.booleans(),
    end=st.sampled_from([END, ""]),
    data=st.data(),
)
def test_server_and_engine_agree_on_an_output(
    make: Any,
    one: ResponseFormat,
    thinking: str,
    answer: str,
    cut: list[int],
    chunk: int,
    opened: bool,
    end: str,
    data: Any,
) -> None:
    written = "".join(piece.text for piece in one.render(thinking, answer))
    if not one.parse(written).well_formed:
        return
    tokenizer = Tokenizer(one, one.thinking_open if opened else "")
    # An earlier turn has a whole thinking, which says nothing of this one.
    history = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": written},
        {"role": "user", "content": "?"},
    ]
    prompt = tokenizer.ids(tokenizer.apply_chat_template(history), cut)
    whole = written.removeprefix(tokenizer.opened)
    text = whole[: data.draw(st.integers(0, len(whole)))] if not end else whole
    output = tokenizer.ids(text, cut) + [0] * bool(end)

    assert not make(tokenizer).is_reasoning_end(prompt)
    said = make(tokenizer).extract_reasoning(text, SimpleNamespace())
    all_of_it = tuple(part or "" for part in said)
    shown = streamed(make(tokenizer), tokenizer, prompt, output, chunk)
    # vLLM asks for the rest of a cut-off answer alone: what may have been the tag that ends a thinking stays out.
    held = all_of_it[0].removeprefix(shown[0]) if not end else ""
    assert (shown[0] + held, shown[1]) == all_of_it
    assert any(tag.startswith(held.lstrip("\n")) for tag in (one.thinking_close.lstrip(), *one.tags))

    engine = make(tokenizer)
    ended = [
        engine.is_reasoning_end_streaming(prompt + output[:n], output[n - 1 : n]) for n in range(1, len(output) + 1)
    ]
    # Everything before the answer is free, all of the answer is held to the grammar.
    place = len(whole) - len(answer) - len(one.answer_close)
    reached = [len(tokenizer.decode(output[:n])) >= place for n in range(1, len(output) + 1)]
    if answer.strip():
        assert ended == reached


@pytest.mark.parametrize("one", FORMATS_TRIED, ids=lambda one: one.thinking_open)
def test_a_prompt_with_an_empty_thought_begins_with_the_answer(make: Any, one: ResponseFormat) -> None:
    tokenizer = Tokenizer(one)
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    prompt = tokenizer.ids(
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], enable_thinking=False), [3]
    )
    output = [*tokenizer.ids(f"{one.answer_open}18{one.answer_close}", [1]), 0]
    # An answer's tags still have to be taken out of a stream.
    assert make(tokenizer, **off).is_reasoning_end(prompt) == (not one.answer_open.strip())
    assert streamed(make(tokenizer, **off), tokenizer, prompt, output, 1) == ("", "18")
    assert make(tokenizer, **off).count_reasoning_tokens(output) == 0
    before = len(one.answer_open)
    engine = make(tokenizer, **off)
    assert not before or not engine.is_reasoning_end_streaming(prompt + output[: before - 1], output[:1])
    assert engine.is_reasoning_end_streaming(prompt + output[: max(1, before)], output[:1])


@pytest.mark.parametrize(
    ("text", "tokens", "answer"),
    [
        ("<think>|\n|a| b|\n|</think>|\n\n|18|" + END, 4, "18|" + END),
        ("<think>\n|a| b|\n</|think>\n\n|18", 4, "18"),
        ("<think>|\n|a| b", 3, ""),
        ("<think>|</think>|\n\n|18", 0, "18"),
        ("18", 0, ""),
    ],
)
@pytest.mark.parametrize("opened", ["", "<think>"])
def test_tokens_are_counted(make: Any, text: str, tokens: int, answer: str, opened: str) -> None:
    tokenizer = Tokenizer(FORMATS["think"], opened)
    pieces = text.removeprefix(opened).strip("|").split("|")
    if opened and not text.startswith(f"{opened}|"):
        return
    tokenizer.texts += pieces
    ids = [0 if piece == END else index for index, piece in enumerate(pieces, 1)]
    assert make(tokenizer).count_reasoning_tokens(ids) == tokens
    found = make(tokenizer).extract_content_ids(ids)
    assert [tokenizer.texts[one] for one in found] == ([] if not answer else answer.split("|"))


def test_a_budget_of_thinking_needs_tags_that_are_tokens(make: Any) -> None:
    for known in ((), ("<think>", "</think>")):
        parser = make(Tokenizer(FORMATS["think"], single_tokens=known))
        assert (parser.reasoning_start_str, parser.reasoning_end_str) == (known or (None, None))
