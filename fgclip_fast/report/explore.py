"""Data for the page's phrase search: fp16 embeddings of images, boxes and phrases, so that no server is needed."""

import base64
import io
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fgclip_fast.evaluation.views import View, brightest_patch, contains
from fgclip_fast.inputs.image import rgb
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.html import data_uri
from fgclip_fast.scenes.grammar import ATTRIBUTES, Thing, phrase

BUDGET = 2_100_000
"""Bytes of embeddings in one page, before base64 turns 3 bytes into 4 characters."""
MAX_PHRASES = 400
"""Phrases of a user's own data that the page offers, at most."""
SIDE = 288
"""Longest side of an image in the page, pixels."""


class Phrases(NamedTuple):
    """Phrases that a reader of the page can choose: all of a grammar, in the order of its menus, or a list."""

    texts: list[str]
    menus: dict[str, tuple[str, ...]] | None = None

    def words(self, text: str) -> list[int] | None:
        """The index of the phrase's word in each menu; None if a menu has no word of it, or without menus."""
        if self.menus is None:
            return None
        words = text.split()
        found = [next((i for i, word in enumerate(menu) if word in words), -1) for menu in self.menus.values()]
        return None if -1 in found else found


class PointingGame(NamedTuple):
    """Count of images in which the patch nearest to a phrase lies in the phrase's box (the "pointing game").

    Attributes:
        hits: images in which the centre of the patch with the highest cosine lies in the box.
        total: images.
        blind: expected hits of a patch chosen at random.
    """

    hits: int
    total: int
    blind: float


def grammar_phrases() -> Phrases:
    """All phrases of the embedded set's grammar."""
    return Phrases([phrase(Thing(*words)) for words in itertools.product(*ATTRIBUTES.values())], dict(ATTRIBUTES))


def own_phrases(views: Sequence[View]) -> Phrases:
    """The right texts of the images' boxes, or their captions if they have no boxes; each phrase once."""
    texts = [question.texts[0] for view in views for question in view.image.questions]
    texts = texts or [view.image.caption for view in views]
    return Phrases(list(dict.fromkeys(texts))[:MAX_PHRASES])


@torch.inference_mode()
def embed(model: FGCLIP, phrases: Phrases, batch_size: int = 512) -> Tensor:
    """Embed phrases: Tensor[P, D], fp32, unit rows, on the CPU."""
    starts = range(0, len(phrases.texts), batch_size)
    parts = [model.encode_text(phrases.texts[i : i + batch_size]).float().cpu() for i in starts]
    return F.normalize(torch.cat(parts), dim=-1)


def payload(views: Sequence[View], phrases: Phrases, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The data that the page's script reads.

    Args:
        views: the images; one run's views of them will do.
        phrases: the phrases to choose from.
        runs: :func:`embeddings` of each run.
    """
    return {
        "menus": phrases.menus and {name: list(words) for name, words in phrases.menus.items()},
        "phrases": None if phrases.menus else phrases.texts,
        "images": [_image(view, phrases) for view in views],
        "runs": list(runs),
    }


def embeddings(name: str, model: FGCLIP, views: Sequence[View], texts: Tensor, budget: int = BUDGET) -> dict[str, Any]:
    """Encode one run's embeddings for the page, with fewer dimensions if all would exceed the budget.

    The dimensions that are kept are the principal directions of the phrases.

    Args:
        name: name of the run.
        model: the run's model, for its logit scale.
        views: the model's views of the page's images.
        texts: Tensor[P, D], embeddings of the phrases, unit rows.
        budget: bytes, at most.
    """
    patches, regions = torch.stack([v.patches for v in views]), torch.cat([v.regions for v in views])
    rows = texts.shape[0] + patches.shape[0] * patches.shape[1] + len(regions)
    width = min(texts.shape[1], max(8, budget // (2 * rows)))
    basis, kept = principal(texts, width)
    coded = {"patches": _coded(patches @ basis), "regions": _coded(regions @ basis), "texts": _coded(texts @ basis)}
    grid = round(patches.shape[1] ** 0.5)
    scale = model.logit_scale_finegraind.exp().item()
    return {"name": name, "width": width, "of": texts.shape[1], "kept": kept, "grid": grid, "scale": scale, **coded}


def principal(texts: Tensor, width: int) -> tuple[Tensor, float]:
    """Find the ``width`` directions that hold most of the phrases' squared length.

    A cosine with a phrase is a sum over these directions; with all D of them it is exact.

    Args:
        texts: Tensor[P, D], unit rows.
        width: number of directions.

    Returns:
        Tensor[D, width], orthonormal columns, and the share of the squared length that they hold.
    """
    if width >= texts.shape[1]:
        return torch.eye(texts.shape[1]), 1.0
    values, directions = torch.linalg.eigh(texts.T.double() @ texts.double())  # rising
    return directions[:, -width:].float(), (values[-width:].sum() / values.sum()).item()


def point_at_phrases(views: Sequence[View], phrases: Phrases, texts: Tensor) -> PointingGame:
    """Play the pointing game with the whole phrase of one box in each image.

    Args:
        views: the images; the first box whose phrase is known is asked for.
        phrases: the known phrases.
        texts: Tensor[P, D], their embeddings, unit rows.
    """
    index = {text: i for i, text in enumerate(phrases.texts)}
    asked = []
    for view in views:
        known = [(q.box, texts[index[q.texts[0]]]) for q in view.image.questions if q.texts[0] in index]
        asked += [(view, *known[0])] if known else []
    return _play(asked)


def point_at_words(views: Sequence[View], phrases: Phrases, texts: Tensor, menu: str) -> PointingGame:
    """Play the pointing game with single words of one menu, each the mean of all phrases that contain it.

    An image takes part if one of its boxes is the only one with its word; the first such box is asked for. Arguments
    are those of :func:`point_at_phrases`.
    """
    if phrases.menus is None or menu not in phrases.menus:
        return PointingGame(0, 0, 0.0)
    at = list(phrases.menus).index(menu)
    shaped = texts.reshape(*(len(words) for words in phrases.menus.values()), -1)
    means = F.normalize(shaped.transpose(0, at).flatten(1, -2).mean(dim=1), dim=-1)
    asked = []
    for view in views:
        known = [phrases.words(question.texts[0]) for question in view.image.questions]
        words = [indices[at] if indices else -1 for indices in known]
        alone = [i for i, word in enumerate(words) if word >= 0 and words.count(word) == 1]
        asked += [(view, view.image.questions[alone[0]].box, means[words[alone[0]]])] if alone else []
    return _play(asked)


def thumbnail(encoded: bytes) -> tuple[bytes, int, int]:
    """Shrink an image for the page and drop its metadata; returns JPEG bytes, width and height."""
    image = rgb(Image.open(io.BytesIO(encoded)))
    image.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=85)
    return written.getvalue(), *image.size


def _play(asked: Sequence[tuple[View, Sequence[float], Tensor]]) -> PointingGame:
    hits = sum(contains(box, brightest_patch(view.patches, phrase)) for view, box, phrase in asked)
    blind = sum(min(1.0, (box[2] - box[0]) * (box[3] - box[1])) for _, box, _ in asked)
    return PointingGame(hits, len(asked), blind)


def _image(view: View, phrases: Phrases) -> dict[str, Any]:
    encoded, width, height = thumbnail(view.image.encoded)
    index = {text: i for i, text in enumerate(phrases.texts)}
    boxes = [
        {
            "box": [round(side, 4) for side in question.box],
            "text": question.texts[0],
            "unseen": question.unseen,
            "ask": phrases.words(question.texts[0]) if phrases.menus else index.get(question.texts[0]),
        }
        for question in view.image.questions
    ]
    name = view.image.name
    return {"name": name, "width": width, "height": height, "source": data_uri(encoded), "boxes": boxes}


def _coded(rows: Tensor) -> str:
    return base64.b64encode(rows.to(torch.float16).contiguous().numpy().tobytes()).decode()
