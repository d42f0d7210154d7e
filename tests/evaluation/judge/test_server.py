"""What servers refuse, what they send as a message, and how much of it is read."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path

import pytest
from sftkey.evaluation.judge.client import JudgeVerdict, judge
from sftkey.evaluation.judge.prompt import JudgeItem, PromptTemplate
from sftkey.evaluation.judge.settings import JudgeSettings
from support.loopback_judge import LoopbackServer, Request, chat_message


def items(count: int) -> list[JudgeItem]:
    return [JudgeItem(f"question {n}", "18", "18") for n in range(count)]


@pytest.fixture
def settings(tmp_path: Path):
    def make(server: LoopbackServer, **changes: object) -> JudgeSettings:
        return JudgeSettings(server.base_url, "m", cache_dir=tmp_path / "cache", timeout=20, **changes)

    return make


def refusing(**messages: str):
    """A server that refuses parameters, each with its message."""

    def respond(request: Request) -> tuple[int, bytes, dict[str, str]] | None:
        for name, message in messages.items():
            if name in request.body:
                return 400, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode(), {}
        return None

    return respond


HOSTED = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. "
    "Only the default (1) value is supported.",
}


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ({}, {"max_tokens": 64, "temperature": 0}),
        ({"max_tokens": HOSTED["max_tokens"]}, {"max_completion_tokens": 64, "temperature": 0}),
        ({"temperature": HOSTED["temperature"]}, {"max_tokens": 64}),
        (HOSTED, {"max_completion_tokens": 64}),
        ({"max_tokens": "unknown field `max_tokens`", "max_completion_tokens": "unknown field `max_completion_tokens`"},
         {"temperature": 0}),
        ({"temperature": "`temperature` must be strictly positive"}, {"max_tokens": 64}),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_not_sent_again(settings, refused: dict[str, str], left: dict[str, object]) -> None:
    with LoopbackServer(lambda prompt: "yes", respond=refusing(**refused)) as server:
        assert judge(items(1), settings(server)) == [JudgeVerdict(True, "judge", "yes")]
        assert len(server.requests) == 1 + len(refused)
        judge([JudgeItem("another", "1", "2")], settings(server, concurrency=4))
        assert len(server.requests) == 2 + len(refused), "remembered"
    sent = {name: value for name, value in server.requests[-1].body.items() if name not in ("model", "messages")}
    assert sent == left


def test_many_at_a_time_are_refused_and_all_answered(settings) -> None:
    with LoopbackServer(lambda prompt: "yes", delay=0.02, respond=refusing(**HOSTED)) as server:
        verdicts = judge(items(40), settings(server, concurrency=8))
        assert {verdict.same for verdict in verdicts} == {True}
        assert len(server.requests) <= 40 + 8 * len(HOSTED)


def test_a_prompt_that_is_too_long_is_no_refusal(settings) -> None:
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length is 64 tokens."
    )
    with LoopbackServer(lambda prompt: "yes", respond=refusing(max_tokens=message)) as server:
        (verdict,) = judge(items(1), settings(server))
        assert len(server.requests) == 1
    assert verdict.detail.startswith("status 400: ")


def test_the_settings_are_sent_and_part_of_the_cache_key(settings, tmp_path: Path) -> None:
    own = PromptTemplate("Same? {question} {answer1} {answer2}")
    changes = [
        {}, {"max_tokens": 4_096}, {"temperature": None}, {"temperature": 0.6}, {"extra_body": {"top_k": 1}},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, {"prompt": own},
    ]  # fmt: skip
    with LoopbackServer(lambda prompt: "yes") as server:
        for change in changes:
            for source in ("judge", "cache"):
                assert [verdict.source for verdict in judge(items(1), settings(server, **change))] == [source]
    bodies = [{k: v for k, v in r.body.items() if k not in ("model", "messages")} for r in server.requests]
    assert bodies == [
        {"temperature": 0, "max_tokens": 64}, {"temperature": 0, "max_tokens": 4_096}, {"max_tokens": 64},
        {"temperature": 0.6, "max_tokens": 64}, {"temperature": 0, "max_tokens": 64, "top_k": 1},
        {"temperature": 0, "max_tokens": 64, "chat_template_kwargs": {"enable_thinking": False}},
        {"temperature": 0, "max_tokens": 64},
    ]  # fmt: skip
    assert server.requests[-1].prompt == "Same? question 0 18 18"


# Messages


@pytest.mark.parametrize(
    ("finish", "message", "same"),
    [
        ("stop", {"content": "yes", "reasoning_content": "no, or no"}, True),
        ("stop", {"content": "No", "reasoning": "yes"}, False),
        ("stop", {"content": None, "reasoning_content": "They agree.</think>yes"}, True),
        ("stop", {"content": "", "reasoning": "Answer: no"}, False),
        ("length", {"content": None, "reasoning_content": "Yes, so far"}, None),
        ("stop", {"content": None, "reasoning_content": "I think they are the same"}, None),
        ("stop", {"content": [{"type": "thinking", "thinking": "no"}, {"type": "text", "text": "yes"}]}, True),
        ("stop", {"content": [{"type": "image", "text": "yes"}, 7]}, None),
        ("length", {"content": "<think>yes, because"}, None),
        ("stop", {"content": {"text": "yes"}}, None),
    ],
)
def test_the_message_of_a_reasoning_judge(settings, finish: str, message: dict[str, object], same: bool | None) -> None:
    with LoopbackServer(lambda prompt: "", respond=lambda request: chat_message(finish, **message)) as server:
        (verdict,) = judge(items(1), settings(server))
    assert verdict.same is same
    if finish == "length" and message["content"] is None:
        assert "SFTKEY_JUDGE_MAX_TOKENS" in verdict.detail


# Bounds

BOMB = b'{"choices": [{"message": {"content": "' + b" " * 200_000_000 + b'"}}]}'


@pytest.mark.parametrize("status", [200, 500, 400])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "br"])
def test_a_reply_is_read_only_as_far_as_the_bound(settings, status: int, encoding: str) -> None:
    body = {"gzip": _GZIPPED, "deflate": _DEFLATED, "identity": BOMB[:10_000_000], "br": b"x" * 100}[encoding]
    headers = {"Content-Encoding": encoding}
    with LoopbackServer(lambda prompt: "", respond=lambda request: (status, body, headers)) as server:
        tracemalloc.start()
        verdicts = judge(items(8), settings(server, concurrency=8, max_retries=0), progress=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert {verdict.source for verdict in verdicts} == {"unresolved"}
    assert {verdict.detail.partition(":")[0] for verdict in verdicts} == {"reply too large"}
    assert len(server.requests) == 8, "not asked again"
    assert peak < 40_000_000  # eight bombs would be 1.6 GB


_GZIPPED = gzip.compress(BOMB, 1)
_DEFLATED = zlib.compress(BOMB, 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_reply_is_read(settings, encoding: str) -> None:
    _, body, _ = chat_message(content="yes")
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers = {"Content-Encoding": encoding}
    with LoopbackServer(lambda prompt: "", respond=lambda request: (200, packed, headers)) as server:
        assert judge(items(1), settings(server)) == [JudgeVerdict(True, "judge", "yes")]
        assert server.requests[0].headers["accept-encoding"] == "gzip, deflate"


def test_a_long_reply_within_the_token_limit_is_read(settings) -> None:
    thinking = "<think>" + "ja \u00fc " * 20_000 + "</think>yes"
    with LoopbackServer(lambda prompt: thinking) as server:
        (short,) = judge(items(1), settings(server))
        (long,) = judge(items(1), settings(server, max_tokens=16_384))
    assert (short.same, long.same) == (None, True)
