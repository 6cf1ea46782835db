"""Padded rows of token ids, as other packages hold texts, from and to the flat texts of this one."""

import torch
from torch import Tensor

from fgclip_fast.inputs.texts import Texts
from fgclip_fast.inputs.tokenizer import Tokens
from fgclip_fast.ops.tree import EOS, LONG_LENGTH, SHORT_LENGTH, TILE


def padded(tokens: Tokens, length: int | None = None) -> Tensor:
    """Texts as rows of ids, int64 Tensor[N, L], filled with EOS up to ``length``, or to the longest."""
    rows = list(tokens.token.long().split(tokens.offsets.diff().tolist()))
    if length is not None:
        rows.append(torch.full((length,), EOS))
    filled = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=EOS)
    return filled if length is None else filled[:-1]


def packed(ids: Tensor, long: bool) -> Texts:
    """Texts of one path, packed for the text tower, on the device of ``ids``; where that is a GPU, the host waits.

    What a row holds after its first EOS is padding, whatever it is: the tower is causal and reads a text there.

    Args:
        ids: Tensor[N, L], integer, each row from BOS on.
        long: whether they take the long path.

    Raises:
        ValueError: another shape or dtype, a row without an EOS, or a text longer than its path takes.
    """
    token, offsets = unpad(ids)
    longest, most = int(offsets.diff().max()) if len(ids) else 0, LONG_LENGTH if long else SHORT_LENGTH
    if longest > most:
        path = "long" if long else "short"
        raise ValueError(f"input_ids: a text of the {path} path has at most {most} tokens, got one of {longest}")
    return Texts(token, offsets, 0 if long else len(ids)).packed(multiple=1 if ids.is_cpu else TILE).to(ids.device)


def unpad(ids: Tensor) -> Tokens:
    """The texts of padded rows on the CPU, each up to its first EOS.

    Raises:
        ValueError: another shape or dtype, or a row without an EOS.
    """
    if ids.ndim != 2 or ids.is_floating_point():
        raise ValueError(f"input_ids: must be integers [N, L], got {ids.dtype} {list(ids.shape)}")
    ids = ids.cpu()
    ends = ids == EOS
    if not bool(ends.any(dim=1).all()):
        row = int((~ends.any(dim=1)).nonzero()[0])
        raise ValueError(f"input_ids: each row must hold CLIP's end of text, {EOS}; row {row} does not")
    lengths = ends.int().argmax(dim=1) + 1
    kept = torch.arange(ids.shape[1]) < lengths[:, None]
    return Tokens(ids[kept].int(), torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))
