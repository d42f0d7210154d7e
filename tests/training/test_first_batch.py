"""Which errors of a first batch mean that the model needs all its logits: made by torch where it can make them here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.training.first_batch import needs_every_position

POSITIONS, GIVEN = (2, 13), (1, 5)

INSISTS: dict[str, Callable[[torch.Tensor], object]] = {
    "view": lambda logits: logits.view(*POSITIONS, 7),
    "reshape": lambda logits: logits.reshape(*POSITIONS, 7),
    "unflatten": lambda logits: logits.flatten().unflatten(0, (*POSITIONS, 7)),
    "expand": lambda logits: logits.expand(*POSITIONS, 7),
    "add": lambda logits: logits + torch.zeros(*POSITIONS, 7),
    "add in place": lambda logits: logits.add_(torch.zeros(*POSITIONS, 7)),
    "mask": lambda logits: logits[torch.ones(*POSITIONS, dtype=torch.bool)],
    "masked_fill": lambda logits: logits.masked_fill(torch.ones(*POSITIONS, 1, dtype=torch.bool), 0.0),
    "where": lambda logits: torch.where(torch.ones(*POSITIONS, 1, dtype=torch.bool), logits, 0.0),
    "index": lambda logits: logits[1, 12],
    "index_select": lambda logits: logits.index_select(1, torch.tensor([12])),
    "gather": lambda logits: logits.gather(1, torch.zeros(*POSITIONS, 7, dtype=torch.long)),
    "narrow": lambda logits: logits.narrow(1, 12, 1),
    "split": lambda logits: logits.split([6, 7], dim=1),
    "cat": lambda logits: torch.cat([logits, torch.zeros(2, 1, 7)], dim=1),
    "stack": lambda logits: torch.stack([logits, torch.zeros(*POSITIONS, 7)]),
    "bmm": lambda logits: torch.bmm(logits, torch.zeros(2, 7, 7)),
    "matmul": lambda logits: torch.zeros(13, 13) @ logits[0],
    "einsum": lambda logits: torch.einsum("btv,bt->b", logits, torch.zeros(*POSITIONS)),
    "copy_": lambda logits: torch.zeros(*POSITIONS, 7).copy_(logits[:, :4]),
    "assign": lambda logits: torch.zeros(*POSITIONS, 7).__setitem__((slice(0, 1), slice(0, 13)), logits),
    "index_put_ of another type": lambda logits: torch.zeros(5, 7, dtype=torch.bfloat16).index_put_(
        (torch.tensor([0]),), logits[0, :1]
    ),
    "matmul of another type": lambda logits: logits[0] @ torch.zeros(7, 7, dtype=torch.bfloat16),
    "unpack": lambda logits: (lambda a, b: None)(*logits),
    "cross_entropy": lambda logits: torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.zeros(26).long()),
}


@pytest.mark.parametrize("insists", INSISTS.values(), ids=INSISTS)
def test_tensors_that_do_not_fit(insists: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)) as raised:
        insists(torch.zeros(*GIVEN, 7))
    assert needs_every_position(raised.value)


MACHINES = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB; try expandable_segments",
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA driver error: invalid argument",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "HIP error: invalid device function",
    "XPU out of memory. Tried to allocate 2.00 MiB",
    "MPS backend out of memory (MPS allocated: 17.9 GB)",
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
    "NCCL Error 1: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
    "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3, NumelIn=1) ran for 600000 milliseconds",
    "[Rank 1]: Detected mismatch between collectives on ranks. Rank 1 is running ALLREDUCE with a tensor shape of [2]",
    "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1",
    "Timed out waiting 1800000ms for recv operation to complete",
    "Broken pipe",
    "Triton Error [CUDA]: out of resource",
    "out of resource: shared memory, Required: 147456, Hardware limit: 101376. Reducing block sizes may help",
    "PTXAS error: Internal Triton PTX codegen error",
    "no kernel image is available for execution on the device",
    "Expected all tensors to be on the same device, but got index is on cpu, different from other tensors on cuda:0",
    "unable to open shared memory object </torch_1> in read-write mode: Too many open files",
    "something else entirely",
)


@given(
    text=st.sampled_from(MACHINES),
    before=st.sampled_from(["", "Dynamo failed to run FX node: ", "[rank1]: "]),
    after=st.sampled_from(["", "\nCompile with TORCH_USE_CUDA_DSA", "\nException raised from a.cpp:1"]),
    change=st.sampled_from([str, str.lower, str.upper]),
)
@settings(max_examples=150, deadline=None)
def test_errors_of_the_machine(text: str, before: str, after: str, change: Callable[[str], str]) -> None:
    assert not needs_every_position(RuntimeError(change(before + text + after)))


def test_errors_of_the_machine_by_their_type() -> None:
    class OutOfResources(Exception):
        """As Triton's, which says nothing of itself."""

    OutOfResources.__module__ = "triton.runtime.errors"
    for error in (torch.OutOfMemoryError("size"), torch.distributed.DistBackendError("shape"), OutOfResources("size")):
        assert not needs_every_position(error)
