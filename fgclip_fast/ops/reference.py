"""Each op in eager PyTorch: the specification that every fast path is tested against, and the fallback."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.ops.tree import LONG_LENGTH, REACH, SHORT_LENGTH, TILE


def region_embedding(tokens: Tensor, boxes: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
    """RoIAlign with a 1 × 1 output. Its mean is separable: the weight of a cell is its row's times its column's.

    Unlike in the kernels, a token that is not finite reaches all boxes of its image: a weight of 0 times it is NaN.
    """
    total = torch.promote_types(tokens.dtype, torch.float32)
    weight = region_weights(boxes, grid).to(total)[:, None]
    return (weight @ tokens.index_select(0, image_index).to(total)).squeeze(1).to(tokens.dtype)


def region_weights(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """The weight of each cell of a grid ``(H, W)`` in the mean over a box: Tensor[R, H * W], fp32."""
    weight_x = _axis_weights(boxes[:, 0], boxes[:, 2], grid[1])
    weight_y = _axis_weights(boxes[:, 1], boxes[:, 3], grid[0])
    return (weight_y[:, :, None] * weight_x[:, None, :]).flatten(1)


def _axis_weights(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Mean bilinear weight of each of ``size`` cells over ``ceil(length)`` samples of a box's axis: [R, size], fp32."""
    start, end = start * size - 0.5, end * size - 0.5
    length = torch.where((end - start).isfinite(), end - start, 0)
    # Samples are more than half a cell apart, so that few of them touch the axis.
    samples = length.ceil()
    skipped = ((-1 - start) * samples / length).nan_to_num().floor().sub(2).clamp(min=0)
    i = skipped[:, None] + torch.arange(2 * size + 8, device=start.device)
    at = start[:, None] + (i + 0.5) * length[:, None] / samples[:, None]
    # A sample outside the axis counts as zero in the mean.
    counts = (i < samples[:, None]) & (at >= -1) & (at <= size)
    cell = torch.arange(size, device=start.device)
    bilinear = (1 - (at.clamp(0, size - 1)[:, :, None] - cell).abs()).clamp(min=0)
    return torch.where(counts[:, :, None], bilinear, 0).sum(1) / samples.clamp(min=1)[:, None]


def unit(rows: Tensor) -> Tensor:
    """Rows scaled to length 1; a zero row (shorter than 1e-12) stays zero and takes no gradient."""
    squares = rows.square().sum(-1, keepdim=True)
    is_zero = squares <= 1e-24
    return (rows * squares.masked_fill(is_zero, 1.0).rsqrt()).masked_fill(is_zero, 0.0)


def hard_negative_loss(regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor) -> Tensor:
    """The paper's formula: for each region, the cross-entropy of a softmax over its own texts; the first is right."""
    sizes = offsets.diff()
    owner, place = _owner_and_place(offsets, len(texts))
    similarity = _similarity(regions.to(scale.dtype), texts.to(scale.dtype), owner)
    logits = similarity.new_full((len(regions), int(sizes.max()) if len(sizes) else 1), -torch.inf)
    logits = logits.index_put((owner, place), scale * similarity)
    # A region without a negative has nothing to choose, and is left out.
    choosing = (sizes > 1).nonzero().squeeze(1)
    positive = choosing.new_zeros(len(choosing))
    losses = F.cross_entropy(logits.index_select(0, choosing), positive, reduction="sum")  # 0 without regions, not NaN
    return losses / max(len(choosing), 1)


def hard_negative_scores(regions: Tensor, texts: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarity of each text to its region, and the number of a region's negatives that beat its positive."""
    statistics = torch.promote_types(regions.dtype, torch.float32)
    owner, place = _owner_and_place(offsets, len(texts))
    similarity = _similarity(regions.to(statistics), texts.to(statistics), owner)
    positive = similarity.index_select(0, offsets[:-1]).index_select(0, owner)
    beats = ~(similarity <= positive) & (place > 0)  # not `>`: NaN must not pass for the best
    return similarity, owner.new_zeros(len(regions)).index_add(0, owner, beats.long())


def _owner_and_place(offsets: Tensor, texts: int) -> tuple[Tensor, Tensor]:
    """Region of each text, and its number among that region's texts; both Tensor[M]."""
    owner = torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff(), output_size=texts)
    return owner, torch.arange(texts, device=offsets.device) - offsets.index_select(0, owner)


def _similarity(regions: Tensor, texts: Tensor, owner: Tensor) -> Tensor:
    return (unit(regions).index_select(0, owner) * unit(texts)).sum(-1)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: image ``i`` belongs to text ``i``; other texts are negatives unless their id is equal."""
    if len(image) == 0:
        return 0.0 * (scale + image.sum() + text.sum())  # zero, with zero gradients
    image, text = (unit(x.to(scale.dtype)) for x in (image, text))
    logits = scale * image @ text.T
    target = torch.arange(len(image), device=image.device)
    if text_ids is not None:
        equal = text_ids[:, None] == text_ids[None, :]
        logits = logits.masked_fill(equal & (target[:, None] != target), -torch.inf)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def prefix_tree(token: Tensor, offsets: Tensor, shorts: int, *, share: bool, multiple: int, eos: int) -> list[Tensor]:
    """Sort the texts; each then shares with the one before exactly their common prefix, and adds the rest."""
    rows = _rows_until_eos(token.tolist(), offsets.tolist(), shorts, eos)
    order = sorted(range(len(rows)), key=lambda r: (r >= shorts, rows[r])) if share else range(len(rows))
    tokens: list[int] = []
    positions: list[int] = []
    pooled = [0] * len(rows)
    paths: list[list[int]] = []  # for each segment, the tokens from the root to its last one
    before: tuple[bool, list[int]] = (False, [])
    for r in order:
        shared = _common_prefix(before[1], rows[r]) if share and before[0] == (r >= shorts) else 0
        before = (r >= shorts, rows[r])
        if shared < len(rows[r]):
            fresh = range(len(tokens), len(tokens) + len(rows[r]) - shared)
            paths.append([*(paths[-1][:shared] if shared else []), *fresh])
            tokens += rows[r][shared:]
            positions += [depth + SHORT_LENGTH * (r >= shorts) for depth in range(shared, len(rows[r]))]
        pooled[r] = paths[-1][-1]
    inert = range(len(tokens), -(-len(tokens) // multiple) * multiple)
    paths += [[i] for i in inert]
    arrays = _lists(paths)
    return [*map(_int32, (tokens + [eos] * len(inert), positions + [0] * len(inert), arrays[0], pooled, *arrays[1:]))]


def _rows_until_eos(token: list[int], offsets: list[int], shorts: int, eos: int) -> list[list[int]]:
    if (offsets[0], offsets[-1]) != (0, len(token)):
        came = f"{offsets[0]} to {offsets[-1]}"
        raise ValueError(f"prefix_tree: offsets must go from 0 to len(token) = {len(token)}, got {came}")
    rows = []
    for r, (first, last) in enumerate(pairwise(offsets)):
        if not first <= last <= len(token):
            raise ValueError(f"prefix_tree: offsets must rise to len(token), row {r} does not")
        row = token[first:last]
        if eos not in row:
            raise ValueError(f"prefix_tree: every row must hold EOS, row {r} does not")
        limit = SHORT_LENGTH if r < shorts else LONG_LENGTH
        rows.append([*row[: min(row.index(eos), limit - 1)], eos])
    return rows


def _common_prefix(a: list[int], b: list[int]) -> int:
    return next((depth for depth, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _lists(paths: list[list[int]]) -> list[list[int]]:
    """All arrays of a Tree after position, without pooled, from the path of each segment."""
    T = paths[-1][-1] + 1 if paths else 0
    end = [0] * T
    path_of: dict[int, list[int]] = {}
    for path in paths:
        for j in path:
            end[j] = path[-1] + 1  # the last path through j wins
            path_of.setdefault(j, path)
    spine = [[j for j in path_of[first] if j < first] for first in range(0, T, TILE)]
    far_key_offsets, far = _ragged([[j for j in keys if tile - j // TILE >= REACH] for tile, keys in enumerate(spine)])
    sum_key = sorted(set(far))
    far_rows = [[row for row, j in enumerate(far) if j == key] for key in sum_key]
    runs = [0, *(path[-1] + 1 for path in paths)]
    return [end, *_ragged(spine), far_key_offsets, sum_key, *_ragged(far_rows), runs, *_ragged(paths)]


def _ragged(lists: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    offsets = [0]
    for values in lists:
        offsets.append(offsets[-1] + len(values))
    return offsets, [value for values in lists for value in values]


def _int32(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def tree_attention(q: Tensor, k: Tensor, v: Tensor, end: Tensor) -> Tensor:
    """Softmax attention under one dense mask: query ``i`` sees key ``j`` iff ``j <= i < end[j]``."""
    i = torch.arange(len(end), device=end.device)
    seen = (i[None, :] <= i[:, None]) & (i[:, None] < end[None, :])
    logit = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
    weight = logit.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weight, v)


def add_layer_norm(
    residual: Tensor,
    update: Tensor | None,
    update_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The sum in the stream's dtype, and LayerNorm of its rounded values, with statistics in fp32 at least."""
    statistics = torch.promote_types(residual.dtype, torch.float32)
    total = residual.to(statistics)
    for term in (update, update_bias):
        total = total if term is None else total + term
    total = total.to(residual.dtype)
    normed = F.layer_norm(total.to(statistics), total.shape[-1:], weight.to(statistics), bias.to(statistics), eps)
    return total, normed.to(dtype or residual.dtype)


def norm_linear(
    residual: Tensor,
    update: Tensor | None,
    update_bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    eps: float = 1e-5,
) -> tuple[Tensor, ...]:
    """Linear layers over the normalised sum."""
    total, normed = add_layer_norm(residual, update, update_bias, norm_weight, norm_bias, eps, weights[0].dtype)
    return total, *(F.linear(normed, weight, bias) for weight, bias in zip(weights, biases, strict=True))


def split_joint(joint: Tensor, biases: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Three parts of a product that already holds the biases, and of their gradients: 0 is added to the values."""
    bias = torch.cat(list(biases))
    return (joint + (bias - bias.detach()).to(joint.dtype)).chunk(3, dim=-1)


def activation_linear(hidden: Tensor, bias: Tensor, weight: Tensor, kind: str = "quick_gelu") -> Tensor:
    """A linear layer over the activation of ``hidden + bias``."""
    return F.linear(activation(hidden + bias, kind).to(weight.dtype), weight)


def activation(x: Tensor, kind: str) -> Tensor:
    """``x * sigmoid(1.702 x)``, or ``x`` times the normal distribution function."""
    return x * torch.sigmoid(1.702 * x) if kind == "quick_gelu" else F.gelu(x)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Softmax over the keys that a query sees."""
    logit = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if is_causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        logit = logit.masked_fill(~mask, -torch.inf)
    return torch.matmul(logit.softmax(-1), v)
