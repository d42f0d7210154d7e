"""The checks by name: what each tries, and what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from sftkey.util.errors import UserError, nearest

MEMORY = "memory"
"""The check that is made once for each recipe."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: As ``--only`` takes it.
        what: For the user, one line.
        function: Its module in this package and its function, which takes a `sftkey.training.doctor.task.Task`.
        packages: Packages that it can't do without, beside torch, transformers and accelerate.
        gpu: Whether a CPU can't try it.
        every_gpu: Whether it uses all GPUs; otherwise it sees one.
        seconds: Its limit; a check that takes longer is ended.
    """

    name: str
    what: str
    function: str
    packages: tuple[str, ...] = ()
    gpu: bool = False
    every_gpu: bool = False
    seconds: int = 90

    @property
    def needs(self) -> str:
        """What it needs beside torch, transformers and accelerate."""
        return ", ".join((*(["a GPU"] if self.gpu else []), *self.packages)) or "nothing more"


_ALL = (
    Check("plain", "float32, padded rows, tied and untied output layer", "numerics:plain"),
    Check("bf16", "weights in bfloat16", "numerics:bfloat16"),
    Check("autocast", "float32 weights, computed in bfloat16", "numerics:autocast"),
    Check("packing", "rows packed into one sequence against the same rows padded", "numerics:packing"),
    Check("flash", "the same with FlashAttention 2", "numerics:flash", ("flash_attn",), gpu=True),
    Check("trainer", "steps of Trainer with accumulation; calls that wait for the device", "training:steps"),
    Check("lora", "a LoRA adapter on every linear layer", "numerics:lora", ("peft",)),
    Check("qlora", "the same on a base in 4 bits", "numerics:qlora", ("peft", "bitsandbytes")),
    Check("compile", "torch.compile of the model", "numerics:compiled", seconds=150),
    Check("fp8", "linear layers of the body in float8 (torchao)", "numerics:float8", ("torchao",), gpu=True),
    Check("fsdp2", "accelerate's FSDP2 in bfloat16, on every GPU here", "sharding:fsdp2", every_gpu=True, seconds=120),
    Check("zero3", "DeepSpeed ZeRO-3 on every GPU here", "sharding:zero3", ("deepspeed",), every_gpu=True, seconds=180),
    Check("cost-standard", "time and memory of a step: the model's own loss", "cost:standard"),
    Check("cost-sftkey", "the same: the loss at labelled positions", "cost:sftkey"),
    Check("cost-torch", "the same: torch's chunked linear_cross_entropy", "cost:chunked"),
    Check("cost-liger", "the same: Liger's fused loss", "cost:liger", ("liger_kernel",), gpu=True),
    Check("cost-cce", "the same: Cut Cross Entropy", "cost:cut", ("cut_cross_entropy",), gpu=True),
    Check(MEMORY, "peak memory of recipes against their estimate", "recipe_memory:measure", gpu=True, seconds=120),
)

CHECKS = MappingProxyType({check.name: check for check in _ALL})
"""In the order in which they run."""


def chosen(names: str | None) -> list[Check]:
    """The checks of a list such as ``plain,bf16``, in their own order; all of them by default.

    Raises:
        UserError: There is no check of a name.
    """
    if names is None:
        return list(CHECKS.values())
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    for name in sorted(wanted - set(CHECKS)):
        raise UserError(f"--only: there is no check {name!r}; did you mean {nearest(name, CHECKS)}? --list shows all")
    if not wanted:
        raise UserError(f"--only: names no check; --list shows all {len(CHECKS)}")
    return [check for check in CHECKS.values() if check.name in wanted]
