"""Detect what phrases name: by a zero-shot detector of transformers in this process, or behind an HTTP server."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from fgclip_fast.config.rules import Device, NotNegative, Positive, check
from fgclip_fast.curate.models.endpoint import Calls, open_client
from fgclip_fast.curate.models.found import Backend, Found
from fgclip_fast.curate.models.pixels import sendable
from fgclip_fast.curate.places.answers import Answer, Answers, digest_of, key_of
from fgclip_fast.curate.stage import LeftOut

UNFIT = "answer of the detector that does not fit"
_OPERATION = ("url", "key", "device", "batch", "concurrency", "timeout", "retries")


@dataclass(frozen=True, kw_only=True)
class Detector:
    """An open-vocabulary detector: in this process by transformers, or behind a server."""

    model: str = ""
    """Name or folder of a zero-shot detector of transformers, such as IDEA-Research/grounding-dino-base or
    google/owlv2-base-patch16-ensemble; with a url, whatever the server calls it."""
    url: str = ""
    """Address of a server that answers POST url/detect; empty: the model runs in this process."""
    key: str = "DETECTOR_API_KEY"
    """Environment variable that holds the server's key."""
    image_side: Positive[int] = 1333
    """Longest side of an image that is sent to a server, pixels; larger ones are made smaller."""
    device: Device = "auto"
    """Of a model in this process: auto, cpu, cuda or cuda:0."""
    batch: Positive[int] = 8
    """Images in one pass of a model in this process."""
    concurrency: Positive[int] = 32
    """Images under way at once."""
    timeout: Positive[float] = 120.0
    """Seconds to wait for a server's answer."""
    retries: NotNegative[int] = 8
    """Tries after status 429, 5xx, a time-out or a cut connection; Retry-After is honoured, up to two minutes."""

    def __post_init__(self) -> None:
        check(self, "curate: detector.")

    def identity(self) -> dict[str, Any]:
        """The settings that boxes depend on."""
        return {name: value for name, value in asdict(self).items() if name not in _OPERATION}


class Detection:
    """A detector whose answers are kept.

    Args:
        detector: its settings.
        backend: what finds the boxes.
        answers: where they are kept.
    """

    def __init__(self, detector: Detector, backend: Backend, answers: Answers) -> None:
        self._detector, self._backend, self._answers = detector, backend, answers

    async def boxes(self, image: bytes, phrases: Sequence[str]) -> list[Found]:
        """Find boxes for phrases, or remember them; see :class:`Backend`."""
        key = key_of(self._detector.identity(), list(phrases), digest_of(image))
        answer = self._answers.get(key)
        if answer is None:
            try:
                found = await self._backend.boxes(image, phrases)
                answer = Answer(json.dumps(found))
            except LeftOut as left:
                if left.cause != UNFIT:
                    raise
                answer = Answer("", left.cause, left.detail)
            answer = self._answers.put(key, answer)
        if answer.fault:
            raise LeftOut(answer.fault, answer.detail, again=True)
        return [Found(tuple(box), phrase, score) for box, phrase, score in json.loads(answer.content)]


@asynccontextmanager
async def detection(detector: Detector, answers: Answers) -> AsyncIterator[Detection]:
    """Open a detector.

    Args:
        detector: its settings.
        answers: where they are kept.

    Raises:
        ValueError: neither a model nor a url is named, or a package is missing.
    """
    if not (detector.model or detector.url):
        raise ValueError("curate: detector.model or detector.url must name a detector, got neither")
    if detector.url:
        backend: Backend = _Server(detector)
    else:
        from fgclip_fast.curate.models.zero_shot import ZeroShot  # here, since it imports torch and transformers

        backend = ZeroShot(detector.model, detector.device, detector.batch)
    try:
        yield Detection(detector, backend, answers)
    finally:
        await backend.close()


class _Box(BaseModel):
    box: tuple[float, float, float, float]
    phrase: int
    score: float


class _Boxes(BaseModel):
    boxes: list[_Box]


class _Server:
    """A detector behind HTTP."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._client = open_client(detector.url, detector.key, detector.timeout, detector.retries)
        self._calls = Calls(detector.concurrency, detector.url)

    async def boxes(self, image: bytes, phrases: Sequence[str]) -> list[Found]:
        """Ask the server."""
        encoded, _ = await asyncio.to_thread(sendable, image, self._detector.image_side)
        question = {
            "model": self._detector.model, "image": base64.b64encode(encoded).decode(), "phrases": list(phrases)
        }  # fmt: skip
        reply = await self._calls.call(lambda: self._client.post("/detect", body=question, cast_to=object))
        try:
            found = [Found(*vars(box).values()) for box in _Boxes.model_validate(reply).boxes]
        except ValidationError as error:
            raise LeftOut(UNFIT, error.errors()[0]["msg"], again=True) from None
        wrong = next((box for box in found if not 0 <= box.phrase < len(phrases)), None)
        if wrong is not None:
            raise LeftOut(UNFIT, f"phrase {wrong.phrase} of {len(phrases)}", again=True)
        return found

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()
