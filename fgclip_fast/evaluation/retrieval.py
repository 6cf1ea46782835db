"""Retrieval: find the captions of an image among all captions, and the image of a caption among all images.

Recall@k is the share of queries with a right answer among the k nearest. An image has any number of captions, and any
of them is right. A caption that several images share is right for each of them, and each of them is right for it. An
answer that ties with the best right one counts as nearer, so a model that gives one embedding to all scores 0.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from fgclip_fast.evaluation import pairs
from fgclip_fast.evaluation.asking import MISSING, Alone, Exam, Options, Picture, whole
from fgclip_fast.evaluation.embedding import embed_texts
from fgclip_fast.evaluation.figures import Figures, by_image, counted, origin
from fgclip_fast.evaluation.metrics import answers_before, interval
from fgclip_fast.evaluation.pictures import Pictures, around
from fgclip_fast.model.fgclip import FGCLIP

KS = (1, 5, 10)


def exam(model: FGCLIP, path: Path, options: Options) -> Exam:
    """Recall@1, 5 and 10 from images to captions and from captions to images.

    Args:
        model: the model, on its device.
        path: a file or folder that :func:`fgclip_fast.evaluation.pairs.read` knows.
        options: its ``kind`` rules the text path; ``limit`` counts images.

    Raises:
        ValueError: the content has no known layout.
        OSError: a file or folder does not exist or cannot be read.
    """
    skipped: Counter[str] = Counter()
    found = pairs.read(path, skipped)
    protocol, kind = found.protocol, options.kind or found.kind
    if kind != found.kind:
        protocol = protocol.replace(f"{found.kind} text path", f"{kind} text path (not the protocol's)")
    files = around(path, options.images, options.root)
    gallery = _gallery(found.captions, files, options.limit, skipped)
    texts = embed_texts(model, gallery.texts, kind, options)

    def figures(answers: dict[Picture, Tensor]) -> Figures:
        measured = _figures(gallery, answers, texts, skipped)
        data = {**origin(path, files), "images": len(found.captions)}
        return replace(measured, protocol=protocol, data=data)

    return Exam(pictures={image: () for image in gallery.images}, answer=whole, figures=figures)


evaluate = Alone(exam, ("images", "kind"))
"""Evaluate a model by this suite alone."""


@dataclass(frozen=True)
class _Gallery:
    """Images and captions, each once and sorted.

    Attributes:
        images: files.
        texts: captions.
        captions: for each image, the rows of its captions; one that it has twice stands there twice.
    """

    images: list[Path]
    texts: list[str]
    captions: list[list[int]]


def _gallery(captions: dict[str, list[str]], files: Pictures, limit: int | None, skipped: Counter[str]) -> _Gallery:
    by_path: dict[Path, list[str]] = {}
    for name, texts in islice(captions.items(), limit):
        path = files.find(name)
        if path is None:
            skipped[MISSING] += 1
        else:
            by_path.setdefault(path, []).extend(texts)
    texts = sorted({text for own in by_path.values() for text in own})
    row = {text: number for number, text in enumerate(texts)}
    images = sorted(by_path, key=str)
    return _Gallery(images, texts, [[row[text] for text in by_path[image]] for image in images])


def _figures(gallery: _Gallery, images: Mapping[Picture, Tensor], texts: Tensor, skipped: Counter[str]) -> Figures:
    good = [number for number, image in enumerate(gallery.images) if image in images]
    skipped[MISSING] += len(gallery.images) - len(good)
    captions = [gallery.captions[i] for i in good]
    owners: dict[int, list[int]] = {}
    for number, own in enumerate(captions):
        for text in own:
            owners.setdefault(text, []).append(number)
    asked = sorted(owners)
    place = {text: number for number, text in enumerate(asked)}
    copies = torch.tensor([len(owners[text]) for text in asked])
    # Without a readable image there is neither a row nor a query.
    image = torch.stack([images[gallery.images[i]] for i in good]) if good else torch.empty(0, 0)
    caption = texts[asked] if good else torch.empty(0, 0)
    texts_before = answers_before(image, caption, [sorted({place[t] for t in own}) for own in captions], copies)
    images_before = answers_before(caption, image, [sorted(set(owners[t])) for t in asked])
    names = [gallery.images[i].name for i in good]
    values: dict[str, object] = {"images": len(good), "captions": int(copies.sum())}
    outcomes: dict[str, dict[str, tuple[int, int]]] = {}
    for k in KS:
        hits = (texts_before < k).int().tolist()
        found = (images_before < k).int().tolist()
        by_caption = [sum(found[place[t]] for t in own) for own in captions]
        ways = {"image_to_text": (hits, [1] * len(hits)), "text_to_image": (by_caption, list(map(len, captions)))}
        for way, (right, questions) in ways.items():
            total = sum(questions)
            values[f"{way}_r@{k}"] = sum(right) / total if total else math.nan
            if k == 1:
                values[f"{way}_r@1_interval"] = list(interval(sum(right), total))
            outcomes[f"{way}_r@{k}"] = by_image(names, right, questions)
    causes = counted(skipped)
    return Figures(values={**values, "skipped": causes}, asked=len(good), skipped=causes, outcomes=outcomes)
