"""What the page needs to answer phrases by itself: embeddings of pictures, boxes and phrases, in fp16."""

import base64
import io
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fgclip_fast.evaluation.pictures import View, hottest, inside
from fgclip_fast.inputs.image import rgb
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.html import data_uri
from fgclip_fast.scenes.grammar import ATTRIBUTES, Thing, phrase

BUDGET = 2_100_000
"""Bytes of embeddings in one page, before base64 makes 4 characters of 3."""
MOST_PHRASES = 400
SIDE = 288
"""Longest side of a picture in the page, pixels."""


class Phrases(NamedTuple):
    """What can be asked: all that a grammar says, in the order of its menus, or a list."""

    texts: list[str]
    menus: dict[str, tuple[str, ...]] | None = None

    def words(self, text: str) -> list[int] | None:
        """The place in each menu of a phrase that the grammar says in full; else None."""
        if self.menus is None:
            return None
        said = text.split()
        found = [next((i for i, word in enumerate(menu) if word in said), -1) for menu in self.menus.values()]
        return None if -1 in found else found


class Rule(NamedTuple):
    """How often the hottest patch lies in the right box, of ``total`` pictures, and what a blind choice would give."""

    hits: int
    total: int
    blind: float


def grammar() -> Phrases:
    """Everything that the embedded set's grammar can say of a thing."""
    return Phrases([phrase(Thing(*words)) for words in itertools.product(*ATTRIBUTES.values())], dict(ATTRIBUTES))


def own_phrases(views: Sequence[View]) -> Phrases:
    """The right texts of a validation set's boxes; its captions where it has no boxes."""
    texts = [asked.texts[0] for view in views for asked in view.picture.asked]
    texts = texts or [view.picture.caption for view in views]
    return Phrases(list(dict.fromkeys(texts))[:MOST_PHRASES])


@torch.inference_mode()
def embed(model: FGCLIP, phrases: Phrases, batch_size: int = 512) -> Tensor:
    """Tensor[P, D], fp32, unit rows on the CPU."""
    starts = range(0, len(phrases.texts), batch_size)
    parts = [model.encode_text(phrases.texts[i : i + batch_size]).float().cpu() for i in starts]
    return F.normalize(torch.cat(parts), dim=-1)


def payload(pictures: Sequence[View], phrases: Phrases, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The page's data: pictures and phrases once, and :func:`embeddings` of each run."""
    return {
        "menus": phrases.menus and {name: list(words) for name, words in phrases.menus.items()},
        "phrases": None if phrases.menus else phrases.texts,
        "pictures": [_picture(view, phrases) for view in pictures],
        "runs": list(runs),
    }


def embeddings(name: str, model: FGCLIP, views: Sequence[View], texts: Tensor, budget: int = BUDGET) -> dict[str, Any]:
    """One run's embeddings; only the directions in which phrases differ most are kept where all would be too large.

    Args:
        name: the run's.
        model: for its scale.
        views: its views of the page's pictures.
        texts: Tensor[P, D], phrases, unit rows.
        budget: bytes.
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
    """The ``width`` directions that hold most of the phrases' squared length, Tensor[D, width], and its share.

    Cosines with phrases are sums over these directions; all of them together change nothing.
    """
    if width >= texts.shape[1]:
        return torch.eye(texts.shape[1]), 1.0
    values, directions = torch.linalg.eigh(texts.T.double() @ texts.double())  # rising
    return directions[:, -width:].float(), (values[-width:].sum() / values.sum()).item()


def whole_phrase(views: Sequence[View], phrases: Phrases, texts: Tensor) -> Rule:
    """Asked for one box's text in each picture: how often the hottest patch's centre lies in that box."""
    index = {text: i for i, text in enumerate(phrases.texts)}
    asked = []
    for view in views:
        known = [(a.box, texts[index[a.texts[0]]]) for a in view.picture.asked if a.texts[0] in index]
        asked += [(view, *known[0])] if known else []
    return _count(asked)


def word_alone(views: Sequence[View], phrases: Phrases, texts: Tensor, menu: str) -> Rule:
    """The same for one word, as the mean of all phrases with it, of a box that alone in its picture has that word."""
    if phrases.menus is None or menu not in phrases.menus:
        return Rule(0, 0, 0.0)
    at = list(phrases.menus).index(menu)
    shaped = texts.reshape(*(len(words) for words in phrases.menus.values()), -1)
    means = F.normalize(shaped.transpose(0, at).flatten(1, -2).mean(dim=1), dim=-1)
    asked = []
    for view in views:
        said = [phrases.words(a.texts[0]) for a in view.picture.asked]
        words = [w[at] if w else -1 for w in said]
        alone = [i for i, word in enumerate(words) if word >= 0 and words.count(word) == 1]
        asked += [(view, view.picture.asked[alone[0]].box, means[words[alone[0]]])] if alone else []
    return _count(asked)


def shown(encoded: bytes) -> tuple[bytes, int, int]:
    """A picture as the page carries it: small, and without what cameras write beside the pixels."""
    image = rgb(Image.open(io.BytesIO(encoded)))
    image.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=85)
    return written.getvalue(), *image.size


def _count(asked: Sequence[tuple[View, Sequence[float], Tensor]]) -> Rule:
    hits = sum(inside(hottest(view.patches, phrase), box) for view, box, phrase in asked)
    blind = sum(min(1.0, (box[2] - box[0]) * (box[3] - box[1])) for _, box, _ in asked)
    return Rule(hits, len(asked), blind)


def _picture(view: View, phrases: Phrases) -> dict[str, Any]:
    encoded, width, height = shown(view.picture.encoded)
    index = {text: i for i, text in enumerate(phrases.texts)}
    boxes = [
        {
            "box": [round(side, 4) for side in asked.box],
            "text": asked.texts[0],
            "unseen": asked.unseen,
            "ask": phrases.words(asked.texts[0]) if phrases.menus else index.get(asked.texts[0]),
        }
        for asked in view.picture.asked
    ]
    name = view.picture.name
    return {"name": name, "width": width, "height": height, "source": data_uri(encoded), "boxes": boxes}


def _coded(rows: Tensor) -> str:
    return base64.b64encode(rows.to(torch.float16).contiguous().numpy().tobytes()).decode()
