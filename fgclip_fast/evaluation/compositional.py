"""Compositional suites: the right caption of an image against one of the same words or with one of them changed.

SugarCrepe (arXiv 2306.14610), ARO's relations and attributes (arXiv 2210.01936) and Winoground (arXiv 2204.03162), by
the short text path, without a prompt. The right one must be strictly nearer, so a tie is wrong. ARO's images are cut to
their box first; its published figure is the mean over relations, or pairs of attributes, with 25 cases and more.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgclip_fast.evaluation.asking import MISSING, Alone, Crop, Exam, Options, Picture, whole
from fgclip_fast.evaluation.embedding import embed_texts
from fgclip_fast.evaluation.figures import Figures, by_image, counted, origin
from fgclip_fast.evaluation.metrics import interval
from fgclip_fast.evaluation.pictures import Pictures, around
from fgclip_fast.inputs.boxes import corners
from fgclip_fast.model.fgclip import FGCLIP

ENOUGH = 25
"""Cases that a relation or a pair of attributes of ARO needs to count in the mean."""


class Case(NamedTuple):
    """Images and captions that belong together, by their order: one image and two captions, or two of each."""

    kind: str
    images: tuple[Picture, ...]
    texts: tuple[str, str]


class Cases(NamedTuple):
    """The cases of a benchmark."""

    protocol: str
    cases: list[Case]


def exam(model: FGCLIP, path: Path, options: Options) -> Exam:
    """How often the right caption is nearer, in all and by kind of change.

    Args:
        model: the model, on its device.
        path: a file of SugarCrepe, ARO or Winoground, or the folder of SugarCrepe's files.
        options: ``limit`` counts cases.

    Raises:
        ValueError: the content has no known layout.
        OSError: a file or folder does not exist or cannot be read.
    """
    skipped: Counter[str] = Counter()
    files = around(path, options.images, options.root)
    found = read(path, files, skipped)
    cases = list(islice(found.cases, options.limit))
    texts = sorted({text for case in cases for text in case.texts})
    rows = embed_texts(model, texts, "short", options)

    def figures(answers: dict[Picture, Tensor]) -> Figures:
        measured = _figures(cases, answers, dict(zip(texts, rows, strict=True)), skipped)
        protocol = f"{found.protocol}, strictly nearer, short text path"
        return replace(measured, protocol=protocol, data=origin(path, files))

    pictures = {picture: () for case in cases for picture in case.images}
    return Exam(pictures=pictures, answer=whole, figures=figures)


evaluate = Alone(exam, ("images",))
"""Evaluate a model by this suite alone."""


def read(path: Path, files: Pictures, skipped: Counter[str]) -> Cases:
    """Read the cases of a file, or of a folder's JSON files; arguments and errors are those of :func:`exam`."""
    sources = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not sources:
        raise ValueError(f"data: {path} must hold JSON files of cases, it has none")
    cases: list[Case] = []
    protocols: set[str] = set()
    for source in sources:
        for record in _records(source):
            protocol, case = _case(source, record, files, skipped)
            protocols.add(protocol)
            cases += [case] if case is not None else []
    if len(protocols - {""}) != 1:
        raise ValueError(
            f"data: {path} must hold cases of SugarCrepe (negative_caption), ARO (false_caption) or Winoground "
            f"(caption_0), one of them, got {', '.join(sorted(protocols - {''})) or 'neither'}"
        )
    return Cases(max(protocols), cases)


def _records(source: Path) -> list[Any]:
    text = source.read_text(encoding="utf-8")
    try:
        whole = json.loads(text)
    except ValueError:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise ValueError(f"data: {source} must be JSON or JSON lines: {error}") from None
    if isinstance(whole, dict) and "caption_0" not in whole:
        return list(whole.values())
    return whole if isinstance(whole, list) else [whole]


def _case(source: Path, record: Any, files: Pictures, skipped: Counter[str]) -> tuple[str, Case | None]:
    """The protocol, and the case; None, and one more in the counts, if it cannot be asked."""
    protocol = ""
    try:
        if "negative_caption" in record:
            protocol, kind, names = "sugarcrepe", source.stem, [record["filename"]]
            texts = record["caption"], record["negative_caption"]
        elif "false_caption" in record:
            protocol, names = "aro, images cut to their box", [record["image_path"]]
            kind = record.get("relation_name") or ", ".join(record.get("attributes", ()))
            texts = record["true_caption"], record["false_caption"]
        else:
            texts, names = (record["caption_0"], record["caption_1"]), [record["image_0"], record["image_1"]]
            protocol, kind = "winoground", record.get("collapsed_tag") or "all"
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise TypeError
        places = [files.find(name) or files.find(f"{name}.png") for name in names]
        crop = _crop(record)
    except (KeyError, TypeError, ValueError, AttributeError):
        skipped["malformed case"] += 1
        return protocol, None
    found = [place for place in places if place is not None]
    if len(found) < len(places):
        skipped[MISSING] += 1
        return protocol, None
    return protocol, Case(str(kind), tuple(Crop(p, crop) if crop else p for p in found), texts)


def _crop(record: dict[str, Any]) -> tuple[int, int, int, int] | None:
    if "bbox_x" not in record:
        return None
    x1, y1, x2, y2 = (int(side) for side in corners([record[f"bbox_{side}"] for side in "xywh"]))
    if x2 <= x1 or y2 <= y1:
        raise ValueError("empty box")
    return x1, y1, x2, y2


def _figures(
    cases: Sequence[Case], seen: Mapping[Picture, Tensor], texts: Mapping[str, Tensor], skipped: Counter[str]
) -> Figures:
    answers: list[tuple[Case, dict[str, bool]]] = []
    for case in cases:
        if all(picture in seen for picture in case.images):
            images, captions = (
                torch.stack(x) for x in ([seen[p] for p in case.images], [texts[t] for t in case.texts])
            )
            answers.append((case, _scores(images @ captions.T)))
        else:
            skipped[MISSING] += 1
    asked = len(answers)
    causes = counted(skipped)
    values: dict[str, Any] = {}
    outcomes: dict[str, dict[str, tuple[int, int]]] = {}
    for score in answers[0][1] if answers else ("top1",):
        right = sum(own[score] for _, own in answers)
        kinds = Counter(case.kind for case, _ in answers)
        good = Counter(case.kind for case, own in answers if own[score])
        values[score] = right / asked if asked else math.nan
        values[f"{score}_interval" if score != "top1" else "interval"] = list(interval(right, asked))
        values |= {f"{score} {kind}": good[kind] / kinds[kind] for kind in sorted(kinds) if 1 < len(kinds) <= 12}
        if enough := [kind for kind in sorted(kinds) if kinds[kind] >= ENOUGH]:
            values[f"{score}_mean_of_kinds"] = math.fsum(good[k] / kinds[k] for k in enough) / len(enough)
        values[f"{score}_by_kind"] = {kind: good[kind] / kinds[kind] for kind in sorted(kinds)}
        shown = [case.images[0] for case, _ in answers]
        outcomes[score] = by_image(shown, [own[score] for _, own in answers], [1] * asked)
    values |= {"chance": _CHANCE["group" in values], "questions": asked, "skipped": causes}
    return Figures(values=values, asked=asked, skipped=causes, outcomes=outcomes)


_CHANCE: dict[bool, Any] = {False: 0.5, True: {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}}


def _scores(similarity: Tensor) -> dict[str, bool]:
    """Score one case: Tensor[1, 2], the right caption first, or Tensor[2, 2], right on the diagonal."""
    s = similarity.tolist()
    if len(s) == 1:
        return {"top1": s[0][0] > s[0][1]}
    text = s[0][0] > s[0][1] and s[1][1] > s[1][0]
    image = s[0][0] > s[1][0] and s[1][1] > s[0][1]
    return {"text": text, "image": image, "group": text and image}
