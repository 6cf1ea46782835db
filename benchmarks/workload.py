"""A stage-2 batch with the shape of FineHARD's and FG-OVD's texts, as ours and as the released code would see it.

Only the shape of texts costs time, so tokens are drawn: phrases as long as those of FG-OVD's hard kind, negatives that
differ from their positive from a random word on, and long captions of about 110 tokens.
"""

import random

import torch
from torch import Tensor

from benchmarks.released_inputs import SLOTS, Inputs
from fgclip_fast.config.model import Model
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.inputs.image import normalize
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.inputs.tokenizer import BOS
from fgclip_fast.ops.tree import EOS

NEGATIVES = 10
WORDS = range(300, 20000)

Row = list[int]


def stage2(model: Model, regions: list[int], hard: list[int], seed: int = 0) -> tuple[Batch, Inputs]:
    """One batch, twice: of each image ``regions[i]`` boxes, of which the first ``hard[i]`` have ten negatives."""
    draw = random.Random(seed)
    B, size = len(regions), model.vision.image_size
    image = torch.randint(0, 256, (B, 3, size, size), generator=torch.Generator().manual_seed(seed)).byte()
    boxes = [[_box(draw) for _ in range(count)] for count in regions]
    shorts = [random_text(draw, 20) for _ in range(B)]
    box_texts = [[random_text(draw, draw.randint(11, 15)) for _ in range(count)] for count in regions]
    groups = [[group(draw) for _ in range(count)] for count in hard]
    longs = [random_text(draw, draw.randint(100, 120)) for _ in range(B)]

    hard_rows = [text for own in groups for texts in own for text in texts]
    rows = [*shorts, *(text for own in box_texts for text in own), *hard_rows]
    first_region = [sum(regions[:i]) for i in range(B)]
    ours = _batch(image, rows, longs, boxes, [first_region[i] + n for i in range(B) for n in range(hard[i])])
    released = Inputs(
        image=normalize(image),
        text_short=_padded(shorts, 77),
        text_long=_padded(longs, 248),
        box_texts=_padded([text for own in box_texts for text in _slots(own, [BOS, EOS])], 77),
        hard_texts=_padded(hard_rows, 77),
        boxes=torch.tensor([_slots(own, (0.0,) * 4) for own in boxes]),
        hard_boxes=torch.tensor([_slots(own[:count], (0.0,) * 4) for own, count in zip(boxes, hard, strict=True)]),
        box_nums=regions,
        hard_nums=hard,
    )
    return ours, released


def group(draw: random.Random, lengths: tuple[int, int] = (10, 16), replaced: int = 1) -> list[Row]:
    """A positive and ten negatives with some words replaced in each; as it stands, of FG-OVD's hard kind."""
    positive = random_text(draw, draw.randint(*lengths))
    texts = [positive]
    for _ in range(NEGATIVES):
        negative = list(positive)
        for at in draw.sample(range(1, len(positive) - 1), replaced):
            negative[at] = draw.choice(WORDS)
        texts.append(negative)
    return texts


def _batch(image: Tensor, rows: list[Row], longs: list[Row], boxes: list, hard_region: list[int]) -> Batch:
    texts = Texts(*flat([*rows, *longs]), len(rows)).packed()
    return Batch(
        image=image,
        texts=texts,
        boxes=torch.tensor([box for own in boxes for box in own]),
        image_index=torch.tensor([i for i, own in enumerate(boxes) for _ in own]),
        hard_region=torch.tensor(hard_region),
        hard_offsets=torch.arange(0, (1 + NEGATIVES) * len(hard_region) + 1, 1 + NEGATIVES),
        text_ids=torch.arange(len(texts.offsets) - 1),
    )


def flat(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """int32 [T], all rows end to end, and int64 [M + 1], where each begins."""
    token = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    return token, torch.tensor([0, *map(len, rows)]).cumsum(0)


def random_text(draw: random.Random, length: int) -> Row:
    """Of random words, ``length`` tokens with BOS and EOS."""
    return [BOS, *draw.choices(WORDS, k=length - 2), EOS]


def _box(draw: random.Random) -> tuple[float, ...]:
    x, y = draw.uniform(0, 0.6), draw.uniform(0, 0.6)
    return x, y, x + draw.uniform(0.1, 0.4), y + draw.uniform(0.1, 0.4)


def _slots(own: list, empty) -> list:
    return [*own, *[empty] * (SLOTS - len(own))]


def _padded(rows: list[Row], length: int) -> Tensor:
    return torch.tensor([row + [EOS] * (length - len(row)) for row in rows])
