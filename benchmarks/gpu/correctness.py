"""Each op at the size of a step against fp64: all of it where that fits, else the exact values of sampled rows."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu import problems
from benchmarks.gpu.case import Case, Figures
from benchmarks.gpu.problems import with_gradients
from benchmarks.gpu.sizes import Sizes
from fgclip_fast.ops import (
    activation_linear,
    contrastive_loss,
    dense_attention,
    hard_negative_loss,
    norm_linear,
    reference,
    region_embedding,
    split_joint,
    tree_attention,
)

SAMPLED = 64
HALF, SINGLE = torch.bfloat16, torch.float32
# Largest error allowed, as a share of the largest exact value. In bf16: a few roundings of it; in fp32: sums of
# thousands of terms, and cosines that a scale of 50 multiplies.
BARS = {HALF: 4 * torch.finfo(HALF).eps, SINGLE: 1e-4}


def cases(sizes: Sizes) -> Iterator[Case]:
    """A check for each op and dtype."""
    for N in (sizes.pairs[0], sizes.pairs[-1]):
        for dtype in (HALF, SINGLE):
            yield Case(f"contrastive_loss, {N} pairs, {dtype}", partial(_contrastive, sizes, N, dtype))
    yield Case("tree_attention, bf16, sampled rows in fp64", lambda: _tree_rows(sizes))
    yield Case("tree_attention, bf16, gradients against tiles in fp32", lambda: _tree_gradients(sizes))
    for dtype in (HALF, SINGLE):
        yield Case(f"region_embedding, {dtype}", partial(_regions, sizes, dtype))
        yield Case(f"region_embedding, {dtype}, against roi_align", partial(_roi_align, sizes, dtype))
        yield Case(f"hard_negative_loss, {dtype}", partial(_hard_negatives, sizes, dtype))
    yield Case("norm_linear, bf16", lambda: _norm_linear(sizes))
    yield Case("activation_linear, bf16", lambda: _activation_linear(sizes))
    yield Case("split_joint, bf16", lambda: _split_joint(sizes))
    yield Case("dense_attention, bf16", lambda: _dense_attention(sizes))


def judged(ours: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype) -> Figures:
    """The largest error of any output or gradient, as a share of its largest exact value."""
    errors = [
        ((mine.double() - truth.double()).abs().max() / truth.double().abs().max().clamp(min=1e-30)).item()
        for mine, truth in zip(ours, exact, strict=True)
    ]
    finite = all(bool(torch.isfinite(mine).all()) for mine in ours)
    return {"passed": finite and max(errors) <= BARS[dtype], "largest error": max(errors), "bar": BARS[dtype]}


def _sample(n: int, device: torch.device) -> Tensor:
    """Up to SAMPLED different numbers below n, the first and the last among them."""
    return torch.linspace(0, n - 1, min(n, SAMPLED), device=device).long()


def _contrastive(sizes: Sizes, N: int, dtype: torch.dtype) -> Figures:
    image, text, scale = problems.pairs(sizes, N, dtype)
    loss = contrastive_loss(image, text, scale)
    grad_image, grad_text, grad_scale = torch.autograd.grad(loss, (image, text, scale))
    rows = _sample(N, sizes.device)
    exact = exact_contrastive(*(x.detach().double() for x in (image, text, scale)), rows)
    return judged((loss.detach(), grad_image[rows], grad_text[rows], grad_scale), exact, dtype)


def exact_contrastive(image: Tensor, text: Tensor, scale: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    """The loss in fp64, the gradients of these images and of these texts, and that of the scale."""
    N, lengths = len(image), [x.norm(dim=1, keepdim=True) for x in (image, text)]
    image, text = image / lengths[0], text / lengths[1]
    row_lse, column_lse = [], torch.full_like(lengths[0][:, 0], -torch.inf)
    for part in image.split(1024):
        logits = scale * part @ text.T
        row_lse.append(logits.logsumexp(1))
        column_lse = torch.logaddexp(column_lse, logits.logsumexp(0))
    lse, cosine = (torch.cat(row_lse), column_lse), (image * text).sum(1)
    loss = (lse[0] + lse[1]).mean() / 2 - scale * cosine.mean()
    grad_scale = -cosine.mean()
    for part, part_lse in zip(image.split(1024), lse[0].split(1024), strict=True):
        cosines = part @ text.T
        weight = (scale * cosines - part_lse[:, None]).exp_() + (scale * cosines - lse[1]).exp_()
        grad_scale = grad_scale + (weight * cosines).sum() / (2 * N)
    grads = []
    for own, other, own_lse, other_lse, length in (
        (image, text, *lse, lengths[0]), (text, image, *lse[::-1], lengths[1])
    ):  # fmt: skip
        logits = scale * own[rows] @ other.T
        weight = (logits - own_lse[rows, None]).exp() + (logits - other_lse).exp()
        weight[torch.arange(len(rows), device=rows.device), rows] -= 2
        grad = scale / (2 * N) * weight @ other
        along = (grad * own[rows]).sum(1, keepdim=True) * own[rows]
        grads.append((grad - along) / length[rows])
    return loss, *grads, grad_scale


def _tree_rows(sizes: Sizes) -> Figures:
    tree = problems.tree(sizes)
    q, k, v = problems.qkv(sizes, tree, HALF)
    rows = _sample(len(tree.end), sizes.device)
    exact = []
    for i in rows.tolist():
        seen = (tree.end[: i + 1] > i).nonzero()[:, 0]
        keys, values = (x.detach().index_select(0, seen).double() for x in (k, v))
        logit = torch.einsum("hd,jhd->hj", q.detach()[i].double(), keys) * q.shape[-1] ** -0.5
        exact.append(torch.einsum("hj,jhd->hd", logit.softmax(-1), values))
    return {"tokens": len(tree.end)} | judged([tree_attention(q, k, v, tree)[rows]], [torch.stack(exact)], HALF)


def _tree_gradients(sizes: Sizes) -> Figures:
    """All of output and gradients against the tiles of plain torch, another implementation of the same mask."""
    tree = problems.tree(sizes)
    inputs = problems.qkv(sizes, tree, HALF)
    ours = with_gradients(tree_attention(*inputs, tree), inputs)
    single = [x.detach().float().requires_grad_() for x in inputs]
    return judged(ours, with_gradients(tree_attention(*single, tree, backend="sdpa"), single), HALF)


def _regions(sizes: Sizes, dtype: torch.dtype) -> Figures:
    tokens, boxes, image_index, grid = problems.patches(sizes, dtype)
    ours = with_gradients(region_embedding(tokens, boxes, image_index, grid), [tokens])
    # In fp32 the reference gathers the tokens of every box: a part of the images is enough.
    images = min(len(tokens), 128)
    some = image_index < images
    exact = tokens.detach()[:images].double().requires_grad_()
    out = reference.region_embedding(exact, boxes[some], image_index[some], grid)
    (grad,) = torch.autograd.grad(out, exact, problems.upstream_of(ours[0])[some].double())
    return judged([ours[0][some], ours[1][:images]], [out.detach(), grad], dtype)


def _roi_align(sizes: Sizes, dtype: torch.dtype) -> Figures:
    from torchvision.ops import roi_align

    tokens, boxes, image_index, grid = problems.patches(sizes, dtype)
    ours = with_gradients(region_embedding(tokens, boxes, image_index, grid), [tokens])
    single = tokens.detach().float().requires_grad_()
    maps = single.unflatten(1, grid).permute(0, 3, 1, 2)
    rois = torch.cat([image_index[:, None].float(), boxes * grid[0]], 1)
    theirs = roi_align(maps, rois, (1, 1), 1.0, -1, True).flatten(1)
    return judged(ours, with_gradients(theirs, [single]), dtype)


def _hard_negatives(sizes: Sizes, dtype: torch.dtype) -> Figures:
    regions, texts, offsets, scale = problems.groups(sizes, dtype)
    ours = with_gradients(hard_negative_loss(regions, texts, offsets, scale), [regions, texts, scale])
    exact = [x.detach().double().requires_grad_() for x in (regions, texts, scale)]
    return judged(ours, with_gradients(reference.hard_negative_loss(*exact[:2], offsets, exact[2]), exact), dtype)


def _norm_linear(sizes: Sizes) -> Figures:
    x = problems.block(sizes, 8 * (sizes.images + 1) + 1)
    inputs = [x[name] for name in ("stream", "update", "update_bias", "norm_weight", "norm_bias", "fc1")]
    ours = with_gradients(norm_linear(*inputs[:5], [inputs[5]])[1], inputs)
    exact = [value.detach().double().requires_grad_() for value in inputs]
    return judged(ours, with_gradients(reference.norm_linear(*exact[:5], [exact[5]], [None])[1], exact), HALF)


def _activation_linear(sizes: Sizes) -> Figures:
    x = problems.block(sizes, 8 * (sizes.images + 1) + 1)
    inputs = [x[name] for name in ("hidden", "hidden_bias", "fc2")]
    ours = with_gradients(activation_linear(*inputs), inputs)
    exact = [value.detach().double().requires_grad_() for value in inputs]
    return judged(ours, with_gradients(reference.activation_linear(*exact), exact), HALF)


def _split_joint(sizes: Sizes) -> Figures:
    stream = problems.block(sizes, 8 * (sizes.images + 1) + 1)["stream"]
    inputs = [stream[:, : stream.shape[1] // 3 * 3].detach().to(HALF).requires_grad_()]
    inputs += [part.clone().requires_grad_() for part in inputs[0][0].detach().chunk(3)]
    ours = with_gradients(torch.cat([part.square() for part in split_joint(inputs[0], inputs[1:])]), inputs)
    exact = [value.detach().double().requires_grad_() for value in inputs]
    parts = reference.split_joint(exact[0], exact[1:])
    return judged(ours, with_gradients(torch.cat([x.square() for x in parts]), exact), HALF)


def _dense_attention(sizes: Sizes) -> Figures:
    random, vision = torch.Generator().manual_seed(0), sizes.model.vision
    shape = 4, vision.heads, vision.grid**2 + 1, vision.width // vision.heads
    inputs = [torch.randn(shape, generator=random).to(sizes.device, HALF).requires_grad_() for _ in range(3)]
    ours = with_gradients(dense_attention(*inputs), inputs)
    exact = [value.detach().double().requires_grad_() for value in inputs]
    return judged(ours, with_gradients(reference.dense_attention(*exact), exact), HALF)
