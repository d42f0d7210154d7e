"""The judge, over real HTTP against a loopback server."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sftkey.evaluation.judge.client import JudgeVerdict, judge
from sftkey.evaluation.judge.prompt import (
    JudgeItem,
    judge_prompt,
)
from sftkey.evaluation.judge.settings import JudgeSettings
from support.loopback_judge import TRANSIENT, UNREADABLE, Fault, LoopbackServer, random_faults, read_judge_prompt

KEY = "sk-SECRET-9f8e7d6c5b4a"


def equality_judge(prompt: str) -> str:
    """Says yes where the two responses are the same text."""
    _, reference, prediction = read_judge_prompt(prompt)
    return "Yes." if reference == prediction else "no"


def items(count: int) -> list[JudgeItem]:
    """Distinct comparisons, of which those with an odd number are the same."""
    return [JudgeItem(f"question {n}", f"{n}", f"{n}" if n % 2 else f"{n} apples") for n in range(count)]


@pytest.fixture
def settings(tmp_path: Path):
    def make(server: LoopbackServer, **changes: object) -> JudgeSettings:
        values = {"model": "judge-model", "api_key": KEY, "cache_dir": tmp_path / "cache", "timeout": 20, **changes}
        return JudgeSettings(base_url=server.base_url, **values)

    return make


# Asking


@pytest.mark.parametrize("progress", [True, False])
def test_verdicts_come_in_the_order_of_the_items(settings, progress: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with LoopbackServer(equality_judge) as server:
        verdicts = judge(items(50), settings(server), progress=progress)
        assert judge([], settings(server)) == []
    expected = [JudgeVerdict(n % 2 == 1, "judge", "Yes." if n % 2 else "no") for n in range(50)]
    assert verdicts == expected
    captured = capfd.readouterr()
    assert captured.out == ""
    assert ("judge: 100%" in captured.err) == progress


def test_what_is_sent(settings) -> None:
    item = JudgeItem("How many?", "{18}", "18 {question}")
    with LoopbackServer(equality_judge) as server:
        judge([item], settings(server))
    (request,) = server.requests
    assert request.body["messages"] == [{"role": "user", "content": judge_prompt(item)}]
    assert request.body["temperature"] == 0
    assert request.body["model"] == "judge-model"
    assert request.authorization == f"Bearer {KEY}"


def test_what_is_meant_for_another_server_is_not_sent(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-for-openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with LoopbackServer(equality_judge) as server:
        (verdict,) = judge(items(1), settings(server, api_key=None))
    assert verdict.source == "judge"
    assert server.requests[0].authorization == "Bearer EMPTY"
    assert "for-openai" not in repr(server.requests[0])
    assert not any("openai-organization" in name for name in server.requests[0].headers)


@pytest.mark.parametrize(("concurrency", "lowest", "highest"), [(1, 1, 1), (8, 2, 8)])
def test_concurrency_is_used_and_bounded(settings, concurrency: int, lowest: int, highest: int) -> None:
    with LoopbackServer(equality_judge, delay=0.02) as server:
        judge(items(40), settings(server, concurrency=concurrency))
        assert lowest <= server.peak_concurrency <= highest
        assert len(server.requests) == 40


def test_the_same_comparison_is_asked_once(settings) -> None:
    with LoopbackServer(equality_judge) as server:
        verdicts = judge(items(3) * 10, settings(server))
        assert Counter(server.prompts()) == Counter(judge_prompt(item) for item in items(3))
    assert [verdict.same for verdict in verdicts] == [False, True, False] * 10


def test_it_works_inside_a_running_loop_and_in_a_thread(settings) -> None:
    with LoopbackServer(equality_judge) as server:

        async def inside() -> list[JudgeVerdict]:
            return judge(items(5), settings(server))

        verdicts = asyncio.run(inside())
        found: list[list[JudgeVerdict]] = []
        thread = threading.Thread(target=lambda: found.append(judge(items(6), settings(server))))
        thread.start()
        thread.join(60)
    assert [verdict.same for verdict in verdicts] == [False, True, False, True, False]
    assert [verdict.source for verdict in found[0]] == ["cache"] * 5 + ["judge"]


# Faults


@pytest.mark.parametrize("fault", [*TRANSIENT, *UNREADABLE])
def test_one_fault_costs_no_verdict(settings, fault: Fault) -> None:
    with LoopbackServer(equality_judge, faults=lambda prompt, attempt: fault if attempt == 0 else None) as server:
        verdicts = judge(items(2), settings(server, timeout=3))
        assert verdicts == [JudgeVerdict(False, "judge", "no"), JudgeVerdict(True, "judge", "Yes.")]
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("fault", "asked", "reason"),
    [
        (Fault.SERVER_ERROR, 2, "status 500"),
        (Fault.RATE_LIMITED, 2, "status 429"),
        (Fault.UNAUTHORIZED, 1, "status 401"),
        (Fault.HANG, 2, "timeout"),
        (Fault.CLOSE, 2, "no connection"),
        (Fault.RESET, 2, "no connection"),
        *((fault, 2, "neither yes nor no") for fault in UNREADABLE),
    ],
)
def test_a_lasting_fault_is_unresolved_and_never_no(settings, caplog, fault: Fault, asked: int, reason: str) -> None:
    faulty = [True]
    with LoopbackServer(equality_judge, faults=lambda prompt, attempt: fault if faulty[0] else None) as server:
        (verdict,) = judge(items(1), settings(server, max_retries=1, timeout=1.5))
        assert len(server.requests) == asked
        faulty[0] = False
        (healed,) = judge(items(1), settings(server, max_retries=1))
    assert (verdict.same, verdict.source) == (None, "unresolved")
    assert verdict.detail.startswith(f"{reason}: ")
    assert "1 of 1 items are unresolved" in caplog.text
    assert f"1 x {reason}" in caplog.text
    assert healed == JudgeVerdict(False, "judge", "no"), "an unresolved item must not be cached"


def test_retry_after_is_waited_for(settings) -> None:
    asked: list[float] = []

    def limited_once(prompt: str, attempt: int) -> Fault | None:
        asked.append(time.monotonic())
        return Fault.RATE_LIMITED if attempt == 0 else None

    # The client's own first pause is at most half a second.
    with LoopbackServer(equality_judge, faults=limited_once, retry_after=2.0) as server:
        (verdict,) = judge(items(1), settings(server))
    assert verdict.source == "judge"
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 2.0


def test_an_unreachable_server_is_unresolved(settings) -> None:
    with LoopbackServer(equality_judge) as server:
        pass
    (verdict,) = judge(items(1), settings(server, max_retries=1))
    assert verdict.source == "unresolved"
    assert verdict.detail.startswith("no connection: ")


def test_an_unknown_model_is_unresolved_and_says_so(settings) -> None:
    with LoopbackServer(equality_judge, model="another") as server:
        (verdict,) = judge(items(1), settings(server))
    assert verdict.source == "unresolved"
    assert verdict.detail.startswith("status 404: ")
    assert "judge-model" in verdict.detail


def test_a_reply_that_trickles_for_ever_is_cut_off(settings) -> None:
    with LoopbackServer(equality_judge, faults=lambda prompt, attempt: Fault.DRIP) as server:
        (verdict,) = judge(items(1), settings(server, max_retries=0, timeout=1))
    assert verdict.source == "unresolved"
    assert verdict.detail.startswith("timeout: ")


def test_the_second_ask_may_fail_too(settings) -> None:
    faults = {0: Fault.RAMBLE, 1: Fault.UNAUTHORIZED}
    with LoopbackServer(equality_judge, faults=lambda prompt, attempt: faults[attempt]) as server:
        (verdict,) = judge(items(1), settings(server))
        assert len(server.requests) == 2
    assert verdict.detail.startswith("status 401: ")


def test_an_answer_that_is_too_long_is_unresolved_without_asking(settings) -> None:
    long = JudgeItem("q", "1", "9" * 10**6)
    with LoopbackServer(equality_judge) as server:
        verdicts = judge([*items(1), long, *items(1), long], settings(server))
        assert len(server.requests) == 1
    assert [verdict.source for verdict in verdicts] == ["judge", "unresolved", "judge", "unresolved"]
    assert verdicts[1].detail == "too long: the prediction has 1,000,000 characters, more than 4,000"


def test_a_dead_server_is_given_up(settings) -> None:
    with LoopbackServer(equality_judge, faults=lambda prompt, attempt: Fault.UNAUTHORIZED) as server:
        verdicts = judge(items(300), settings(server, concurrency=4))
        assert 64 <= len(server.requests) < 64 + 4
    reasons = Counter(verdict.detail.partition(": ")[0] for verdict in verdicts)
    assert reasons == {"status 401": len(server.requests), "not asked": 300 - len(server.requests)}
    assert {verdict.source for verdict in verdicts} == {"unresolved"}


def expected_outcome(fault_of, prompt: str, max_retries: int) -> tuple[str, int]:
    """What becomes of an item and after how many requests, by walking through the attempts by hand."""
    attempt = 0
    for _ in range(2):
        for retry in range(max_retries + 1):
            fault = fault_of(prompt, attempt)
            attempt += 1
            if fault in TRANSIENT:
                if retry == max_retries:
                    return "unresolved", attempt
                continue
            if fault is None:
                return equality_judge(prompt), attempt
            break  # unreadable: asked once more
    return "unresolved", attempt


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_mix_of_faults_leaves_every_item_accounted_for(settings, seed: int) -> None:
    faults = random_faults(seed, 0.5, (*TRANSIENT, *UNREADABLE))
    asked = items(120)
    with LoopbackServer(equality_judge, faults=faults) as server:
        verdicts = judge(asked, settings(server, max_retries=1, timeout=4))
    expected = {judge_prompt(item): expected_outcome(faults, judge_prompt(item), 1) for item in asked}
    outcomes = {"Yes.": (True, "judge"), "no": (False, "judge"), "unresolved": (None, "unresolved")}
    for item, verdict in zip(asked, verdicts, strict=True):
        assert (verdict.same, verdict.source) == outcomes[expected[judge_prompt(item)][0]], verdict.detail
    assert Counter(server.prompts()) == {prompt: requests for prompt, (_, requests) in expected.items()}
    assert len({outcome for outcome, _ in expected.values()}) == 3


def test_no_detail_holds_what_no_file_can_hold(settings, caplog) -> None:
    caplog.set_level(logging.INFO)
    with LoopbackServer(lambda prompt: "Yes \ud83d" if "question 0" in prompt else "\ud83d") as server:
        verdicts = judge(items(2), settings(server))
        (again,) = judge(items(1), settings(server))
    assert verdicts[0] == JudgeVerdict(True, "judge", "Yes ?")
    assert again == JudgeVerdict(True, "cache", "Yes ?")
    assert verdicts[1].source == "unresolved"
    assert "".join(verdict.detail for verdict in verdicts).encode()
    assert caplog.text.encode()


# The cache


def test_nothing_is_asked_twice(settings) -> None:
    with LoopbackServer(equality_judge) as server:
        first = judge(items(20), settings(server))
        again = judge(items(30), settings(server))
        assert len(server.requests) == 30
    assert [verdict.source for verdict in again] == ["cache"] * 20 + ["judge"] * 10
    assert [(verdict.same, verdict.detail) for verdict in again[:20]] == [(v.same, v.detail) for v in first]


def test_another_model_is_another_judge_and_another_address_is_not(settings) -> None:
    with LoopbackServer(equality_judge) as server, LoopbackServer(equality_judge) as same_model_elsewhere:
        judge(items(2), settings(server))
        assert [v.source for v in judge(items(2), settings(server, model="other"))] == ["judge", "judge"]
        assert [v.source for v in judge(items(2), settings(same_model_elsewhere))] == ["cache", "cache"]


def test_a_broken_cache_costs_no_verdict(settings, tmp_path: Path, caplog) -> None:
    (tmp_path / "cache").write_text("no folder")
    with LoopbackServer(equality_judge) as server:
        verdicts = judge(items(3), settings(server))
    assert [verdict.same for verdict in verdicts] == [False, True, False]
    assert "SFTKEY_JUDGE_CACHE" in caplog.text


_JUDGE_ITEMS = """
import sys
from pathlib import Path
from sftkey.evaluation.judge.client import judge
from sftkey.evaluation.judge.prompt import JudgeItem
from sftkey.evaluation.judge.settings import JudgeSettings
settings = JudgeSettings(sys.argv[1], "judge-model", cache_dir=Path(sys.argv[2]), concurrency=4)
items = [JudgeItem(f"question {n}", f"{n}", f"{n}" if n % 2 else f"{n} apples") for n in range(int(sys.argv[3]))]
IN_LOOP = len(sys.argv) > 4
if IN_LOOP:
    import asyncio
    async def main():
        return judge(items, settings)
    verdicts = asyncio.run(main())
else:
    verdicts = judge(items, settings)
print("".join({True: "y", False: "n", None: "?"}[v.same] for v in verdicts))
"""


def start_judge(server: LoopbackServer, cache: Path, count: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _JUDGE_ITEMS, server.base_url, str(cache), str(count), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("how", "more"), [(signal.SIGINT, []), (signal.SIGINT, ["in a running loop"]), (signal.SIGKILL, [])]
)
def test_an_interrupted_run_loses_no_verdict(settings, tmp_path: Path, how: signal.Signals, more: list[str]) -> None:
    with LoopbackServer(equality_judge, delay=0.05) as server:
        process = start_judge(server, tmp_path / "cache", 200, *more)
        while len(server.requests) < 40:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(how)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert output == ""
        before = len(server.requests)
        assert before < 100
        verdicts = judge(items(200), settings(server))
        # Only the (at most 4) requests that were under way when it ended may be asked again.
        assert 200 <= len(server.requests) <= 204
    assert Counter(verdict.source for verdict in verdicts)["cache"] >= before - 4
    assert [verdict.same for verdict in verdicts] == [n % 2 == 1 for n in range(200)]


@pytest.mark.parametrize("more", [[], ["in a running loop"]])
def test_ctrl_c_does_not_wait_for_a_judge_that_hangs(tmp_path: Path, more: list[str]) -> None:
    with LoopbackServer(equality_judge, faults=lambda prompt, attempt: Fault.HANG, hang=300) as server:
        process = start_judge(server, tmp_path / "cache", 8, *more)
        while len(server.requests) < 4:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)  # an attempt may take 60
        assert (process.returncode != 0, output) == (True, "")
        assert len(server.requests) == 4


def test_two_processes_share_a_cache_at_the_same_time(settings, tmp_path: Path) -> None:
    with LoopbackServer(equality_judge, delay=0.01) as server:
        processes = [start_judge(server, tmp_path / "cache", 100) for _ in range(2)]
        outputs = [process.communicate(timeout=120) for process in processes]
        assert [output for output, _ in outputs] == ["ny" * 50 + "\n"] * 2, outputs
        asked = len(server.requests)
        assert {verdict.source for verdict in judge(items(100), settings(server))} == {"cache"}
        assert len(server.requests) == asked


# The key


def test_the_api_key_appears_nowhere(settings, tmp_path: Path, caplog, capfd, monkeypatch) -> None:
    """Through every fault, with a server that echoes the key in headers, errors and replies, at log level DEBUG."""
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "asyncio", "diskcache"):
        caplog.set_level(logging.DEBUG, logger=name)
    asked = items(len(Fault) * 2)
    faults = dict(zip([judge_prompt(item) for item in asked], [*Fault, *Fault], strict=True))

    def echo(prompt: str) -> str:
        return f"yes: {KEY}, 'Bearer {KEY}'"

    def fault_of(prompt: str, attempt: int) -> Fault | None:
        # The first half of the items fails lastingly, the second half once.
        return faults[prompt] if attempt == 0 or prompt in list(faults)[: len(Fault)] else None

    with LoopbackServer(echo, faults=fault_of, hang=2) as server:
        used = settings(server, max_retries=1, timeout=1, concurrency=8)
        verdicts = judge(asked, used)
        assert all(request.authorization == f"Bearer {KEY}" for request in server.requests)
    assert Counter(verdict.source for verdict in verdicts)["judge"] >= 10
    assert any("[API key]" in verdict.detail for verdict in verdicts if verdict.source == "judge")
    assert any("[API key]" in verdict.detail for verdict in verdicts if verdict.source == "unresolved")
    captured = capfd.readouterr()
    places = {
        "repr": repr(used) + repr(copy.copy(used)) + str(used),
        "verdicts": repr(verdicts),
        "pickled verdicts": pickle.dumps(verdicts).decode("latin-1"),
        "log": caplog.text + repr([record.__dict__ for record in caplog.records]),
        "output": captured.out + captured.err,
        **{path.name: path.read_bytes().decode("latin-1") for path in (tmp_path / "cache").rglob("*")},
    }
    assert "cache.db" in places
    for place, text in places.items():
        assert "SECRET" not in text, place


def test_a_key_cut_in_two_by_shortening_is_no_leak(settings) -> None:
    with LoopbackServer(lambda prompt: "maybe " + f"{KEY} " * 500) as server:
        (verdict,) = judge(items(1), settings(server))
    assert verdict.source == "unresolved"
    assert "SECRET" not in verdict.detail
    assert "sk-" not in verdict.detail
