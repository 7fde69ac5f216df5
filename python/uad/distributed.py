"""Training in one process, or in several under torchrun, each with its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; while the first one evaluates, the others wait."""


@dataclass(frozen=True)
class Processes:
    """This process's rank and device, and the number of processes."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, writes files and prints."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's slice of a batch; its length must be a multiple of `count`."""
        return batch.chunk(self.count)[self.rank]

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with its gradients averaged over the processes."""
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

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their ranks, in every process."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values


def process_count() -> int:
    """The number of processes that torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """The rank of this process, 0 for the first."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the process group: gloo on the CPU, NCCL on CUDA with one GPU per process.

    After an exception the group is not destroyed, because that could wait forever for the others;
    this process ends, and torchrun then ends the rest.
    """
    count, rank = process_count(), process_rank()
    if count == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    dist.barrier()  # every process must have read the run folder before the first one writes to it
    yield Processes(rank, count, device)
    dist.barrier()
    dist.destroy_process_group()
