"""Zero-shot detectors of transformers in this process, in batches: Grounding DINO, OWLv2 and their like."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fgclip_fast.curate.models.found import Found
from fgclip_fast.curate.models.pixels import upright
from fgclip_fast.preflight import device as device_of

_FLOOR = 0.05  # least score that is kept


class _Asked(NamedTuple):
    image: Any
    phrases: list[str]
    answer: "asyncio.Future[list[Found]]"


class ZeroShot:
    """A detector that takes the images that wait, up to a batch, in one pass.

    Args:
        model: name or folder of a model.
        device: auto, cpu, cuda or cuda:0.
        batch: images in one pass, at most.

    Raises:
        ValueError: transformers is not installed, or the model is no zero-shot detector.
    """

    def __init__(self, model: str, device: str, batch: int) -> None:
        try:
            from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
        except ModuleNotFoundError:
            raise ValueError(
                "curate: a detector in this process needs transformers; pip install 'fgclip_fast[detect]'"
            ) from None
        self._device, self._batch = device_of(device), batch
        try:
            self._processor = AutoProcessor.from_pretrained(model)
            self._model = AutoModelForZeroShotObjectDetection.from_pretrained(model).to(self._device).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"curate: detector.model must be a zero-shot detector, got {model}: {error}") from None
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    async def boxes(self, image: bytes, phrases: Sequence[str]) -> list[Found]:
        """Find boxes for phrases in an image file."""
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        pixels = await asyncio.to_thread(upright, image)
        asked = _Asked(pixels, list(phrases), asyncio.get_running_loop().create_future())
        await self._waiting.put(asked)
        return await asked.answer

    async def close(self) -> None:
        """End the task that runs the model."""
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        while True:
            asked = [await self._waiting.get()]
            while len(asked) < self._batch and not self._waiting.empty():
                asked.append(self._waiting.get_nowait())
            try:
                images, phrases = [one.image for one in asked], [one.phrases for one in asked]
                found = await asyncio.to_thread(self._found, images, phrases)
            except Exception as error:  # those who wait must hear of it
                for one in asked:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            for one, boxes in zip(asked, found, strict=True):
                if not one.answer.done():
                    one.answer.set_result(boxes)

    @torch.inference_mode()
    def _found(self, images: list[Any], phrases: list[list[str]]) -> list[list[Found]]:
        if hasattr(self._model.config, "text_config") and "grounding" in self._model.config.model_type:
            return self._grounded(images, phrases)
        inputs = self._processor(images=images, text=phrases, return_tensors="pt", padding=True).to(self._device)
        sizes = torch.tensor([[image.height, image.width] for image in images])
        outputs = self._model(**inputs)
        for logits, texts in zip(outputs.logits, phrases, strict=True):
            logits[:, len(texts) :] = -torch.inf  # queries that only fill up the batch
        results = self._processor.post_process_grounded_object_detection(outputs, threshold=_FLOOR, target_sizes=sizes)
        return [_listed(one, image) for one, image in zip(results, images, strict=True)]

    def _grounded(self, images: list[Any], phrases: list[list[str]]) -> list[list[Found]]:
        """Grounding DINO scores tokens: a phrase has the score of its best token, a box the phrase of the best."""
        texts = [" . ".join(one).lower() + " ." for one in phrases]
        inputs = self._processor(images=images, text=texts, return_tensors="pt", padding=True).to(self._device)
        outputs = self._model(**inputs)
        scores, boxes = outputs.logits.sigmoid().cpu(), outputs.pred_boxes.cpu()
        return [
            self._of_tokens(scores[i], boxes[i], one, inputs["input_ids"][i].tolist()) for i, one in enumerate(phrases)
        ]

    def _of_tokens(self, scores: Any, boxes: Any, phrases: list[str], tokens: list[int]) -> list[Found]:
        owner = _owners(tokens, self._processor.tokenizer, len(phrases))
        of_phrase = torch.stack(
            [
                scores[:, mask].amax(1) if (mask := _mask(owner, number, scores.shape[1])).any() else scores[:, 0] * 0
                for number in range(len(phrases))
            ],
            dim=1,
        )
        best, phrase = of_phrase.max(1)
        kept = best > _FLOOR
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
        lists = (part[kept].tolist() for part in (corners, phrase, best))
        return [Found(tuple(box), label, score) for box, label, score in zip(*lists, strict=True)]


def _listed(result: Any, image: Any) -> list[Found]:
    """The boxes of a result of transformers."""
    lists = (result[name].tolist() for name in ("boxes", "labels", "scores"))
    return [Found(_fractions(box, image), label, score) for box, label, score in zip(*lists, strict=True)]


def _owners(tokens: Sequence[int], tokenizer: Any, phrases: int) -> list[int]:
    """The number of the phrase that each token belongs to, -1 for marks; phrases end with a dot."""
    dot, special = tokenizer.convert_tokens_to_ids("."), set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    owners, number = [], 0
    for token in tokens:
        is_mark = token == dot or token in special
        owners.append(-1 if is_mark or number >= phrases else number)
        number += token == dot
    return owners


def _mask(owner: Sequence[int], number: int, width: int) -> Any:
    mask = torch.zeros(width, dtype=torch.bool)
    mask[: len(owner)] = torch.tensor([one == number for one in owner])[:width]
    return mask


def _fractions(box: Sequence[float], image: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0 / image.width, y0 / image.height, x1 / image.width, y1 / image.height
