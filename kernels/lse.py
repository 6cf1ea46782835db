"""Log-sum-exps in two parts, as the engines of the contrastive loss give and take them."""

from typing import NamedTuple

from torch import Tensor


class Lse(NamedTuple):
    """Log-sum-exps in base 2, as two terms: their sum, rounded at scale 100, would spoil a softmax near 1."""

    maximum: Tensor
    """Tensor[N]: largest logit of each row (or column)."""
    log: Tensor
    """Tensor[N]: logarithm of the sum of exponentials of the logits less ``maximum``."""
