"""Several processes at one stage: what only one of them may do is done once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sftkey.stages import run
from sftkey.stages.launch import Launch


def test_an_adapter_is_merged_by_one_machine_while_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only of one run: two runs with different next stages meet at the same adapter."""
    merged, merges, trained = threading.Event(), list[str](), list[bool]()
    monkeypatch.setattr(run, "merge_before", lambda _: None if merged.is_set() else ["axolotl", "merge-lora"])
    monkeypatch.setattr(run, "refreshed", lambda stage: stage)

    def work(number: int) -> None:
        stage: Any = SimpleNamespace(
            output_dir=tmp_path / "next",
            before=SimpleNamespace(output_dir=tmp_path / "adapter"),
            finished=False,
            on_ray=False,
            recipe="next.yml",
            arguments=(),
        )

        def runs(command: list[str], *, log: Path | None) -> int:
            if command[1] == "merge-lora":
                merges.append(f"machine{number}")
                time.sleep(0.5)
                merged.set()
            else:
                trained.append(merged.is_set())
                stage.finished = True
            return 0

        launch = Launch("torchrun", ("--nnodes", "3", "--rdzv_endpoint", "machine1:29500"))
        run.train_stage(stage, launch, SimpleNamespace(run=runs))  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(merges) == 1
    assert trained == [True, True, True]
