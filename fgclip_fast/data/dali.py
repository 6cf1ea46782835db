"""DALI's decoder and resizer, one batch at a time: nvJPEG on a GPU, or the same graph with CPU operators.

For an image that it cannot decode, DALI raises for the whole batch and leaves the pipeline unusable: running it again
ends the process. So files are checked before DALI gets them, and after an exception a new pipeline is built.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.data.samples import Visit, WorkerBatch

log = logging.getLogger(__name__)


def available() -> bool:
    """True if DALI is installed."""
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None


class Dali:
    """Decodes and squashes batches, one after another, in a thread of its own.

    Args:
        size: side S of the square images.
        batch_size: largest number of images in a batch.
        device: "cuda" or "cpu", the device that decodes and gets the images.
        threads: number of DALI's CPU threads.
    """

    def __init__(self, size: int, batch_size: int, device: torch.device | str, threads: int = 2) -> None:
        self._size, self._batch_size, self._threads = size, batch_size, threads
        self.device = torch.device(device)
        if self.device == torch.device("cuda"):  # without an index it would be another GPU in another thread
            self.device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._pipeline = self._build()
        self._thread = ThreadPoolExecutor(1, "dali")

    def fill(
        self, batches: Iterator[WorkerBatch], on_cpu: Callable[[list[Visit]], WorkerBatch]
    ) -> Iterator[WorkerBatch]:
        """Decode the images of batches, each while the one before it is in use.

        On a GPU this runs on a stream of its own. The host does not wait for it; the caller's current stream does.

        Args:
            batches: endless; their JPEG files encoded.
            on_cpu: makes the batch of some visits anew where DALI failed, replacing the file that cannot be decoded.
        """
        started = ((batch, self._thread.submit(self._fill, batch)) for batch in batches)
        batch, filled = next(started)
        for following in started:
            yield self._hand_over(filled.result()) or on_cpu(batch.visits)
            batch, filled = following

    def decode(self, files: list[Tensor]) -> Tensor | None:
        """Decode JPEG files, each uint8 [N], on the current stream.

        Returns:
            uint8 [B, 3, S, S]; None if one of the files cannot be decoded.
        """
        if not files:
            return torch.empty(0, 3, self._size, self._size, dtype=torch.uint8, device=self.device)
        try:
            # DALI returns when the device has decoded them; this thread, and no other, waits for that.
            (images,) = self._pipeline.run(encoded=[file.numpy() for file in files])
            return torch.from_dlpack(images.as_tensor()).clone()  # the pipeline will overwrite its buffer
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            reason = lines[-2] if lines[-1].startswith("Current pipeline") else lines[-1]
            log.warning("dali: %s; this batch is decoded on the CPU", reason)
            self._pipeline = self._build()
            return None

    def _fill(self, batch: WorkerBatch) -> tuple[WorkerBatch, torch.cuda.Event | None] | None:
        """Return the batch with its images, and the event after which they can be read; None if DALI failed."""
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            images = self.decode(_files(batch))
            if images is None:
                return None
            filled = _filled(batch, images)
            return filled, None if self._stream is None else self._stream.record_event()

    def _hand_over(self, filled: tuple[WorkerBatch, torch.cuda.Event | None] | None) -> WorkerBatch | None:
        """Let the current stream wait until the images are there; the host does not."""
        if filled is None:
            return None
        batch, ready = filled
        if ready is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready)
            for part in batch.micro_batches:
                part.image.record_stream(current)  # this stream's memory, which the other will read
        return batch

    def _build(self) -> Any:
        on_gpu = self.device.type == "cuda"
        pipeline = _graph()(
            self._size,
            "mixed" if on_gpu else "cpu",
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=self.device.index if on_gpu else None,
            prefetch_queue_depth=1,
            exec_pipelined=False,
            exec_async=False,
        )
        pipeline.build()
        return pipeline


def _files(batch: WorkerBatch) -> list[Tensor]:
    assert batch.encoded is not None
    files, offsets = batch.encoded.files, batch.encoded.offsets.tolist()
    return [files[first:last] for first, last in pairwise(offsets)]


def _filled(batch: WorkerBatch, images: Tensor) -> WorkerBatch:
    """Give the batch its images, those of DALI and those that a worker has decoded, each in its row."""
    assert batch.encoded is not None
    rows = torch.cat([batch.encoded.rows, batch.encoded.decoded_rows])
    image = torch.cat([images, batch.encoded.decoded.to(images.device, non_blocking=True)])
    image = image.index_select(0, rows.argsort().to(images.device, non_blocking=True))
    parts = image.split([len(part.image) for part in batch.micro_batches])
    filled = [part._replace(image=own) for part, own in zip(batch.micro_batches, parts, strict=True)]
    return batch._replace(micro_batches=filled, encoded=None)


def _graph() -> Any:
    from nvidia.dali import fn, pipeline_def  # imported here, since DALI is an extra
    from nvidia.dali.types import DALIDataType, DALIImageType, DALIInterpType

    @pipeline_def
    def graph(size: int, device: str) -> Any:
        encoded: Any = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
        image: Any = fn.decoders.image(
            encoded,
            device=device,
            output_type=DALIImageType.RGB,
            adjust_orientation=False,  # the workers decode what must be turned
            jpeg_fancy_upsampling=True,  # as libjpeg does
        )
        cubic = DALIInterpType.INTERP_CUBIC
        image = fn.resize(image, size=[size, size], interp_type=cubic, antialias=True, dtype=DALIDataType.UINT8)
        return fn.transpose(image, perm=[2, 0, 1])

    return graph
