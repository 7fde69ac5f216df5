"""One process, or the several that torchrun starts: each takes its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: the first evaluates while the others wait."""


@dataclass(frozen=True)
class Processes:
    """This process and how many there are."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, writes and prints."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's slice of a batch, whose length must divide by the number of processes."""
        return batch.chunk(self.count)[self.rank]

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model`, with gradients averaged over the processes."""
        if self.count == 1:
            return model
        return DistributedDataParallel(
            model, device_ids=[self.device] if self.device.type == "cuda" else None
        )

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.count > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.count
        return value


def process_count() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """The number of this process, 0 for the first."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the others: by gloo on the CPU, by nccl on CUDA, one GPU a process.

    After an exception the group is left as it is, since the others may never answer: the process
    ends, and torchrun ends the others.
    """
    count, rank = process_count(), process_rank()
    if count == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    dist.barrier()  # all have read the run folder before the first one writes there
    yield Processes(rank, count, device)
    dist.barrier()
    dist.destroy_process_group()
