"""Each op, forward and backward, beside what others offer for the same; shares are of the ceilings."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu import peers, problems
from benchmarks.gpu.case import Case, Figures, NotHereError
from benchmarks.gpu.clock import rates, times
from benchmarks.gpu.problems import with_gradients
from benchmarks.gpu.sizes import Sizes
from fgclip_fast.ops import (
    Tree,
    activation_linear,
    contrastive_loss,
    hard_negative_loss,
    norm_linear,
    region_embedding,
    tree_attention,
)
from fgclip_fast.ops.tree_attention import BACKENDS, why_not

Result = list[Tensor]
# Makes the inputs and returns the run: only the running case holds memory.
Make = Callable[[], Callable[[], Result | None]]
HALF, SINGLE = torch.bfloat16, torch.float32


def cases(sizes: Sizes) -> Iterator[Case]:
    """For each op its own case, then one for each peer."""
    yield from _contrastive(sizes)
    yield from _tree(sizes)
    yield from _regions(sizes)
    yield from _hard_negatives(sizes)
    yield from _block(sizes)


def race(
    sizes: Sizes,
    problem: str,
    ours: Make,
    others: Mapping[str, Make],
    flop: float = 0,
    bytes: Callable[[], float] = float,
) -> Iterator[Case]:
    """Ours first; of a peer also by how many times longer it takes, and by how much its results differ.

    Args:
        sizes: Where they run.
        problem: First part of the rows' names.
        ours: Makes our run.
        others: Make the peers' runs, by name.
        flop: Of the problem.
        bytes: Counts the least bytes that the problem moves.
    """
    took: list[float] = []

    def run_ours() -> Figures:
        figures = _timed(ours(), sizes, flop, bytes())
        took.append(float(figures["GPU ms"] or figures["wall ms"] or 0))
        return figures

    def run_peer(make: Make) -> Figures:
        run = make()
        differs = _difference(ours()(), run()) if took else None
        figures = _timed(run, sizes, flop, bytes())
        theirs = float(figures["GPU ms"] or figures["wall ms"] or 0)
        return {**figures, "times ours": theirs / took[0] if took else None, "differs from ours by": differs}

    yield Case(f"{problem}: **ours**", run_ours)
    for name, make in others.items():
        yield Case(f"{problem}: {name}", partial(run_peer, make))


def _timed(run: Callable[[], Result | None], sizes: Sizes, flop: float, bytes: float) -> Figures:
    figures = rates(times(run, sizes), flop, bytes)
    if sizes.on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        figures["extra GB"] = (torch.cuda.max_memory_allocated() - before) / 1e9
    return figures


def _difference(ours: Result | None, theirs: Result | None) -> float | None:
    """The largest of any tensor, as a share of its largest value; None where the peer computes something else."""
    if ours is None or theirs is None:
        return None
    pairs = [(a.float(), b.float()) for a, b in zip(ours, theirs, strict=False)]
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item() for a, b in pairs)


def _without_results(make: Make) -> Make:
    """The run of a peer that computes something else than ours."""

    def made() -> Callable[[], None]:
        run = make()
        return lambda: run() and None

    return made


def _contrastive(sizes: Sizes) -> Iterator[Case]:
    for N in sizes.pairs:
        for dtype in (HALF, SINGLE) if sizes.pairs[0] == N else (HALF,):

            def with_loss(loss: Callable[..., Tensor], N: int = N, dtype: torch.dtype = dtype) -> Make:
                def make() -> Callable[[], Result]:
                    inputs = list(problems.pairs(sizes, N, dtype))
                    return lambda: with_gradients(loss(*inputs), inputs)

                return make

            others = {"its four products by cuBLAS": partial(peers.products, sizes, N, dtype)}
            if sizes.pairs_with_logits >= N:
                others["open_clip's ClipLoss"] = with_loss(peers.clip_loss)
                others["Liger's cross-entropy on both logits"] = with_loss(peers.liger_clip_loss)
            others["siglip-kernel, a loss with one sigmoid a pair"] = _without_results(with_loss(peers.siglip_loss))
            name = f"contrastive_loss, {N} x {sizes.dim}, {_name(dtype)}"
            yield from race(sizes, name, with_loss(contrastive_loss), others, flop=8.0 * N * N * sizes.dim)


def _tree(sizes: Sizes) -> Iterator[Case]:
    tree = problems.tree(sizes)

    def attending(attention: Callable[..., Tensor]) -> Make:
        def make() -> Callable[[], Result]:
            inputs = problems.qkv(sizes, tree, HALF)
            return lambda: with_gradients(attention(*inputs, tree), inputs)

        return make

    def backend(name: str) -> Callable[..., Tensor]:
        def attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
            if reason := why_not(name, q.device.type, q.dtype, q.shape[2]):
                raise NotHereError(reason)
            return tree_attention(q, k, v, tree, backend=name)

        return attention

    others = {f"{name}, by {'tiles' if name == 'sdpa' else 'segments'}": attending(backend(name))
              for name in BACKENDS if name != "triton"}  # fmt: skip
    others["aten's flash attention, by segments"] = attending(peers.aten_flash)
    # Forward q, k, v and out; backward these and the gradient of out are read, and three gradients are written.
    least = 12.0 * len(tree.end) * sizes.model.text.width * 2
    name = f"tree_attention, {len(tree.end)} tokens, bf16"
    yield from race(sizes, name, attending(tree_attention), others, bytes=lambda: least)


def _regions(sizes: Sizes) -> Iterator[Case]:
    for dtype in (HALF, SINGLE):

        def pooled(pool: Callable[..., Tensor], dtype: torch.dtype = dtype) -> Make:
            def make() -> Callable[[], Result]:
                tokens, *rest = problems.patches(sizes, dtype)
                return lambda: with_gradients(pool(tokens, *rest), [tokens])

            return make

        ours = pooled(region_embedding)

        def least(make: Make = ours) -> float:
            """Bytes of the tokens that any box touches, of the gradient of all, and of the regions twice."""
            out, grad = make()() or []
            touched = int((grad != 0).any(-1).sum()) * grad.shape[-1] * grad.itemsize
            return touched + grad.nbytes + 2 * out.nbytes

        name = f"region_embedding, {problems.BOXES * sizes.images} boxes, {_name(dtype)}"
        others = {"torchvision's roi_align": pooled(peers.roi)}
        yield from race(sizes, name, ours, others, bytes=least)


def _hard_negatives(sizes: Sizes) -> Iterator[Case]:
    for dtype in (HALF, SINGLE):

        def with_loss(loss: Callable[..., Tensor], dtype: torch.dtype = dtype) -> Make:
            def make() -> Callable[[], Result]:
                regions, texts, offsets, scale = problems.groups(sizes, dtype)
                return lambda: with_gradients(loss(regions, texts, offsets, scale), [regions, texts, scale])

            return make

        R = problems.BOXES * sizes.images
        least = 3.0 * R * (1 + problems.TEXTS) * sizes.dim * dtype.itemsize
        name = f"hard_negative_loss, {R} x {problems.TEXTS} x {sizes.dim}, {_name(dtype)}"
        others = {"einsum and cross_entropy": with_loss(peers.einsum_loss)}
        yield from race(sizes, name, with_loss(hard_negative_loss), others, bytes=lambda least=least: least)


def _block(sizes: Sizes) -> Iterator[Case]:
    rows = sizes.images * (sizes.model.vision.grid**2 + 1)
    vision = sizes.model.vision
    flop = 6.0 * rows * vision.width * vision.mlp

    def applied(function: Callable[..., Tensor], *names: str) -> Make:
        def make() -> Callable[[], Result]:
            made = problems.block(sizes, rows)
            inputs = [made[name] for name in names]
            return lambda: with_gradients(function(*inputs), inputs)

        return make

    first = ("stream", "update", "update_bias", "norm_weight", "norm_bias", "fc1")
    second = ("hidden", "hidden_bias", "fc2")
    others = {"plain addition, LayerNorm, linear": applied(peers.plain_norm_linear, *first),
              "the same with Liger's LayerNorm": applied(peers.liger_norm_linear, *first)}  # fmt: skip
    ours = applied(lambda *x: norm_linear(*x[:5], [x[5]])[1], *first)
    yield from race(sizes, f"norm_linear, {rows} x {vision.width} -> {vision.mlp}, bf16", ours, others, flop=flop)
    others = {"plain QuickGELU, linear": applied(peers.plain_activation_linear, *second)}
    name = f"activation_linear, {rows} x {vision.mlp} -> {vision.width}, bf16"
    yield from race(sizes, name, applied(activation_linear, *second), others, flop=flop)


def _name(dtype: torch.dtype) -> str:
    return "bf16" if dtype == HALF else "fp32"
