"""What people call: pictures, strings and boxes in, embeddings out."""

from torch import nn


class Interface(nn.Module):
    """The calls of a loaded model."""
