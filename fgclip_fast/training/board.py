"""TensorBoard's files of a run."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fgclip_fast.training.disk_thread import DiskThread

log = logging.getLogger("fgclip_fast")


class Board:
    """Writes figures while the caller goes on; once that fails it is given up, since the log holds the same figures.

    Args:
        folder: of the files.
        done: steps done before; figures of later steps, from a run that was ended, are not shown.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = SummaryWriter(str(folder), purge_step=done + 1)
        # SummaryWriter has a thread, too, but waits for it without end once its queue is full, and when it is closed.
        self._disk = DiskThread(str(folder))

    def write(self, step: int, kind: str, numbers: Mapping[str, float]) -> None:
        """Write the numbers of a step."""
        self._call(partial(_add, step, kind, numbers))

    def close(self) -> None:
        """Wait for the last figures, as long as the file system answers, and close the files."""
        self._call(SummaryWriter.close)
        self._disk.has_ended()

    def _call(self, call: Callable[[SummaryWriter], object]) -> None:
        if self._writer is None:
            return
        if self._disk.has_ended():
            self._disk.submit(partial(self._try, self._writer, call))
        else:
            self._give_up("the file system does not answer")

    def _try(self, writer: SummaryWriter, call: Callable[[SummaryWriter], object]) -> None:
        try:
            call(writer)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, reason: object) -> None:
        self._writer = None
        log.error("%s: TensorBoard's files cannot be written (%s); the log has the same figures", self._folder, reason)


def _add(step: int, kind: str, numbers: Mapping[str, float], writer: SummaryWriter) -> None:
    for name, value in numbers.items():
        writer.add_scalar(f"{kind}/{name}", value, step)
