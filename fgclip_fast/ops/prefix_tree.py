"""All texts of a batch as one prefix tree, so that a causal tower computes each shared prefix once."""

from typing import Any

import torch
from torch import Tensor

from fgclip_fast.ops import native, reference
from fgclip_fast.ops.tree import EOS, TILE, Tree


def prefix_tree(
    token: Tensor, offsets: Tensor, shorts: int, *, share: bool = True, multiple: int = TILE, eos: int = EOS
) -> Tree:
    """Builds the prefix tree of short-path texts, and after it that of long-path texts.

    Row ``r`` is ``token[offsets[r]:offsets[r + 1]]``. What follows its first EOS is inert and dropped; a row of more
    than 77 (short path) or 248 (long path) tokens is cut there, its last token becoming EOS.

    Args:
        token: Tensor[T0], int32, on the CPU.
        offsets: Tensor[M + 1], int64, on the CPU, from 0 to T0.
        shorts: Rows below are short-path texts, the rest long-path texts: they have different position tables.
        share: False keeps every text a chain of its own, in the given order: packed without padding, nothing more.
        multiple: T is rounded up to a multiple of this with inert tokens, so that few sizes occur.
        eos: The token that ends a text.

    Returns:
        The tree, on the CPU.

    Raises:
        ValueError: An argument does not fit, or a row has no EOS; the message names it.
    """
    _check(token, offsets, shorts, multiple)
    extension = native.extension()
    if extension is None or not native.serves("prefix_tree", token.device):
        return Tree(*reference.prefix_tree(token, offsets, shorts, share=share, multiple=multiple, eos=eos))
    token, offsets = token.contiguous(), offsets.contiguous()
    sizes = len(offsets) - 1, shorts, share, multiple, eos
    arrays = extension.prefix_tree_forward_cpu(native.address(token), len(token), native.address(offsets), *sizes)
    return Tree(*map(_tensor, arrays))


def _check(token: Tensor, offsets: Tensor, shorts: int, multiple: int) -> None:
    for name, array, dtype in (("token", token, torch.int32), ("offsets", offsets, torch.int64)):
        if array.dim() != 1 or array.dtype != dtype or array.device.type != "cpu":
            got = f"{array.dtype} {list(array.shape)} on {array.device}"
            raise ValueError(f"prefix_tree: {name} must be one-dimensional {dtype} on the CPU, got {got}")
    if len(offsets) == 0 or not 0 <= shorts < len(offsets):
        raise ValueError(f"prefix_tree: shorts must be in [0, {len(offsets) - 1}], got {shorts}")
    if multiple < 1:
        raise ValueError(f"prefix_tree: multiple must be > 0, got {multiple}")


def _tensor(array: Any) -> Tensor:
    # torch.frombuffer keeps `array` alive, and refuses an empty one
    return torch.frombuffer(array, dtype=torch.int32) if len(array) else torch.empty(0, dtype=torch.int32)
