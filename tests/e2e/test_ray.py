"""Two Ray workers on the CPU train a chain, interrupted once; the stages are those of any other launcher.

Axolotl asks Ray for GPUs whatever the recipe says (`use_gpu=True`, and with that for NCCL). That one argument is another
here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from demo.problems import NAMES, problems, write_problems
from demo.tiny_model import make_model
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import SFTKEY, environment, succeeded

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

AXOLOTL = """#!{python}
import ray.train
asked = ray.train.ScalingConfig
ray.train.ScalingConfig = lambda use_gpu, resources_per_worker, **more: asked(
    use_gpu=False, resources_per_worker={{"CPU": 1}}, **more)
from axolotl.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ray")
    write_problems(root / "data", train=64, test=8)
    make_model(root / "model", [text for row in problems(200, 0, NAMES) for text in row.values()], layers=2, width=32)
    stage1: dict[str, Any] = {
        "base_model": "model",
        "output_dir": "out/stage1",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "default_system_message": "Think.",
        "datasets": [{"path": "data/train.jsonl", "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 128,
        "micro_batch_size": 4,
        "max_steps": 12,
        "learning_rate": 0.002,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "save_steps": 3,
        "seed": 42,
        "use_ray": True,
        "ray_num_workers": 2,
        "resources_per_worker": {"GPU": 1},
    }
    write_recipe(root / "stage1.yml", stage1)
    write_recipe(root / "stage2.yml", {**stage2_of(stage1), "max_steps": 6})
    (root / "bin").mkdir()
    (root / "bin" / "axolotl").write_text(AXOLOTL.format(python=sys.executable))
    (root / "bin" / "axolotl").chmod(0o755)
    return root


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A Ray cluster of this machine alone, started in a folder of its own; what a command needs to find it."""
    pytest.importorskip("ray", reason="needs the package ray (make test-ray)")
    elsewhere = tempfile.mkdtemp(prefix="ray")  # a short path: those of its sockets are longer and have a limit
    start = f"ray start --head --block --num-cpus 2 --port 6399 --include-dashboard false --temp-dir {elsewhere}"
    quiet = {"RAY_DISABLE_DOCKER_CPU_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    scripts = [sys.executable, "-m", "ray.scripts.scripts", *start.split()[1:]]
    head = subprocess.Popen(scripts, cwd=elsewhere, env=environment(**quiet), stdout=subprocess.DEVNULL)
    time.sleep(15)
    assert head.poll() is None
    yield {**quiet, "RAY_ADDRESS": "127.0.0.1:6399"}
    tree = psutil.Process(head.pid).children(recursive=True)
    head.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([*tree, psutil.Process(head.pid)], timeout=30)
    for process in alive:
        process.kill()
    shutil.rmtree(elsewhere, ignore_errors=True)


def command(workplace: Path, cluster: dict[str, str]) -> subprocess.Popen[str]:
    own = environment(**cluster)
    return subprocess.Popen(
        [*SFTKEY, "run", "stage2.yml"],
        cwd=workplace,
        env={**own, "PATH": f"{workplace / 'bin'}{os.pathsep}{own['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_workers(workplace: Path, cluster: dict[str, str]) -> None:
    first = command(workplace, cluster)
    deadline = time.monotonic() + 600
    while not (workplace / "out" / "stage1" / "checkpoint-6").exists():  # so that checkpoint-3 is whole
        assert first.poll() is None, first.communicate()[0][-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.kill()
    first.communicate()

    second = command(workplace, cluster)
    said, _ = second.communicate(timeout=900)
    succeeded(subprocess.CompletedProcess(second.args, second.returncode, said, ""))
    for name, steps in (("stage1", 12), ("stage2", 6)):
        folder = workplace / "out" / name
        marker = json.loads((folder / "sftkey_stage.json").read_text())
        assert marker["training"]["world_size"] == 2
        assert marker["training"]["steps"] == steps
        # What the recipe says, not what Axolotl and the plugin made of it on the way to the workers.
        assert marker["recipe"]["config"]["output_dir"] == f"out/{name}"
        assert "chat_template_jinja" not in marker["recipe"]["config"]
        assert "sftkey_command" not in marker["settings"]
        names = {path.name for path in folder.glob(f"checkpoint-{steps}/rng_state*")}
        assert names == {"rng_state_0.pth", "rng_state_1.pth"}
        log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        assert [entry["step"] for entry in log if "loss_answer" in entry] == list(range(1, steps + 1))
    assert "goes on from out/stage1/checkpoint-" in said
    # The same settings as a recipe that is looked at: the stages are finished, not "with other settings".
    again = command(workplace, cluster)
    assert "finished" in again.communicate(timeout=300)[0]
    assert again.returncode == 0
