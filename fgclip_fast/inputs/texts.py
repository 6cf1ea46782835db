"""Texts as the text tower takes them: flat tokens of both paths, and how they are packed."""

from typing import NamedTuple

import torch
from torch import Tensor

from fgclip_fast.config.model import Packing
from fgclip_fast.inputs.tokenizer import Tokens
from fgclip_fast.ops.prefix_tree import prefix_tree
from fgclip_fast.ops.tree import TILE, Tree


class Texts(NamedTuple):
    """M texts laid end to end, those of the short path first."""

    token: Tensor
    """int32 [T], each text from BOS to EOS."""
    offsets: Tensor
    """int64 [M + 1], where each text begins in ``token``, then T."""
    shorts: int
    """Texts below this number take the short path (at most 77 tokens), the others the long one (248)."""
    tree: Tree | None = None
    """The same texts as a prefix tree, on the device of ``token``: the text tower computes its tokens and pads
    nothing. None: the tower pads each path to its longest text."""

    @property
    def processed_tokens(self) -> int:
        """Number of tokens that go through the text tower, padding included.

        Without a tree this reads ``offsets``: where they are on a GPU, the host waits for it.
        """
        if self.tree is not None:
            return len(self.tree.token)
        lengths = self.offsets.diff()
        paths = lengths[: self.shorts], lengths[self.shorts :]
        return sum(len(path) * int(path.max()) for path in paths if len(path))

    def packed(self, packing: Packing = "prefix-tree", multiple: int = TILE) -> "Texts":
        """The same texts, which must be on the CPU, packed for the text tower.

        Args:
            packing: "prefix-tree": each shared beginning is computed once. "padding-free": each text stands alone.
                "none": without a tree.
            multiple: the tree is filled up to a multiple of this many tokens, so that kernels which are tuned for a
                size meet few; on a CPU 1 will do.
        """
        if packing == "none":
            return self._replace(tree=None)
        share = packing == "prefix-tree"
        return self._replace(tree=prefix_tree(self.token, self.offsets, self.shorts, share=share, multiple=multiple))

    def to(self, device: torch.device | str) -> "Texts":
        """Copy the texts to a device."""
        tree = None if self.tree is None else self.tree.to(device)
        return Texts(self.token.to(device), self.offsets.to(device), self.shorts, tree)


def join(short: Tokens, long: Tokens) -> Texts:
    """Lay the texts of the short path and then those of the long path end to end."""
    token = torch.cat([short.token, long.token])
    offsets = torch.cat([short.offsets, long.offsets[1:] + short.offsets[-1]])
    return Texts(token, offsets, len(short.offsets) - 1)
