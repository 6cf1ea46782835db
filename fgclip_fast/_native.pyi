"""Compiled ops of fgclip_fast, built from ``csrc/bindings.cpp``; users call ``fgclip_fast.ops``.

Every tensor is passed as its address (:func:`fgclip_fast.ops.native.address`), 0 for a part that is left out where the
C++ header says so. The caller has checked shapes, dtypes and devices, and holds the tensors until the call returns. The
headers in ``csrc/`` document shapes and formulas.
"""

from typing_extensions import Buffer

cuda: bool
"""Whether the extension was built with its CUDA ops; without them, the functions that end in ``_cuda`` are missing."""

class Dtype:
    """The dtype of values at an address, named as in torch."""

    float32: Dtype
    bfloat16: Dtype
    float16: Dtype
    float64: Dtype

class Int32s(Buffer):
    """An int32 array that the extension allocated."""

    def __len__(self) -> int: ...

class RegionShape:
    """Sizes of a region embedding's tensors; strides of the tokens in elements."""

    def __init__(self, *, B: int, R: int, H: int, W: int, C: int, image_stride: int, token_stride: int) -> None: ...

def region_embedding_forward_cpu(
    tokens: int, boxes: int, image_index: int, out: int, dtype: Dtype, shape: RegionShape
) -> None: ...
def region_embedding_backward_cpu(
    grad_out: int, boxes: int, image_index: int, grad_tokens: int, dtype: Dtype, shape: RegionShape
) -> None: ...
def region_embedding_forward_cuda(
    tokens: int,
    boxes: int,
    image_index: int,
    out: int,
    dtype: Dtype,
    shape: RegionShape,
    device: int,
    stream: int,
) -> None: ...
def region_embedding_backward_cuda(
    grad_out: int,
    boxes: int,
    image_index: int,
    grad_tokens: int,
    dtype: Dtype,
    shape: RegionShape,
    begin: int,
    order: int,
    weights: int,
    device: int,
    stream: int,
) -> None: ...

class HardNegativeInputs:
    """The inputs of the hard-negative loss."""

    def __init__(self, regions: int, texts: int, offsets: int, scale: int, R: int, D: int) -> None: ...

class HardNegativeSaved:
    """The results of the hard-negative loss's forward pass that its backward pass reads."""

    def __init__(self, losses: int, similarity: int, text_inverse: int) -> None: ...

def hard_negative_loss_forward_cpu(
    inputs: HardNegativeInputs, saved: HardNegativeSaved, loss: int, rank: int, dtype: Dtype
) -> None: ...
def hard_negative_loss_backward_cpu(
    grad_loss: int,
    inputs: HardNegativeInputs,
    saved: HardNegativeSaved,
    grad_regions: int,
    grad_texts: int,
    grad_scale: int,
    dtype: Dtype,
) -> None: ...
def prefix_tree_forward_cpu(
    token: int, T0: int, offsets: int, M: int, shorts: int, share: bool, multiple: int, eos: int
) -> list[Int32s]: ...

class LogitsChunk:
    """A chunk of products of embeddings, which the ops turn into logits or gradients in place."""

    def __init__(
        self,
        logits: int,
        rows: int,
        columns: int,
        scale: float,
        row_inverse: int,
        column_inverse: int,
        first: int,
        row_ids: int,
        column_ids: int,
    ) -> None: ...

class Lse:
    """Log-sum-exps in two parts, a maximum and a logarithm."""

    def __init__(self, maximum: int, log: int) -> None: ...

def contrastive_loss_forward_cpu(chunk: LogitsChunk, rows: Lse, positive: int, columns: Lse) -> None: ...
def contrastive_loss_backward_cpu(chunk: LogitsChunk, kept: bool, rows: Lse, columns: Lse) -> None: ...
def add_layer_norm_forward_cpu(
    residual: int,
    update: int,
    update_bias: int,
    weight: int,
    bias: int,
    total: int,
    normed: int,
    statistics: int,
    rows: int,
    width: int,
    eps: float,
    stream: Dtype,
    update_dtype: Dtype,
    normed_dtype: Dtype,
) -> None: ...
def add_layer_norm_backward_cpu(
    grad_total: int,
    grad_normed: int,
    total: int,
    statistics: int,
    weight: int,
    bias: int,
    grad_residual: int,
    grad_other: int,
    normed: int,
    columns: int,
    rows: int,
    width: int,
    stream: Dtype,
    normed_dtype: Dtype,
    other_dtype: Dtype,
) -> None: ...
def activation_linear_forward_cpu(
    hidden: int, bias: int, out: int, rows: int, width: int, quick: bool, dtype: Dtype
) -> None: ...
def activation_linear_backward_cpu(
    grad: int, hidden: int, bias: int, out: int, grad_bias: int, rows: int, width: int, quick: bool, dtype: Dtype
) -> None: ...
