"""What an error means that a model raises when its output layer gives the logits of some positions."""

from __future__ import annotations

import re
import sys

import torch

_MACHINES = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", MemoryError), torch.distributed.DistError)
_MACHINES_WORDS = re.compile(
    r"cuda|cublas|cudnn|nccl|rccl|\bhip\b|\brocm\b|\bxpu\b|\bmps\b|\bnpu\b|triton|ptxas|no kernel image|gloo"
    r"|out of memory|memory access|shared memory|allocat|out of resource|same device"
    r"|connection|broken pipe|by peer|timed out|timeout|collective|process group",
    re.IGNORECASE,
)
_SHAPES_WORDS = re.compile(
    r"shape|size|dimension|\bdims?\b|\bview\b|expand|broadcast|index|bounds|out of range|elements|length|stride|divisible"
    r"|dtype|scalar type",
    re.IGNORECASE,
)
"""How torch speaks of tensors that don't fit; of their type too, since the loss comes in float32 where logits would."""


def needs_every_position(error: Exception) -> bool:
    """Whether an error can come of the missing logits, and not of the machine: memory, a kernel, a lost process.

    One process alone may see an error of the machine. Taken for a need of the model it would go on another way than the
    others, and wait for them for ever. An error of unknown meaning is none of the model's.
    """
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, _MACHINES) or module == "triton" or _MACHINES_WORDS.search(str(error)):
        return False
    return not isinstance(error, RuntimeError) or _SHAPES_WORDS.search(str(error)) is not None


def breaks_the_graph(error: Exception) -> bool:
    """Whether a model that is compiled in one piece (``fullgraph=True``) can't leave its graph at the output layer."""
    dynamo = sys.modules.get("torch._dynamo")
    return dynamo is not None and isinstance(error, dynamo.exc.Unsupported)
