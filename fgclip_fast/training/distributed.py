"""The processes of one run, as ``torchrun`` or ``srun`` starts them; one process is the same code without a group."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fgclip_fast.process import slurm
from fgclip_fast.process.told_by_first import told_by_first
from fgclip_fast.training.host_copy import HostCopy

T = TypeVar("T")
# What torch's back ends say of a process that does not answer.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "timed out", "NCCL error")


@dataclass(frozen=True)
class Processes:
    """The processes that take part in a run, seen from one of them.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        group: torch's process group; None for a single process.
        device: device of this process.
    """

    rank: int
    world_size: int
    group: dist.ProcessGroup | None
    device: torch.device

    @property
    def first(self) -> bool:
        """True for the process that writes files and shows progress."""
        return self.rank == 0


def start(device: torch.device) -> Processes:
    """Join the processes that ``torchrun`` or ``srun`` started, if any.

    Of several GPUs, each process takes the one of its rank; a task to which SLURM gave one alone takes that.
    """
    slurm.adopt()
    if device.type == "cuda":
        chosen = int(os.environ.get("LOCAL_RANK", device.index or 0))
        device = torch.device("cuda", chosen % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return Processes(0, 1, None, device)
    if not dist.is_initialized():
        if device.type == "cuda":
            dist.init_process_group("nccl", device_id=device)  # the GPU is known before the first collective
        else:
            dist.init_process_group("gloo")
    return Processes(dist.get_rank(), dist.get_world_size(), dist.group.WORLD, device)


def first_before_others(processes: Processes, work: Callable[[], T]) -> T:
    """Call ``work`` in the first process, then in the others, which find the files that it wrote."""
    if processes.first:
        found = work()
    if processes.group is not None:
        dist.barrier(processes.group)
    return found if processes.first else work()


def of_first(processes: Processes, work: Callable[[], T]) -> T:
    """Call ``work`` in the first process alone, and return what it gives, or raise what it raises, in all of them."""
    return told_by_first(processes.group, work)


@contextmanager
def explained(
    processes: Processes, way_out: str = "the run goes on from its newest checkpoint by --resume auto"
) -> Iterator[None]:
    """Run what all processes do together; that one of them is gone ends with a sentence instead of a traceback.

    Args:
        processes: that take part.
        way_out: the end of the sentence.

    Raises:
        ConnectionError: another process has died, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if any(word in line for word in _GONE)), None)
        if processes.group is None or (reason is None and not isinstance(error, dist.DistError)):
            raise
        if threading.current_thread() is threading.main_thread():
            # torchrun ends the others by a signal, which must not come before the sentence.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise ConnectionError(
            f"process {processes.rank}: another of the {processes.world_size} processes has died or cannot be reached "
            f"({reason or error}); {way_out}"
        ) from None


def stop(processes: Processes) -> None:
    """Leave the group, after waiting for all processes."""
    if processes.group is not None and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def wrap(model: nn.Module, processes: Processes) -> nn.Module:
    """Wrap ``model`` in DDP, which averages its gradients over the processes; a single process needs no wrapper."""
    if processes.group is None:
        return model
    ids = [processes.device.index] if processes.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, process_group=processes.group, gradient_as_bucket_view=True)


def without_averaging(model: nn.Module) -> Any:
    """A context in which a backward pass adds to the gradients of this process without averaging."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


class StopFlag:
    """An agreement of all processes on the step to stop after; read one step after it is made, so that none waits.

    On a GPU the flag lives there and comes to the host on a stream of its own, so that a step's kernels do not wait for
    the other processes either.
    """

    def __init__(self, processes: Processes) -> None:
        self._group, self._device = processes.group, processes.device
        self._pending: tuple[Any, HostCopy] | None = None
        on_gpu = self._group is not None and self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if on_gpu else None

    def agreed(self, wanted: bool) -> bool:
        """Tell the other processes whether this one wants to stop; return the agreement of the step before."""
        if self._group is None:
            return wanted
        agreed = self._read()
        flag = torch.full((), float(wanted), device=self._device)
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        if self._stream is None:
            self._pending = work, HostCopy(flag)
        else:
            with torch.cuda.stream(self._stream):
                work.wait()  # the stream waits, the host does not
                self._pending = work, HostCopy(flag)
        return agreed

    def close(self) -> None:
        """Wait for the last collective: if it outlived the interpreter, the process would abort."""
        self._read()

    def _read(self) -> bool:
        if self._pending is None:
            return False
        (work, flag), self._pending = self._pending, None
        if self._stream is None:
            work.wait()
        return bool(flag.read())
