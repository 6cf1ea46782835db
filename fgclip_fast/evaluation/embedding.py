"""Embed texts once each, in parts that several processes divide among them."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.evaluation import text_rows
from fgclip_fast.evaluation.asking import Options
from fgclip_fast.evaluation.share import PART, parts_of
from fgclip_fast.model.fgclip import FGCLIP, Kind

TEXTS = 2048
"""Texts of a part."""


def embed_texts(model: FGCLIP, texts: Sequence[str], kind: Kind, options: Options) -> Tensor:
    """Embed texts that were not embedded before.

    Args:
        model: the model, on its device.
        texts: best sorted, so that neighbours share their beginning and the order of a data set changes nothing.
        kind: the text path.
        options: processes, and embeddings from before.

    Returns:
        Tensor[N, D], fp32 unit rows on the CPU, in the first process; Tensor[0, 0] in the others.
    """

    def embed(rows: Sequence[int]) -> Tensor:
        return _unit(model.encode_text([texts[row] for row in rows], kind=kind))

    keys = [text_rows.key(kind, text) for text in texts]
    _embed_missing(keys, embed, TEXTS, options, "texts")
    return options.texts.rows(keys) if options.share.first else torch.empty(0, 0)


def class_vectors(model: FGCLIP, names: Sequence[str], templates: Sequence[str], options: Options) -> Tensor:
    """Embed classes: for each, the unit mean of the unit embeddings of its name in every template.

    Args:
        model: the model, on its device.
        names: of the classes.
        templates: texts with ``{}`` in the place of the name.
        options: processes, and embeddings from before.

    Returns:
        Tensor[C, D], fp32 unit rows on the CPU, in every process.
    """
    texts = [[template.replace("{}", name) for template in templates] for name in names]

    def embed(rows: Sequence[int]) -> Tensor:
        own = _unit(model.encode_text([text for row in rows for text in texts[row]], kind="short"))
        return F.normalize(own.unflatten(0, (len(rows), len(templates))).mean(dim=1), dim=-1)

    keys = [text_rows.key("class", *own) for own in texts]
    _embed_missing(keys, embed, PART, options, "classes")
    return options.share.tell(lambda: options.texts.rows(keys))


def _embed_missing(
    keys: Sequence[bytes], embed: Callable[[Sequence[int]], Tensor], size: int, options: Options, what: str
) -> None:
    """Embed what has no row yet. The first process decides, so parts do not depend on what others hold."""
    share, kept = options.share, options.texts
    missing: list[int] = share.tell(lambda: kept.missing(keys))

    def work(part: range) -> Tensor:
        own = missing[part.start : part.stop]
        rows = embed(own)
        kept.save([keys[row] for row in own], rows)
        return rows

    def keep(parts: list[Tensor]) -> None:
        if parts:
            kept.add([keys[row] for row in missing], torch.cat(parts))

    share.measure(parts_of(len(missing), size), work, keep, what)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1).cpu()
