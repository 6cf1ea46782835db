"""CLIP's byte-pair encoding, from strings to flat token ids.

The ids are those of Hugging Face's fast CLIPTokenizer, which the released FG-CLIP uses: NFC, runs of white space become
one space, lower case; no ftfy and no HTML unescaping. The merges are the file that open_clip_torch installs; it is
read as a file, open_clip itself is not imported.
"""

import gzip
import importlib.util
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import tokenizers
import torch
from tokenizers import Regex, models, normalizers, pre_tokenizers
from torch import Tensor

from fgclip_fast.ops.tree import EOS, SHORT_LENGTH

BOS = 49406

_WORDS = 2**16  # remembered: more than a data set's usual words, a few megabytes
_MERGES = 49152 - 256 - 2  # open_clip's file holds more lines than the vocabulary has room for
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # a contraction, letters, one digit, or other marks


class Tokens(NamedTuple):
    """Texts as one flat run of ids, without padding; text ``i`` is ``token[offsets[i]:offsets[i + 1]]``, BOS … EOS."""

    token: Tensor
    """Tensor[T], int32."""
    offsets: Tensor
    """Tensor[M + 1], int64."""


class Tokenizer:
    """Turns texts into :class:`Tokens`; a pickled one carries its path only and is built again on first use.

    Args:
        merges: CLIP's merges, plain (``merges.txt`` of a Hugging Face folder) or ``.gz``; None: open_clip's file.
    """

    def __init__(self, merges: Path | None = None) -> None:
        self.merges = merges

    def __call__(self, texts: Sequence[str], max_length: int = SHORT_LENGTH) -> Tokens:
        """Encodes each text as BOS, its ids, EOS, cut to ``max_length`` tokens in all; the last is always EOS.

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
        """Number of ``texts`` of which a call with the same arguments drops tokens."""
        return sum(len(ids) > max_length - 2 for ids in self._ids(texts))

    def decode(self, token: Tensor) -> str:
        """The normalised text of one row of ids; for reading, since case and white space are lost."""
        words = self._encoder.decode(token.tolist(), skip_special_tokens=True)
        return words.replace("</w>", " ").strip()

    def __getstate__(self) -> dict[str, Path | None]:
        return {"merges": self.merges}

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"tokenizer: texts must be a list of strings, got {_name(texts)}")
        if len(self._known) > _WORDS:
            self._known = {}
        known = self._known
        rows = [text.split(" ") for text in texts]  # no token and no normalisation reaches across a space
        if new := [word for word in set(chain.from_iterable(rows)) if word not in known]:
            known.update(zip(new, self._encode(new), strict=True))
        return [list(chain.from_iterable(map(known.__getitem__, row))) for row in rows]

    def _encode(self, words: list[str]) -> list[list[int]]:
        try:
            encodings = self._encoder.encode_batch_fast(words, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):  # a lone surrogate, which JSON may hold and UTF-8 may not
            valid = [word.encode("utf-8", "replace").decode() for word in words]
            encodings = self._encoder.encode_batch_fast(valid, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @cached_property
    def _known(self) -> dict[str, list[int]]:
        """Ids of words met before: nearly all of a data set's, and looking one up costs a tenth of encoding it."""
        return {}

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        return _build(_read_merges(self.merges or installed_merges()))


def installed_merges() -> Path:
    """CLIP's merges as open_clip_torch installs them.

    Raises:
        FileNotFoundError: open_clip_torch is not installed, or holds no merges.
    """
    spec = importlib.util.find_spec("open_clip")  # finds the folder and runs nothing in it
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        if (path := folder / "bpe_simple_vocab_16e6.txt.gz").is_file():
            return path
    raise FileNotFoundError(
        "tokenizer: CLIP's merges come with open_clip_torch, which was not found: `pip install open_clip_torch`, "
        "or give the merges.txt of a Hugging Face CLIP folder as Tokenizer(merges=…)"
    )


def _read_merges(path: Path) -> list[tuple[str, str]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = raw.decode("utf-8").split("\n")[1 : _MERGES + 1]  # the first line is a version
    merges = [tuple(line.split()) for line in lines]
    if len(merges) < _MERGES or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"tokenizer: {path} must hold a version line and {_MERGES} merges, two pieces a line")
    return merges  # type: ignore[return-value]  # the check has made pairs of them


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
    encoder.add_special_tokens(pieces[-2:])  # a literal <|endoftext|> in a text is EOS, and pools there
    return encoder


def _byte_letters() -> list[str]:
    """One printable letter for each byte, in the order of CLIP's vocabulary: printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _name(texts: object) -> str:
    if isinstance(texts, str):
        return "one string; put it in a list"
    return next(f"a {type(text).__name__} among them" for text in texts if not isinstance(text, str))  # type: ignore[attr-defined]
