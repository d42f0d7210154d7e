"""One step with the model's weights spread over processes: one for each GPU, two on a CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from sftkey.training.doctor.compare import (
    BFLOAT16,
    FLOAT32,
    Batch,
    Limits,
    Sample,
    differentiate,
    judge,
    ours,
    own,
    require_bfloat16,
)
from sftkey.training.doctor.numerics import ROWS, batch_of, exact_sample, model_of
from sftkey.training.doctor.task import Findings, Skipped, Task


def fsdp2(task: Task) -> Findings:
    """FSDP2 of accelerate with its policy for bfloat16."""
    require_fsdp2()
    require_bfloat16(task.device)
    return in_processes(task, _fsdp2)


def zero3(task: Task) -> Findings:
    """DeepSpeed's ZeRO-3, every parameter partitioned."""
    return in_processes(task, _zero3)


def in_processes(task: Task, function: Any) -> Findings:
    """Call ``function(task, rank, processes)`` in each process; what rank 0 found.

    One process is this one: a process group of one runs the same code.
    """
    processes = task.details.get("processes") or (task.gpus if task.device == "cuda" else 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE=str(processes))
    if processes == 1:
        return _in_group(0, task, 1, function)
    with TemporaryDirectory() as folder:
        place = Path(folder) / "findings.json"
        # A CPU's processes are copies of this one, which has done nothing yet; CUDA can't be used in a copy.
        try:
            torch.multiprocessing.start_processes(
                _work,
                (task, processes, function, str(place)),
                nprocs=processes,
                daemon=True,
                start_method="spawn" if task.device == "cuda" else "fork",
            )
        except torch.multiprocessing.ProcessRaisedException as error:
            raised = [
                line for line in str(error).splitlines() if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Exit)\b", line)
            ]
            raise RuntimeError(f"process {error.error_index}: {raised[-1] if raised else error}") from None
        return Findings(**json.loads(place.read_text("utf-8")))


def _work(rank: int, task: Task, processes: int, function: Any, place: str) -> None:
    signal.alarm(int(task.seconds) + 10)  # should the first process be gone
    findings = _in_group(rank, task, processes, function)
    if rank == 0:
        Path(place).write_text(json.dumps(asdict(findings)), encoding="utf-8")
    dist.barrier()
    os._exit(0)  # gloo's threads and the interpreter can wait for each other at the end


def _in_group(rank: int, task: Task, processes: int, function: Any) -> Findings:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    if task.device == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if task.device == "cuda" else "gloo", rank=rank, world_size=processes)
    findings: Findings = function(task, rank, processes)
    findings.figures["processes"] = processes
    return findings


def _part(everything: Batch, rank: int) -> Batch:
    """The rows of one process, whose loss counts with its share of all rows together."""
    part = everything.rows(slice(rank * ROWS, (rank + 1) * ROWS))
    return replace(part, all_items=everything.items)


def require_fsdp2() -> None:
    """Skip what needs FSDP2 where accelerate is older than it."""
    from accelerate import __version__
    from accelerate.utils import fsdp_utils

    if not hasattr(fsdp_utils, "fsdp2_prepare_model"):
        raise Skipped(f"accelerate {__version__} has no FSDP2")


def sharded(model: Any, device: str, rank: int, mixed_precision: str | None = "bf16") -> Any:
    """A model under FSDP2, each layer by itself, as accelerate shards it."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        mixed_precision_policy=mixed_precision,
    )
    state = SimpleNamespace(fsdp_plugin=plugin, device_mesh=None)
    accelerator = SimpleNamespace(
        state=state,
        mixed_precision=mixed_precision or "no",
        is_main_process=rank == 0,
        device=torch.device(device),
    )
    return fsdp2_prepare_model(accelerator, model)


def _fsdp2(task: Task, rank: int, processes: int) -> Findings:
    everything = batch_of(task, ROWS * processes)
    whole = model_of(task)
    exact = exact_sample(whole, everything)
    with torch.autocast(task.device, torch.bfloat16):
        expected = differentiate(whole, own(whole, everything))
    del whole
    model = model_of(task)
    model.bfloat16().float()
    model = sharded(model, task.device, rank)
    with torch.autocast(task.device, torch.bfloat16):
        loss = ours(model, _part(everything, rank))
    found = differentiate(model, loss * processes)
    gradients = {name: cast(DTensor, gradient).full_tensor() for name, gradient in found.gradients.items()}
    return _together(loss, gradients, expected, BFLOAT16, exact)


def _zero3(task: Task, rank: int, processes: int) -> Findings:
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    everything = batch_of(task, ROWS * processes)
    whole = model_of(task)
    expected = differentiate(whole, own(whole, everything))
    del whole
    config = {
        "train_micro_batch_size_per_gpu": ROWS,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "optimizer": {"type": "SGD", "params": {"lr": 0.0}},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(model=model_of(task), config=config)
    loss = ours(engine, _part(everything, rank))
    engine.backward(loss * processes)
    names = [name for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
    parameters = dict(engine.module.named_parameters())
    gradients = {name: safe_get_full_grad(parameters[name]) for name in names}
    return _together(loss, gradients, expected, FLOAT32)


def _together(
    loss: torch.Tensor,
    gradients: dict[str, torch.Tensor],
    expected: Sample,
    limits: Limits,
    exact: Sample | None = None,
) -> Findings:
    total = loss.detach().clone()
    dist.all_reduce(total)
    return judge(Sample(float(total), gradients), expected, limits, exact)
