"""The figures that FG-CLIP's authors published, for a model of that size asked by that protocol.

Sources: arXiv 2505.05071, and the tables of FG-CLIP 2's paper, which restate them. None of these rows was computed
here; a row counts as reproduced once a user's weights give it to a tenth of a point.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fgclip_fast.config.model import Model
from fgclip_fast.evaluation.figures import Figures

SOURCE = "arXiv 2505.05071"
TENTH = 0.001
"""A share is reproduced if it differs by no more: the published ones are rounded to a tenth of a point."""


class _Protocol(NamedTuple):
    """A published column: the suite's name and protocol, the items asked where known, and the figures of a row."""

    suite: str
    protocol: str
    asked: int | None
    figures: tuple[str, ...]


_RETRIEVAL = ("image_to_text_r@1", "text_to_image_r@1")
_TEMPLATES = "OpenAI's 80 templates, short text path"
_PROTOCOLS = (
    _Protocol(r"fg-ovd/(h|1)_attributes(_llava)?", "FG-OVD as in FG-CLIP's script", 3545, ("top1",)),
    _Protocol(r"fg-ovd/(m|2)_attributes(_llava)?", "FG-OVD as in FG-CLIP's script", 2968, ("top1",)),
    _Protocol(r"fg-ovd/(e|3)_attributes(_llava)?", "FG-OVD as in FG-CLIP's script", 1299, ("top1",)),
    _Protocol(r"fg-ovd/shuffle_negatives(_llava)?", "FG-OVD as in FG-CLIP's script", 3545, ("top1",)),
    _Protocol("boxes/coco", f"coco boxes, crowds included: given boxes, 80 classes, {_TEMPLATES}", None, ("top1",)),
    _Protocol("boxes/lvis", f"lvis boxes, images of val2017: given boxes, 1203 classes, {_TEMPLATES}", None, ("top1",)),
    _Protocol(
        "retrieval/sharegpt4v-1k", "sharegpt4v-1k: first 1000 records of the file, long text path", 1000, _RETRIEVAL
    ),
    _Protocol("retrieval/dci", "dci, all images: extra_caption, long text path", None, _RETRIEVAL),
    _Protocol(
        "retrieval/coco", "coco captions, all images of the file: first 5 captions, short text path", 5000, _RETRIEVAL
    ),
    _Protocol("retrieval/flickr30k", "", 1000, _RETRIEVAL),
    _Protocol("zero-shot/imagenet-1k", f"all images, 1000 classes, {_TEMPLATES}", 50_000, ("top1",)),
    _Protocol("zero-shot/imagenet-v2", f"all images, 1000 classes, {_TEMPLATES}", 10_000, ("top1",)),
)
# One number or pair for each protocol above, in percent.
_ROWS: Mapping[str, tuple[float | tuple[float, float], ...]] = {
    "CLIP B/16": (
        12.0, 23.1, 22.2, 58.5, 44.2, 20.9, (78.2, 79.6), (45.5, 43.0), (51.8, 32.7), (82.2, 62.1), 68.4, 61.9,
    ),
    "FG-CLIP B/16": (
        46.1, 66.6, 68.7, 83.4, 52.3, 28.6, (96.7, 94.9), (61.8, 60.6), (64.1, 45.4), (90.7, 76.4), 69.0, 61.8,
    ),
    "CLIP L/14-336": (
        15.4, 25.3, 25.7, 38.8, 33.8, 9.3, (86.5, 83.6), (37.2, 36.4), (58.0, 37.1), (87.4, 67.3), 76.6, 70.9,
    ),
    "FG-CLIP L/14-336": (
        48.4, 69.5, 71.2, 89.7, 63.2, 38.3, (97.4, 96.8), (66.7, 66.1), (68.9, 50.9), (93.7, 81.5), 76.1, 69.0,
    ),
}  # fmt: skip
# Image size, patch size, width and layers of the vision tower.
_SIZES = {(224, 16, 768, 12): "B/16", (336, 14, 1024, 24): "L/14-336"}


def beside(found: Mapping[str, Figures], config: Model, *, plain: bool, limit: int | None) -> dict[str, dict[str, Any]]:
    """Find the published figures of a model of the same size and resolution by the same protocol on the same questions.

    Args:
        found: name → figures.
        config: geometry of the model.
        plain: whether it is a CLIP rather than an FG-CLIP.
        limit: questions that were asked at most; with a limit nothing is comparable.

    Returns:
        name → ``{"model", "source", "figures": {figure: share}, "reproduced": {figure: bool}}``, for those that have
        a published row.
    """
    vision = config.vision
    size = _SIZES.get((vision.image_size, vision.patch_size, vision.width, vision.layers))
    if size is None or limit is not None:
        return {}
    row = f"{'CLIP' if plain else 'FG-CLIP'} {size}"
    rows: dict[str, dict[str, Any]] = {}
    for name, figures in found.items():
        for column, published in zip(_PROTOCOLS, _ROWS[row], strict=True):
            if _fits(name, figures, column):
                values = published if isinstance(published, tuple) else (published,)
                shares = {figure: value / 100 for figure, value in zip(column.figures, values, strict=True)}
                same = {figure: abs(share - figures.values[figure]) <= TENTH for figure, share in shares.items()}
                rows[name] = {"model": row, "source": SOURCE, "figures": shares, "reproduced": same}
    return rows


def _fits(name: str, figures: Figures, column: _Protocol) -> bool:
    """True if questions and way of asking are the published ones, as far as they are known, and none is lost."""
    return (
        re.fullmatch(column.suite, name) is not None
        and column.protocol in figures.protocol
        and column.asked in (None, figures.asked)
        and not figures.skipped
        and not str(figures.data.get("file", "")).endswith(".token")
    )
