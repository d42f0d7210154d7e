"""What this machine is: versions without importing anything, devices in a check's process."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sftkey.training.doctor.task import Findings, Task
from sftkey.util.version import __version__

_PACKAGES = (
    *("torch", "transformers", "accelerate", "peft", "bitsandbytes", "deepspeed", "torchao", "triton", "flash-attn"),
    *("liger-kernel", "cut-cross-entropy", "axolotl"),
)


DRIVER = Path("/proc/driver/nvidia/version")
"""There where the kernel has NVIDIA's driver."""


def versions() -> dict[str, str | None]:
    """The version of each package that matters; None where it isn't installed."""
    found: dict[str, str | None] = {"sftkey": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def look(task: Task) -> Findings:
    """The devices that torch sees."""
    import torch

    there = torch.cuda.is_available()
    gpus: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if there else 0):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": properties.name,
                "memory_bytes": properties.total_memory,
                "capability": [properties.major, properties.minor],
            }
        )
    figures = {
        "device": "cuda" if gpus else "cpu",
        "gpus": gpus,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cuda": torch.version.cuda or torch.version.hip,
        "versions": versions(),
    }
    return Findings(figures, [] if gpus or _hidden() else _unseen())


def _hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def _unseen() -> list[str]:
    """A GPU's driver is here, but torch sees no GPU."""
    import torch

    if not DRIVER.exists():
        return []
    build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for the CPU"
    advice = "install a build for this driver (nvidia-smi says which CUDA it knows)"
    return [f"there is an NVIDIA driver here, but torch sees no GPU: torch {torch.__version__} {build}; {advice}"]
