"""Two machines train a chain together: one shared folder that each sees elsewhere, everything else its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from demo.problems import NAMES, problems
from demo.tiny_model import make_model
from safetensors.torch import load_file
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import SFTKEY
from support.machines import Machine, Network, network

pytestmark = [pytest.mark.machines, pytest.mark.timeout(3600)]

EVALUATION = ("--eval", "--eval-tasks", "sftkey_demo", "--eval-include-path", "tasks", "--eval-limit", "8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """What each machine has on its own disk: model, data, task and recipes."""
    root = tmp_path_factory.mktemp("machines") / "files"
    (root / "data").mkdir(parents=True)
    rows = problems(64, 0, NAMES)
    (root / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_model(root / "model", [text for row in problems(300, 0, NAMES) for text in row.values()], layers=2, width=32)
    config = json.loads((root / "model" / "config.json").read_text())
    # Dropout, so that the state of each machine's random generators has to be restored too.
    (root / "model" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
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
        "micro_batch_size": 4,
        "max_steps": 40,
        "learning_rate": 0.002,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_torch",
        "bf16": False,
        "attn_implementation": "eager",
        "logging_steps": 1,
        "save_steps": 5,
        "save_total_limit": 2,
        "seed": 42,
    }
    write_recipe(root / "stage1.yml", stage1)
    write_recipe(root / "stage2.yml", {**stage2_of(stage1), "max_steps": 20})
    return root


class Hall:
    """Two machines, each with copies of the files on a disk of its own, and a folder that both see, each elsewhere."""

    def __init__(self, files: Path, net: Network) -> None:
        self.files, self.net, self.place = files, net, files.parent
        self.shared = self.place / "shared"
        self.machines: dict[int, Machine] = {}
        self.runs: dict[int, subprocess.Popen[bytes]] = {}
        for number in (1, 2):
            self.switch_on(number)

    def switch_on(self, number: int) -> None:
        """Switch on a machine; on the first the shared folder is a symbolic link, on the second a mount."""
        self.machines[number] = machine = self.net.machine(number)
        if number == 2:
            machine.run(f"mount --bind {self.shared} {machine.folder / 'out'}")

    def start(self, number: int, *options: str) -> None:
        """Give the command on a machine."""
        rendezvous = ("--rdzv_id", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", "machine1:29500")
        launcher = ("--launcher", "torchrun", "--", "--nnodes", "2", "--nproc_per_node", "1", *rendezvous)
        machine = self.machines[number]
        command = (*SFTKEY, "run", "stage2.yml", *EVALUATION, *options, *launcher)
        self.runs[number] = machine.start(*command, log=self.log(number))

    def ended(self) -> list[int]:
        """The statuses of both commands."""
        return [self.runs[number].wait(timeout=1200) for number in (1, 2)]

    def log(self, number: int) -> Path:
        return self.machines[number].folder / "log.txt"

    def said(self, number: int) -> str:
        return self.log(number).read_text(errors="replace")

    def tails(self) -> str:
        return "\n\n".join(self.said(number)[-5000:] for number in (1, 2))

    def wait_for(self, pattern: str) -> None:
        """Wait for a file in the shared folder."""
        deadline = time.monotonic() + 1200
        while not list(self.shared.glob(pattern)):
            assert time.monotonic() < deadline, self.tails()
            time.sleep(0.05)

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        return {name: load_file(self.shared / name / "model.safetensors") for name in ("stage1", "stage2")}


@pytest.fixture
def hall(files: Path) -> Iterator[Hall]:
    place = files.parent
    for name in ("machine1", "machine2", "shared"):
        shutil.rmtree(place / name, ignore_errors=True)
    (place / "shared").mkdir()
    for name in ("machine1", "machine2"):
        shutil.copytree(files, place / name)
    (place / "machine1" / "out").symlink_to(place / "shared")
    (place / "machine2" / "out").mkdir()
    with network(place) as net:
        yield Hall(files, net)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a chain that nobody disturbs, once that has been run."""
    return {}


def test_a_chain(hall: Hall, undisturbed: dict[str, dict[str, torch.Tensor]]) -> None:
    began = time.monotonic()
    hall.start(1)
    hall.start(2)
    assert hall.ended() == [0, 0], hall.tails()
    print(f"\n{time.monotonic() - began:.0f} s")
    undisturbed |= hall.weights()
    check_finished(hall)
    # Each stage's figures are on the machine that evaluated it.
    tables = [line.split() for number in (1, 2) for line in hall.said(number).splitlines() if line.startswith("out/")]
    assert {line[0] for line in tables if "sftkey_demo" in line} == {"out/stage1", "out/stage2"}


def test_one_is_killed_and_one_loses_its_power(hall: Hall, undisturbed: dict[str, dict[str, torch.Tensor]]) -> None:
    """The other one ends too, at once or when it is asked to; the same command on both goes on."""
    hall.start(1)
    hall.start(2)
    hall.wait_for("stage1/checkpoint-10")
    hall.machines[2].kill("sftkey()")
    assert hall.ended()[0] == 1, hall.tails()
    assert "go on with\n  sftkey run stage2.yml" in hall.said(1)
    hall.start(2)
    hall.start(1)
    # The first process is on either machine by now.
    hall.wait_for("stage2/checkpoint-10")
    hall.machines[2].switch_off()
    began = time.monotonic()
    hall.machines[1].interrupt("sftkey()")
    assert hall.ended()[0] == 130, hall.tails()
    print(f"\nended {time.monotonic() - began:.0f} s after Ctrl-C")
    hall.switch_on(2)
    hall.start(1)
    hall.start(2)
    assert hall.ended() == [0, 0], hall.tails()
    check_finished(hall)
    assert "going on from out/stage1/checkpoint-" in hall.said(1) + hall.said(2)
    assert "going on from out/stage2/checkpoint-" in hall.said(1) + hall.said(2)
    for name, weights in undisturbed.items():
        for key, value in hall.weights()[name].items():
            assert torch.equal(value, weights[key]), (name, key)


def check_finished(hall: Hall) -> None:
    for name, steps in (("stage1", 40), ("stage2", 20)):
        folder = hall.shared / name
        marker = json.loads((folder / "sftkey_stage.json").read_text())
        assert marker["training"]["world_size"] == 2
        assert marker["training"]["steps"] == steps
        assert {path.name for path in folder.glob(f"checkpoint-{steps}/rng_state*")} == {
            "rng_state_0.pth",
            "rng_state_1.pth",
        }
        assert len(list(folder.glob("checkpoint-*"))) == 2
        assert len(list(folder.rglob("results_*.json"))) == 1
        assert not [path for path in folder.glob(".*") if not path.name.endswith(".lock")]
        log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        assert [entry["step"] for entry in log if "loss_answer" in entry] == list(range(1, steps + 1))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("umount out", (), "output_dir: machine2 doesn't see in out/stage1 what the first machine wrote there"),
        ("head -n 60 data/rows.jsonl > new; mv new data/rows.jsonl", (), "have different rows (64 and 60)"),
        ("true", ("--learning-rate", "0.001"), "train by different recipes (learning_rate: 0.002 -> 0.001)"),
        (
            "mkdir -p own prepared; mount --bind own prepared; mount -o remount,bind,ro prepared",
            (),
            "prepared can't be written",
        ),
    ],
)
def test_two_machines_that_disagree(hall: Hall, change: str, options: tuple[str, ...], message: str) -> None:
    """Both say why, before the first step; nobody waits for the other."""
    hall.machines[2].run(f"cd {hall.machines[2].folder}; {change}")
    began = time.monotonic()
    hall.start(1)
    hall.start(2, *options)
    assert hall.ended() == [1, 1], hall.tails()
    print(f"\n{time.monotonic() - began:.0f} s")
    assert message in hall.said(1), hall.tails()
    assert message in hall.said(2), hall.tails()
    assert not list(hall.shared.glob("stage1/checkpoint-*"))
