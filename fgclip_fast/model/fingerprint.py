"""A hash of a model's weights."""

import hashlib

import torch
from torch import nn


def weights_hash(model: nn.Module) -> str:
    """The first 16 digits of a hash of names, dtypes, shapes and values; a model has one hash in every file layout."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
