"""Fifty kill -9 in a row over preparing, training, saving, merging and evaluating: the same weights and scores each time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from demo.problems import NAMES, problems
from demo.tiny_model import make_model
from safetensors.torch import load_file
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import environment

pytestmark = [pytest.mark.kills, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("SFTKEY_KILLS", "50"))
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Few problems that a tiny model soon knows by heart, so that its score isn't zero, and recipes that save often."""
    root = tmp_path_factory.mktemp("kills")
    rows = problems(16, 0, NAMES)
    (root / "data").mkdir()
    (root / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [text for row in problems(300, 0, NAMES) for text in row.values()]
    make_model(root / "model", texts, layers=2, width=64)
    config = json.loads((root / "model" / "config.json").read_text())
    # Dropout, so that the state of the random generators has to be restored too.
    (root / "model" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.05}))
    shutil.copytree(repository / "tests" / "demo" / "tasks", root / "tasks")
    for path in (root / "tasks").glob("*.yaml"):
        path.write_text(path.read_text().replace("outputs/demo/data/test.jsonl", "data/rows.jsonl"))
    stage1: dict[str, Any] = {
        "base_model": "model",
        "output_dir": "out/stage1",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "default_system_message": "Think.",
        "datasets": [{"path": "data/rows.jsonl", "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 128,
        "micro_batch_size": 16,
        "max_steps": 80,
        "learning_rate": 0.004,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_torch",
        "bf16": False,
        "attn_implementation": "eager",
        "logging_steps": 16,
        "save_steps": 16,
        "save_total_limit": 2,
        "seed": 42,
    }
    adapter: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
    # Axolotl's kernels for them need a GPU.
    adapter |= dict.fromkeys(("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"), False)
    adapter |= {"max_steps": 20, "save_steps": 5, "learning_rate": 0.001}
    write_recipe(root / "stage1.yml", stage1)
    write_recipe(root / "stage2.yml", {**stage2_of(stage1), **adapter})
    return root


class Chain:
    """Runs of the chain, one after the other."""

    def __init__(self, workplace: Path) -> None:
        self.workplace, self.log = workplace, workplace / "log.txt"
        self.errors = (workplace / "warm.txt").open("w")
        self.process = subprocess.Popen(
            [sys.executable, SUPPORT / "warm_chain.py", self.log],
            cwd=workplace,
            env=environment(OMP_NUM_THREADS="1", HF_DATASETS_CACHE=str(workplace / "cache")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            bufsize=1,
        )

    def start(self) -> psutil.Process:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        return psutil.Process(int(self._read("started")))

    def ended(self) -> bool:
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def status(self) -> int:
        return int(self._read("ended"))

    def _read(self, word: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while line and not line.startswith(word):
            line = self.process.stdout.readline()
        assert line, (self.workplace / "warm.txt").read_text()[-4000:]
        return line.split()[1]

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def results(workplace: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, float]]:
    out = workplace / "out"
    files = {
        "stage1": out / "stage1" / "model.safetensors",
        "stage2": out / "stage2" / "adapter_model.safetensors",
        "merged": out / "stage2" / "merged" / "model.safetensors",
    }
    (noted,) = json.loads((out / "stage2" / "eval" / "sftkey_evaluation.json").read_text())["evaluations"]
    figures = json.loads((out / "stage2" / "eval" / noted["file"]).read_text())["results"]["sftkey_demo"]
    return {name: load_file(path) for name, path in files.items()}, {
        name: figures[f"{name},none"] for name in ("acc", "fmt", "score")
    }


PATTERNS = {
    "any": None,
    "preparing": "prepared/*/*/",
    "training": "out/*/checkpoint-*/sftkey_checkpoint.json",
    "saving": "out/*/checkpoint-*",
    "finishing": "out/*/*model.safetensors",
    "merging": "out/stage2/merged*",
    "evaluating": "out/stage2/merged/sftkey_stage.json",
}
DELAYS = {"any": 0.25, "evaluating": 0.25}
"""Up to which part of an undisturbed chain, 15 seconds at most; the others come 0.3 seconds after their file at most."""


def ahead(workplace: Path) -> list[str]:
    """What the next run can be killed at. A run that nobody kills in training goes on to merging and evaluating."""
    out = workplace / "out"
    late = ["evaluating", *([] if (out / "stage2" / "merged" / "sftkey_stage.json").exists() else ["merging"])]
    if (out / "stage2" / "sftkey_stage.json").exists():
        return late
    prepared = len(list(workplace.glob("prepared/*/")))
    first = not (out / "stage1" / "sftkey_stage.json").exists()
    early = ["any", "training", "saving", "finishing", *(["preparing"] if prepared < 2 - first else [])]
    return early if first else early + late


def moment(workplace: Path, name: str, generator: random.Random, seconds: float) -> Callable[[], bool]:
    """Whether it is time to kill: soon after a file has come that wasn't there before."""
    pattern = PATTERNS[name]
    if name == "evaluating" and list(workplace.glob(str(pattern))):
        pattern = None  # it begins with that
    before = set(workplace.glob(pattern)) if pattern else set()
    began, reached = time.monotonic(), [0.0]
    delay = generator.uniform(0, min(seconds * DELAYS[name], 15) if name in DELAYS else 0.3)

    def now() -> bool:
        if not reached[0] and (pattern is None or set(workplace.glob(pattern)) - before):
            reached[0] = time.monotonic() if pattern else began
        return bool(reached[0]) and time.monotonic() - reached[0] >= delay

    return now


def kill(run: psutil.Process, whole_tree: bool) -> None:
    tree = run.children(recursive=True)
    for process in [run, *(tree if whole_tree else [])]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(tree, timeout=120)
    assert not alive, [process.pid for process in alive]


def test_fifty_kills(workplace: Path) -> None:
    chain = Chain(workplace)
    began = time.monotonic()
    chain.start()
    assert chain.status() == 0, chain.tail()
    seconds = time.monotonic() - began
    weights, scores = results(workplace)
    assert scores["acc"] > 0, scores

    seed = int(os.environ.get("SFTKEY_KILL_SEED", random.randrange(10**6)))
    generator = random.Random(seed)
    kills: Counter[str] = Counter()
    rounds = 0

    def check() -> None:
        now, figures = results(workplace)
        for name, expected in weights.items():
            assert now[name].keys() == expected.keys()
            for key, value in expected.items():
                assert torch.equal(now[name][key], value), (seed, name, key)
        assert figures == scores, seed
        left = [path for path in workplace.glob("out/**/.*") if not path.name.endswith(".lock")]
        assert not [path for path in left if path.name.startswith(".removing")], left
        assert not list(workplace.glob("out/*/set-aside-*"))

    began, done = time.monotonic(), True
    while True:
        if done:
            for name in ("out", "prepared", "cache"):
                shutil.rmtree(workplace / name, ignore_errors=True)
            rounds += 1
        run = chain.start()
        name = generator.choice(ahead(workplace))
        last = sum(kills.values()) >= KILLS
        now = moment(workplace, name, generator, seconds)
        print(f"{time.monotonic() - began:5.0f} s: {sum(kills.values())} kills, {rounds} chains, {name}", flush=True)
        while not chain.ended() and (last or not now()):
            time.sleep(0.005)
        done = chain.ended()
        if not done:
            kill(run, whole_tree=generator.random() < 0.5)
            kills[name] += 1
        status = chain.status()
        if done:
            assert status == 0, (seed, chain.tail())
            check()
            if last:
                break
    total = time.monotonic() - began
    print(
        f"\nSFTKEY_KILL_SEED={seed}: {sum(kills.values())} kills ({dict(kills)}), {rounds} chains brought to their end, each "
        f"with the weights and {scores} of the undisturbed one ({seconds:.0f} s); {total:.0f} s"
    )
    assert chain.process.stdin is not None
    chain.process.stdin.close()
    chain.process.wait()
    chain.errors.close()
