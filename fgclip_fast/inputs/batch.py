"""A batch: the tensors that a model takes in one step, nothing padded."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fgclip_fast.config.model import Packing
from fgclip_fast.inputs.texts import Texts, join
from fgclip_fast.inputs.tokenizer import Tokens
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH


class Example(NamedTuple):
    """A decoded image with the texts and boxes chosen for one visit."""

    image: Tensor
    """uint8 [3, S, S]."""
    short: str
    """Short caption, with its prefix."""
    long: str
    """Long caption."""
    boxes: Tensor
    """fp32 [n, 4], xyxy, fractions of the image."""
    region_texts: list[str]
    """The text of each box."""
    hard_texts: list[list[str]]
    """The group of each box, the positive and then its negatives; empty without negatives."""


class Batch(NamedTuple):
    """B images with R regions, of which H have negatives; short-path rows of text come first, B long ones last."""

    image: Tensor
    """uint8 [B, 3, S, S]."""
    texts: Texts
    """B short captions, R region texts, Mh hard texts; B long captions on the long path."""
    boxes: Tensor
    """fp32 [R, 4], normalised xyxy."""
    image_index: Tensor
    """int64 [R]: the image of each box, rising."""
    hard_region: Tensor
    """int64 [H]: the regions that have negatives, rising."""
    hard_offsets: Tensor
    """int64 [H + 1]: where each one's texts begin among the Mh hard rows; a positive, then its negatives."""
    text_ids: Tensor
    """int64 [M]: equal ids are equal texts, in other processes too."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Copy the batch to a device."""
        moved: Batch = replace_leaves(self, Tensor, lambda x: x.to(device, non_blocking=non_blocking))
        return moved

    def pin_memory(self) -> "Batch":
        """Copy the batch to page-locked memory, from which a GPU can copy while it computes."""
        pinned: Batch = replace_leaves(self, Tensor, Tensor.pin_memory)
        return pinned


class Tokenize(Protocol):
    """The call of a tokenizer that :func:`make_batch` needs."""

    def __call__(self, texts: Sequence[str], max_length: int = SHORT_LENGTH) -> Tokens: ...


def make_batch(examples: Sequence[Example], tokenizer: Tokenize, packing: Packing = "none") -> Batch:
    """Stack the images, tokenise all texts, lay them end to end and pack them.

    Args:
        examples: at least one; images of equal size.
        tokenizer: texts -> flat tokens and offsets.
        packing: "prefix-tree": texts become a tree that shares their prefixes; "padding-free": a tree in which each
            stands alone; "none": no tree.

    Raises:
        ValueError: no examples.
    """
    if not examples:
        raise ValueError("make_batch: examples must hold at least one example, got none")
    groups = [group for example in examples for group in example.hard_texts]
    hard_region = [r for r, group in enumerate(groups) if group]
    texts = [example.short for example in examples]
    texts += [text for example in examples for text in example.region_texts]
    texts += [text for group in groups for text in group]
    shorts = tokenizer(texts, SHORT_LENGTH)
    longs = tokenizer([example.long for example in examples], LONG_LENGTH)
    joined = join(shorts, longs)
    counts = torch.tensor([len(example.boxes) for example in examples])
    return Batch(
        image=torch.stack([example.image for example in examples]),
        texts=joined.packed(packing),
        boxes=torch.cat([example.boxes for example in examples]),
        image_index=torch.repeat_interleave(torch.arange(len(examples)), counts),
        hard_region=torch.tensor(hard_region, dtype=torch.int64),
        hard_offsets=_offsets([len(groups[r]) for r in hard_region]),
        text_ids=_text_ids(joined.token, joined.offsets),
    )


def _offsets(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts], dtype=torch.int64).cumsum(0)


def _text_ids(token: Tensor, offsets: Tensor) -> Tensor:
    """int64 [M]: 63 bits of a digest of each row, the same in every process."""
    raw, starts = token.numpy().tobytes(), (4 * offsets).tolist()
    digests = [hashlib.blake2b(raw[a:b], digest_size=8).digest() for a, b in pairwise(starts)]
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.int64) & (2**63 - 1)


def replace_leaves(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Copy nested tuples and lists, with ``change`` applied to each value of type ``kind``."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple):
        parts = [replace_leaves(part, kind, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return [replace_leaves(part, kind, change) for part in value] if isinstance(value, list) else value
