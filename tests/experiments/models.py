"""The model of an experiment, copies of it, and the machine that it runs on."""

from __future__ import annotations

import copy
import platform
from pathlib import Path
from typing import Any

import torch
from sftkey import __version__
from sftkey.training.fit import device, load_pretrained

from experiments.settings import Settings

Weights = dict[str, torch.Tensor]


def load_model(settings: Settings) -> tuple[Any, Any]:
    """The pretrained model of an experiment, in fp32 on the device, and its tokenizer.

    Raises:
        OSError: There is no such folder, or it holds no model.
    """
    if not Path(settings.model).is_dir():
        # Else the name would be looked up on the Hub.
        raise FileNotFoundError(f"--model {settings.model}: there is no such folder; download the model first")
    return load_pretrained(settings.model, tag_tokens=settings.tags == "tokens")


def weights_of(model: Any) -> Weights:
    """A copy of the model's weights in the CPU's memory."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def generation_copy(model: Any) -> Any:
    """The model as it generates: a copy in bf16 on a GPU, the model itself (fp32) on a CPU."""
    return copy.deepcopy(model).to(torch.bfloat16) if device().type == "cuda" else model


def environment() -> dict[str, str]:
    """Device and versions, as they stand in the results."""
    import transformers

    where = device()
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    return {
        "device": name,
        "precision": "bf16 autocast over fp32 weights" if where.type == "cuda" else "fp32",
        "sftkey": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
