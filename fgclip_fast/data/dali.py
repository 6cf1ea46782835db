"""DALI's decoder and resizer, for a batch at a time: nvJPEG on a GPU, the same graph with CPU operators without one.

An image that DALI cannot decode raises for the whole batch and leaves the pipeline unusable: running it once more ends
the process. So bytes are checked before it sees them, and after an exception a new pipeline takes its place.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.data.samples import Parcel, Visit

log = logging.getLogger(__name__)


def available() -> bool:
    """Whether DALI is installed."""
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None


class Dali:
    """Decodes and squashes batches, one after another, in a thread of its own.

    Args:
        size: side S of the square images.
        batch_size: images of a batch, at most.
        device: "cuda" or "cpu", where the images are wanted.
        threads: CPU threads of DALI's own.
    """

    def __init__(self, size: int, batch_size: int, device: torch.device | str, threads: int = 2) -> None:
        self._size, self._batch_size, self._threads = size, batch_size, threads
        self.device = torch.device(device)
        self._pipeline = self._build()
        self._thread = ThreadPoolExecutor(1, "dali")

    def start(self, encoded: list[Tensor]) -> Future[Tensor | None]:
        """Begins a batch of JPEG files, each uint8 [N].

        Returns:
            uint8 [B, 3, S, S] to be, or None where one of the files cannot be decoded.
        """
        return self._thread.submit(self._run, encoded)

    def fill(self, parcels: Iterator[Parcel], on_cpu: Callable[[list[Visit]], Parcel]) -> Iterator[Parcel]:
        """Parcels with their images, each decoded while the one before it is used.

        Args:
            parcels: without an end, their JPEG files as they are.
            on_cpu: makes a parcel anew where DALI failed: it finds the culprit and replaces it.
        """
        started = ((parcel, self.start(_files(parcel))) for parcel in parcels)
        parcel, images = next(started)
        for following in started:
            decoded = images.result()
            yield on_cpu(parcel.visits) if decoded is None else _filled(parcel, decoded)
            parcel, images = following

    def _run(self, encoded: list[Tensor]) -> Tensor | None:
        if not encoded:
            return torch.empty(0, 3, self._size, self._size, dtype=torch.uint8, device=self.device)
        try:
            (images,) = self._pipeline.run(encoded=[file.numpy() for file in encoded])
            copy = torch.from_dlpack(images.as_tensor()).clone()  # the pipeline uses its buffer again
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            why = lines[-2] if lines[-1].startswith("Current pipeline") else lines[-1]
            log.warning("dali: %s; this batch is decoded on the CPU", why)
            self._pipeline = self._build()
            return None
        if copy.is_cuda:
            torch.cuda.current_stream(copy.device).synchronize()  # of this thread, so that others need not know it
        return copy

    def _build(self) -> Any:
        on_gpu = self.device.type == "cuda"
        index = (self.device.index or 0) if on_gpu else None
        pipeline = _graph()(
            self._size,
            "mixed" if on_gpu else "cpu",
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=index,
            prefetch_queue_depth=1,
            exec_pipelined=False,
            exec_async=False,
        )
        pipeline.build()
        return pipeline


def _files(parcel: Parcel) -> list[Tensor]:
    assert parcel.encoded is not None
    files, offsets = parcel.encoded.files, parcel.encoded.offsets.tolist()
    return [files[first:last] for first, last in pairwise(offsets)]


def _filled(parcel: Parcel, images: Tensor) -> Parcel:
    """The parcel with DALI's images and those that a worker has decoded, each in its row."""
    assert parcel.encoded is not None
    rows = torch.cat([parcel.encoded.rows, parcel.encoded.decoded_rows])
    image = torch.cat([images, parcel.encoded.decoded.to(images.device)])
    image = image.index_select(0, rows.argsort().to(images.device))
    parts = image.split([len(batch.image) for batch in parcel.micro_batches])
    filled = [batch._replace(image=part) for batch, part in zip(parcel.micro_batches, parts, strict=True)]
    return parcel._replace(micro_batches=filled, encoded=None)


def _graph() -> Any:
    from nvidia.dali import fn, pipeline_def  # here, since it is an extra
    from nvidia.dali.types import DALIDataType, DALIImageType, DALIInterpType

    @pipeline_def
    def graph(size: int, device: str) -> Any:
        encoded: Any = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
        image: Any = fn.decoders.image(
            encoded,
            device=device,
            output_type=DALIImageType.RGB,
            adjust_orientation=False,  # PIL's convert("RGB") does not turn images either
            jpeg_fancy_upsampling=True,  # as libjpeg does
        )
        cubic = DALIInterpType.INTERP_CUBIC
        image = fn.resize(image, size=[size, size], interp_type=cubic, antialias=True, dtype=DALIDataType.UINT8)
        return fn.transpose(image, perm=[2, 0, 1])

    return graph
