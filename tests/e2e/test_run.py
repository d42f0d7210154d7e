"""``sftkey run``, killed at random moments with kill -9, ends with the weights of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from demo.problems import NAMES, problems, write_problems
from demo.tiny_model import make_model
from safetensors.torch import load_file
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, few problems, and recipes of two stages that save often: starting up is most of each run."""
    root = tmp_path_factory.mktemp("run")
    write_problems(root / "data", train=256, test=8)
    texts = [text for row in problems(200, 0, NAMES) for text in row.values()]
    make_model(root / "model", texts, layers=2, width=32)
    # Dropout, so that the state of the random generators has to be restored too.
    config = json.loads((root / "model" / "config.json").read_text())
    (root / "model" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    stage1 = {
        "base_model": "model",
        "output_dir": "out/stage1",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "sftkey_warmup_epochs": 0.25,
        "default_system_message": "Think.",
        "datasets": [{"path": "data/train.jsonl", "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 256,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_epochs": 2,
        "learning_rate": 0.002,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_torch",
        "bf16": False,
        "attn_implementation": "eager",
        "logging_steps": 8,
        "save_steps": 8,
        "save_total_limit": 2,
        "seed": 42,
    }
    write_recipe(root / "stage1.yml", stage1)
    write_recipe(root / "stage2.yml", {**stage2_of(stage1), "num_epochs": 1})
    return root


def start(workplace: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            ["axolotl", "sftkey", "run", "stage2.yml"],
            cwd=workplace,
            env=environment(OMP_NUM_THREADS="1"),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def outputs(workplace: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {name: load_file(workplace / "out" / name / "model.safetensors") for name in ("stage1", "stage2")}


def markers(workplace: Path) -> dict[str, Any]:
    return {
        path.parent.name: json.loads(path.read_text()) for path in sorted(workplace.glob("out/*/sftkey_stage.json"))
    }


def kill_and_wait(process: subprocess.Popen[bytes], whole_tree: bool) -> None:
    """Kill -9 of the command, or of everything that it has started; none of that may stay."""
    tree = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in tree if whole_tree else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    _, alive = psutil.wait_procs(tree, timeout=120)
    assert not alive, [child.cmdline() for child in alive]


Moment = Callable[[Path, random.Random, float], Iterator[None]]


def at_any_time(workplace: Path, generator: random.Random, seconds: float) -> Iterator[None]:
    """Anywhere in the first third of what an undisturbed run takes: mostly while starting up."""
    deadline = time.monotonic() + generator.uniform(0.02, 0.33) * seconds
    while time.monotonic() < deadline:
        yield


def while_preparing(workplace: Path, generator: random.Random, seconds: float) -> Iterator[None]:
    """While prepared data is being saved: its folder is there."""
    yield from until_new(workplace, "prepared/*/*/")
    time.sleep(generator.uniform(0, 0.02))


def after_a_checkpoint(workplace: Path, generator: random.Random, seconds: float) -> Iterator[None]:
    """Between two checkpoints, or while a later one is being saved."""
    yield from until_new(workplace, "out/*/checkpoint-*/trainer_state.json")
    time.sleep(generator.uniform(0, 1.5))


def while_saving(workplace: Path, generator: random.Random, seconds: float) -> Iterator[None]:
    """While a checkpoint is being saved: its folder is there."""
    yield from until_new(workplace, "out/*/checkpoint-*")
    time.sleep(generator.uniform(0, 0.1))


def before_the_marker(workplace: Path, generator: random.Random, seconds: float) -> Iterator[None]:
    """While the final weights are being saved, or just before the marker says that the stage is finished."""
    yield from until_new(workplace, "out/*/model.safetensors")
    time.sleep(generator.uniform(0, 0.3))


def until_new(workplace: Path, pattern: str) -> Iterator[None]:
    before = set(workplace.glob(pattern))
    while not set(workplace.glob(pattern)) - before:
        yield


MOMENTS: tuple[Moment, ...] = (at_any_time, while_preparing, after_a_checkpoint, while_saving, before_the_marker)


def wipe(workplace: Path) -> None:
    for name in ("out", "prepared"):
        shutil.rmtree(workplace / name, ignore_errors=True)


class Undisturbed:
    """What a run leaves behind that nobody kills, and what each killed one is held to."""

    def __init__(self, workplace: Path) -> None:
        began, log = time.monotonic(), workplace / "undisturbed.log"
        assert start(workplace, log).wait() == 0, log.read_text()[-4000:]
        self.seconds = time.monotonic() - began
        self.weights, self.markers = outputs(workplace), markers(workplace)
        self.workplace = workplace

    def check(self, finished: dict[str, Any], said: str) -> None:
        """The run has ended: same weights, same number of steps, each logged once, no finished stage trained again."""
        now = markers(self.workplace)
        assert now.keys() == self.markers.keys(), said
        for name, marker in finished.items():
            assert now[name] == marker, said
        actual = outputs(self.workplace)
        for name, weights in self.weights.items():
            assert weights.keys() == actual[name].keys()
            for key, value in weights.items():
                assert torch.equal(value, actual[name][key]), (said, name, key)
        for name, marker in now.items():
            assert marker["training"]["steps"] == self.markers[name]["training"]["steps"]
            assert marker["data"] == self.markers[name]["data"]
            history = json.loads((self.workplace / "out" / name / "trainer_state.json").read_text())["log_history"]
            steps = [entry["step"] for entry in history if "loss_answer" in entry]
            assert steps == sorted(set(steps)), said


def test_killed_at_random_moments(workplace: Path) -> None:
    undisturbed = Undisturbed(workplace)
    wipe(workplace)
    seed = int(os.environ.get("SFTKEY_KILL_SEED", random.randrange(10**6)))
    generator = random.Random(seed)
    log = workplace / "killed.log"
    finished: dict[str, Any] = {}
    kills: list[str] = []
    for moment in generator.sample(MOMENTS, len(MOMENTS)):
        said = f"SFTKEY_KILL_SEED={seed}: killed {kills}"
        process = start(workplace, log)
        for _ in moment(workplace, generator, undisturbed.seconds):
            if process.poll() is not None:
                break
            time.sleep(0.002)
        if process.poll() is not None:
            # The moment had passed already, or never came. The next one gets a run from the beginning.
            assert process.returncode == 0, (said, log.read_text()[-4000:])
            undisturbed.check(finished, said)
            kills.append("(ended)")
            finished.clear()
            wipe(workplace)
            continue
        kill_and_wait(process, whole_tree=generator.random() < 0.5)
        kills.append(moment.__name__)
        for name, marker in markers(workplace).items():
            assert finished.setdefault(name, marker) == marker, "a finished stage was trained again"
    said = f"SFTKEY_KILL_SEED={seed}: killed {kills}"
    print(said)
    assert len(kills) - kills.count("(ended)") >= 3, said
    assert start(workplace, log).wait() == 0, (said, log.read_text()[-4000:])
    undisturbed.check(finished, said)
    assert "going on from" in log.read_text(), said
