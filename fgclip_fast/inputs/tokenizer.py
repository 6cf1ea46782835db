"""CLIP's byte-pair encoding, from strings to flat token ids.

The ids equal those of Hugging Face's fast CLIPTokenizer, which the released FG-CLIP uses: Unicode normal form NFC, one
space for each run of white space, lower case; no ftfy and no HTML unescaping. The merges are read from the file that
open_clip_torch installs; open_clip itself is not imported.
"""

import gzip
import importlib.util
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import torch
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from fgclip_fast.ops.tree import EOS, SHORT_LENGTH

BOS = 49406

# Words whose ids are remembered, and letters of the longest of these: a few megabytes.
_WORDS, _LONG_WORD = 2**16, 64
MAX_LETTERS = 2**16
"""Letters of a text that are read; the 248 tokens of a long caption take a thousandth to a tenth of these."""
_MERGES = 49152 - 256 - 2  # open_clip's file holds more lines than the vocabulary has room for
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # a contraction, letters, one digit, or other marks


class Tokens(NamedTuple):
    """Ids of several texts, end to end without padding; text ``i`` is ``token[offsets[i]:offsets[i + 1]]``."""

    token: Tensor
    """Tensor[T], int32; each text from BOS to EOS."""
    offsets: Tensor
    """Tensor[M + 1], int64."""


class Tokenizer:
    """Turns texts into :class:`Tokens`. A pickle holds only the path of the merges.

    Args:
        merges: file of CLIP's merges, plain (``merges.txt`` of a Hugging Face folder) or ``.gz``; None: open_clip's.
    """

    def __init__(self, merges: Path | None = None) -> None:
        self.merges = merges

    def __call__(self, texts: Sequence[str], max_length: int = SHORT_LENGTH) -> Tokens:
        """Encode each text as BOS, its ids, EOS, cut to ``max_length`` tokens; the last one is always EOS.

        Of a text only the first 65,536 letters are read.

        Raises:
            ValueError: ``texts`` is one string, or holds something that is not a string.
        """
        token: list[int] = []
        offsets = [0]
        for ids in self._ids(texts):
            token.append(BOS)
            token += ids[: max_length - 2]
            token.append(EOS)
            offsets.append(len(token))
        return Tokens(torch.tensor(token, dtype=torch.int32), torch.tensor(offsets))

    def truncated(self, texts: Sequence[str], max_length: int = SHORT_LENGTH) -> int:
        """Count the ``texts`` that a call with the same arguments cuts."""
        return sum(len(ids) > max_length - 2 for ids in self._ids(texts))

    def decode(self, token: Tensor) -> str:
        """Return the text of one row of ids, for reading: case and white space are lost."""
        words = self._encoder.decode(token.tolist(), skip_special_tokens=True)
        return words.replace("</w>", " ").strip()

    def pairs(self) -> list[tuple[str, str]]:
        """Read the merges, in their order.

        Raises:
            FileNotFoundError: their file does not exist.
        """
        return read_merges(self.merges or installed_merges())

    def saved(self) -> dict[str, Any]:
        """The content of a Hugging Face ``tokenizer.json`` that gives the ids of this tokenizer, BOS and EOS included.

        Raises:
            FileNotFoundError: the file of the merges does not exist.
        """
        stored: dict[str, Any] = json.loads(self._encoder.to_str())
        ends = processors.RobertaProcessing(("<|endoftext|>", EOS), ("<|startoftext|>", BOS), False, False)
        stored["post_processor"] = json.loads(ends.__getstate__())
        return stored

    def __getstate__(self) -> dict[str, Path | None]:
        return {"merges": self.merges}

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"tokenizer: texts must be a list of strings, got {_wrong_type(texts)}")
        if len(self._known) > _WORDS:
            self._known = {}
        known = self._known
        # Neither a token nor normalisation reaches across a space.
        rows = [text[:MAX_LETTERS].split(" ") for text in texts]
        if new := [word for word in set(chain.from_iterable(rows)) if word not in known]:
            known.update(zip(new, self._encode(new), strict=True))
        ids = [list(chain.from_iterable(map(known.__getitem__, row))) for row in rows]
        for word in new:
            if len(word) > _LONG_WORD:
                del known[word]
        return ids

    def _encode(self, words: list[str]) -> list[list[int]]:
        # tokenizers 0.19, which transformers 4.41 asks for, has the slower call alone.
        encode = getattr(self._encoder, "encode_batch_fast", self._encoder.encode_batch)
        try:
            encodings = encode(words, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):  # a lone surrogate: allowed in JSON, but not in UTF-8
            valid = [word.encode("utf-8", "replace").decode() for word in words]
            encodings = encode(valid, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @cached_property
    def _known(self) -> dict[str, list[int]]:
        """Ids of words met before, which are nearly all words of a data set; a look-up costs a tenth of encoding."""
        return {}

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        return _build(self.pairs())


def installed_merges() -> Path:
    """Find the file of CLIP's merges that open_clip_torch installs.

    Raises:
        FileNotFoundError: open_clip_torch is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec("open_clip")  # finds the folder without importing it
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        if (path := folder / "bpe_simple_vocab_16e6.txt.gz").is_file():
            return path
    raise FileNotFoundError(
        "tokenizer: CLIP's merges come with open_clip_torch, which was not found: `pip install open_clip_torch`, "
        "or give the merges.txt of a Hugging Face CLIP folder as Tokenizer(merges=…)"
    )


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read CLIP's merges, plain or ``.gz``.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = raw.decode("utf-8").split("\n")[1 : _MERGES + 1]  # the first line is a version
    merges = [tuple(line.split()) for line in lines]
    if len(merges) < _MERGES or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"tokenizer: {path} must hold a version line and {_MERGES} merges of two pieces each")
    return merges  # type: ignore[return-value]  # all are pairs, as checked


def _build(merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    pieces = _byte_letters()
    pieces += [piece + "</w>" for piece in pieces]
    pieces += [left + right for left, right in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    encoder = tokenizers.Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    encoder.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORD), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    encoder.decoder = tokenizers.decoders.ByteLevel()
    encoder.add_special_tokens(pieces[-2:])  # a literal <|endoftext|> in a text is EOS, where its feature is read
    return encoder


def _byte_letters() -> list[str]:
    """One printable letter for each byte, in the order of CLIP's vocabulary: first the printable bytes, as they are."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _wrong_type(texts: Sequence[Any]) -> str:
    if isinstance(texts, str):
        return "one string; put it in a list"
    return next(f"one of type {type(text).__name__}" for text in texts if not isinstance(text, str))
