"""The processes of one run, as ``torchrun`` starts them; one process is the same code without a group."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """Who takes part in a run.

    Attributes:
        rank: number of this process, from 0.
        world_size: how many there are.
        group: torch's process group, None for a single process.
        device: where this process computes.
    """

    rank: int
    world_size: int
    group: dist.ProcessGroup | None
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def start(device: torch.device) -> Processes:
    """Joins the processes that ``torchrun`` started, if any; of several GPUs each process takes its own."""
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return Processes(0, 1, None, device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size(), dist.group.WORLD, device)


def stop(processes: Processes) -> None:
    """Leaves the group, when all have come so far."""
    if processes.group is not None and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def wrap(model: nn.Module, processes: Processes) -> nn.Module:
    """``model`` itself, or with its gradients averaged over the processes."""
    if processes.group is None:
        return model
    ids = [processes.device.index] if processes.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, process_group=processes.group, gradient_as_bucket_view=True)


def without_averaging(model: nn.Module) -> Any:
    """A context in which a backward pass only adds to this process's own gradients."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


class StopFlag:
    """Lets all processes stop after the same step, without a wait: asked in one step, read in the next."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._pending: tuple[Tensor, Any] | None = None

    def agreed(self, wanted: bool) -> bool:
        """Tells the others whether this process wants to stop; returns what all had agreed one step before."""
        if self._processes.group is None:
            return wanted
        agreed = False
        if self._pending is not None:
            flag, work = self._pending
            work.wait()
            agreed = bool(flag.item())
        flag = torch.tensor(float(wanted), device=self._processes.device)
        self._pending = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._processes.group, async_op=True)
        return agreed

    def close(self) -> None:
        """Waits for what was asked last: a collective that ends after the interpreter began to would abort it."""
        if self._pending is not None:
            self._pending[1].wait()
