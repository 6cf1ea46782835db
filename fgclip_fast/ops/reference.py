"""What each op means, in eager PyTorch: the spec that every fast path is tested against, and the fallback."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def prefix_tree(token: Tensor, offsets: Tensor, shorts: int, *, share: bool, multiple: int, eos: int) -> list[Tensor]:
    """Sorted, a text shares with the one before exactly their common prefix; what it adds is written out."""
    rows = _rows_until_eos(token.tolist(), offsets.tolist(), shorts, eos)
    order = sorted(range(len(rows)), key=lambda r: (r >= shorts, rows[r])) if share else range(len(rows))
    tokens: list[int] = []
    positions: list[int] = []
    pooled = [0] * len(rows)
    paths: list[list[int]] = []  # of each run of one edge: from the root to its last token
    before: tuple[bool, list[int]] = (False, [])
    for r in order:
        shared = _common_prefix(before[1], rows[r]) if share and before[0] == (r >= shorts) else 0
        before = (r >= shorts, rows[r])
        if shared < len(rows[r]):
            fresh = range(len(tokens), len(tokens) + len(rows[r]) - shared)
            paths.append([*(paths[-1][:shared] if shared else []), *fresh])
            tokens += rows[r][shared:]
            positions += [depth + 77 * (r >= shorts) for depth in range(shared, len(rows[r]))]
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
        limit = 77 if r < shorts else 248
        rows.append([*row[: min(row.index(eos), limit - 1)], eos])
    return rows


def _common_prefix(a: list[int], b: list[int]) -> int:
    return next((depth for depth, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _lists(paths: list[list[int]]) -> list[list[int]]:
    """All arrays of a Tree after position, without pooled, from the path of each run."""
    T = paths[-1][-1] + 1 if paths else 0
    end = [0] * T
    path_of: dict[int, list[int]] = {}
    for path in paths:
        for j in path:
            end[j] = path[-1] + 1  # the last path through j wins
            path_of.setdefault(j, path)
    tiles, chunks = range(0, T, 64), range(0, T, 8 * 64)
    spine = [[j for j in path_of[first] if j < first] for first in tiles]
    wide = [[j for j in spine[first // 64] if (end[j] - 1) // 64 - j // 64 >= 8] for first in chunks]
    flat = [j for keys in wide for j in keys]
    sum_key = sorted(set(flat))
    sum_row = [[row for row, j in enumerate(flat) if j == key] for key in sum_key]
    runs = [0, *(path[-1] + 1 for path in paths)]
    return [end, *_ragged(spine), *_ragged(wide), sum_key, *_ragged(sum_row), runs, *_ragged(paths)]


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
