"""Runs a function in several processes that can talk to each other: gloo, on the CPU."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PROCESSES = 2


def in_processes(function: Callable[..., Any], *arguments: Any) -> None:
    """Call ``function(rank, *arguments)`` in each process, in an initialised process group; an error in one is raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Daemons, so that they end with the tests when one of them hangs.
    mp.spawn(_work, (port, function, arguments), nprocs=PROCESSES, daemon=True)


def _work(rank: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(PROCESSES)
    )
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    function(rank, *arguments)
    dist.barrier()
    # No clean-up: DDP's reducer lets go of the process group while it holds the interpreter's lock, and waits there for
    # gloo's threads, one of which may wait for that lock to let go of a tensor. Seen as a test that never ended.
    os._exit(0)
