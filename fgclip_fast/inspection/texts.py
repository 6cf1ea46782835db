"""Signs of texts that went wrong on their way: another encoding, another tokenizer's marks, negatives that hold."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ftfy.badness import is_bad

from fgclip_fast.data.causes import EQUAL_NEGATIVE


class _Signs(NamedTuple):
    """Names of the signs, as they are counted."""

    mojibake: str = "text in a wrong encoding"
    tokens: str = "special tokens of a tokenizer in a text"
    equal: str = EQUAL_NEGATIVE
    contained: str = "negative that contains its positive"
    sizes: str = "box that fits as corner and size"
    thousandths: str = "box with numbers of 2 to 1000"
    pixels: str = "box with numbers above 1000"
    boxes: str = "boxes as written"
    grey: str = "image whose lower part is flat grey"
    small: str = "image smaller than the model's input"


SIGNS = _Signs()
# Marks of CLIP's, BERT's, T5's, Llama's and chat models' tokenizers, and places for images.
_SPECIAL = re.compile(
    r"<\|\w+\|>|</?s>|<(?:pad|eos|bos|unk|mask|image|img)>|\[(?:CLS|SEP|PAD|MASK|UNK|INST)\]", re.IGNORECASE
)


def signs_of(text: str) -> Iterator[str]:
    """Names of what is wrong with a text by itself."""
    if is_bad(text) or "\ufffd" in text:
        yield SIGNS.mojibake
    if _SPECIAL.search(text):
        yield SIGNS.tokens
