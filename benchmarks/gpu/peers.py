"""What others offer for each op, on the same inputs; a package that is missing is named when it is called."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import problems
from benchmarks.gpu.case import NotHereError
from benchmarks.gpu.sizes import Sizes
from fgclip_fast.ops import Tree
from fgclip_fast.ops.tree import LONG_LENGTH


def clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """open_clip's, which stores the logits."""
    import open_clip

    return open_clip.loss.ClipLoss()(F.normalize(image, dim=-1), F.normalize(text, dim=-1), scale)


def liger_clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """The same with Liger-Kernel's cross-entropy, whose gradient replaces the logits."""
    from liger_kernel.transformers import LigerCrossEntropyLoss

    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    target, loss = torch.arange(len(image), device=image.device), LigerCrossEntropyLoss()
    rows, columns = scale * image @ text.T, scale * text @ image.T
    return (loss(rows, target) + loss(columns, target)) / 2


def siglip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """siglip-kernel's: another loss, of as many logits, whose backward pass has as many products."""
    from siglip_kernel import fused_siglip_loss

    bias = torch.tensor(-10.0, device=image.device, requires_grad=True)
    return fused_siglip_loss(F.normalize(image, dim=-1), F.normalize(text, dim=-1), scale.log(), bias)


def products(sizes: Sizes, N: int, dtype: torch.dtype) -> Callable[[], None]:
    """The four products that a loss without stored logits makes, 2048 rows at a time, by torch's library."""
    image, text, _ = (x.detach() for x in problems.pairs(sizes, N, dtype))
    R = min(N, 2048)
    logits = torch.randn(R, N, device=sizes.device).to(dtype)
    grad_image, grad_text = torch.empty_like(image), torch.zeros_like(text)

    def run() -> None:
        for rows, grad in zip(image.split(R), grad_image.split(R), strict=True):
            part = logits[: len(rows)]
            for _ in range(2):
                torch.mm(rows, text.T, out=part)
            torch.mm(part, text, out=grad)
            grad_text.addmm_(part.T, rows)

    return run


def aten_flash(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    """FlashAttention as torch carries it, over segments; its causal mask is aligned at the last query and key."""
    if not q.is_cuda:
        raise NotHereError("no GPU")
    k, v = (F.embedding(tree.key, x.flatten(1)).view(-1, *x.shape[1:]) for x in (k, v))
    offsets, longest = (tree.query_offsets, tree.key_offsets), (LONG_LENGTH, LONG_LENGTH)
    return torch.ops.aten._flash_attention_forward(q, k, v, *offsets, *longest, 0.0, True, False)[0]


def roi(tokens: Tensor, boxes: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
    """torchvision's roi_align on the tokens as a map in fp32, which is what the released code gives it."""
    from torchvision.ops import roi_align

    maps = tokens.unflatten(1, grid).permute(0, 3, 1, 2).float()
    rois = torch.cat([image_index[:, None].float(), boxes * grid[0]], 1)
    return roi_align(maps, rois, (1, 1), 1.0, -1, True).flatten(1)


def einsum_loss(regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor) -> Tensor:
    """As in the released training code: groups of eleven, by reshape."""
    regions, texts = F.normalize(regions, dim=-1), F.normalize(texts, dim=-1)
    logits = scale * torch.einsum("rd,rkd->rk", regions, texts.view(len(regions), problems.TEXTS, -1))
    return F.cross_entropy(logits, torch.zeros(len(regions), dtype=torch.long, device=logits.device))


def plain_norm_linear(*inputs: Tensor) -> Tensor:
    """Three operations of torch, with a stream in fp32 and a product in bf16."""
    stream, update, update_bias, weight, bias, fc1 = inputs
    total = stream + (update + update_bias)
    return F.linear(F.layer_norm(total, weight.shape, weight, bias).to(fc1.dtype), fc1)


def liger_norm_linear(*inputs: Tensor) -> Tensor:
    """The same with Liger-Kernel's LayerNorm."""
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction

    stream, update, update_bias, weight, bias, fc1 = inputs
    normed = LigerLayerNormFunction.apply(stream + (update + update_bias), weight, bias, 1e-5)
    return F.linear(normed.to(fc1.dtype), fc1)


def plain_activation_linear(hidden: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    """Bias, QuickGELU and product as operations of torch in bf16."""
    active = hidden + bias.to(hidden.dtype)
    return F.linear(active * torch.sigmoid(1.702 * active), weight)
