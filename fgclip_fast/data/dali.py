"""DALI's decoder and resizer, one batch at a time: nvJPEG on a GPU, or the same graph with CPU operators.

For an image that it cannot decode, DALI raises for the whole batch and leaves the pipeline unusable: running it again
ends the process. So files are checked before DALI gets them, and after an exception a new pipeline is built.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._pipeline = self._build()
        self._thread = ThreadPoolExecutor(1, "dali")

    def start(self, files: list[Tensor]) -> Future[Tensor | None]:
        """Begin to decode JPEG files, each uint8 [N].

        Returns:
            The future uint8 [B, 3, S, S]; its result is None if one of the files cannot be decoded.
        """
        return self._thread.submit(self._run, files)

    def fill(
        self, batches: Iterator[WorkerBatch], on_cpu: Callable[[list[Visit]], WorkerBatch]
    ) -> Iterator[WorkerBatch]:
        """Decode the images of batches, each while the one before it is in use.

        Args:
            batches: endless; their JPEG files encoded.
            on_cpu: makes the batch of some visits anew where DALI failed, replacing the file that cannot be decoded.
        """
        started = ((batch, self.start(_files(batch))) for batch in batches)
        batch, images = next(started)
        for following in started:
            decoded = images.result()
            yield on_cpu(batch.visits) if decoded is None else _filled(batch, decoded)
            batch, images = following

    def _run(self, files: list[Tensor]) -> Tensor | None:
        if not files:
            return torch.empty(0, 3, self._size, self._size, dtype=torch.uint8, device=self.device)
        try:
            (images,) = self._pipeline.run(encoded=[file.numpy() for file in files])
            copy = torch.from_dlpack(images.as_tensor()).clone()  # the pipeline will overwrite its buffer
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            reason = lines[-2] if lines[-1].startswith("Current pipeline") else lines[-1]
            log.warning("dali: %s; this batch is decoded on the CPU", reason)
            self._pipeline = self._build()
            return None
        if copy.is_cuda:  # wait here, so that other threads' streams may use the copy
            torch.cuda.current_stream(copy.device).synchronize()
        return copy

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
    image = torch.cat([images, batch.encoded.decoded.to(images.device)])
    image = image.index_select(0, rows.argsort().to(images.device))
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
            adjust_orientation=False,  # EXIF orientation is ignored, as by the CPU path
            jpeg_fancy_upsampling=True,  # as libjpeg does
        )
        cubic = DALIInterpType.INTERP_CUBIC
        image = fn.resize(image, size=[size, size], interp_type=cubic, antialias=True, dtype=DALIDataType.UINT8)
        return fn.transpose(image, perm=[2, 0, 1])

    return graph
