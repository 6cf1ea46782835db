"""The four terms: equal to the paper's formulas, and zero where there is nothing to compare."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from fgclip_fast.config import Loss
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.training.grad_cache import ROWS, SCALES
from fgclip_fast.training.objective import MANY_PAIRS, _operands, objective


def embeddings(B=3, groups=((0, 11), (2, 4)), R=4, D=8, seed=0):
    """``groups``: (region, number of texts) of each hard-negative group."""
    generator = torch.Generator().manual_seed(seed)
    texts = [0] + [n for _, n in groups]
    rows = dict(image=B, short=B, long=B, regions=R, region_texts=R, hard_texts=sum(texts))
    made = {name: torch.randn(n, D, generator=generator).requires_grad_() for name, n in rows.items()}
    scales = {name: torch.tensor(float(i + 2)).requires_grad_() for i, name in enumerate(SCALES)}
    return Embeddings(
        **made, **scales, hard_region=torch.tensor([r for r, _ in groups], dtype=torch.int64),
        hard_offsets=torch.tensor(texts).cumsum(0), short_ids=torch.arange(B), long_ids=torch.arange(B),
        region_ids=torch.arange(R),
    )  # fmt: skip


def symmetric(a, b, scale):
    logits = scale * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
    target = torch.arange(len(a))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def as_written(e):
    hard = []
    for region, first, last in zip(e.hard_region, e.hard_offsets[:-1], e.hard_offsets[1:], strict=True):
        logits = F.normalize(e.hard_texts[first:last], dim=-1) @ F.normalize(e.regions[region], dim=-1)
        hard.append(F.cross_entropy(e.hard_scale * logits, torch.tensor(0)))
    return (
        symmetric(e.image, e.short, e.scale),
        symmetric(e.image, e.long, e.scale),
        symmetric(e.regions, e.region_texts, e.region_scale),
        torch.stack(hard).mean(),
    )


def gradients(e, total):
    leaves = [getattr(e, name) for name in (*ROWS, *SCALES)]
    return torch.autograd.grad(total, leaves, allow_unused=True)


def test_equals_the_paper_with_gradients():
    e, weights = embeddings(), Loss(short=0.7, long=1.3, region=0.1, hard_negative=0.5)
    ours, terms = objective(e, weights), as_written(e)
    torch.testing.assert_close(torch.stack(ours[1:]), torch.stack(terms))
    total = sum(w * t for w, t in zip((0.7, 1.3, 0.1, 0.5), terms, strict=True))
    torch.testing.assert_close(ours.total, total)
    for mine, theirs in zip(gradients(e, ours.total), gradients(e, total), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("case", "zero"),
    [
        (dict(R=0, groups=()), ("region", "hard_negative")),
        (dict(R=1, groups=()), ("region", "hard_negative")),
        (dict(R=2, groups=()), ("hard_negative",)),
        (dict(B=1, R=1, groups=((0, 2),)), ("short", "long", "region")),
    ],
    ids=["no regions", "one region", "no negatives", "one of each"],
)
def test_a_term_with_nothing_to_compare_is_zero_and_stays_in_the_graph(case, zero):
    e = embeddings(**case)
    losses = objective(e, Loss())
    assert all(getattr(losses, name).item() == 0.0 for name in zero)
    found = gradients(e, losses.total)
    assert all(g is not None and g.isfinite().all() for g in found)


@pytest.mark.parametrize("name", ["short", "long", "region", "hard_negative"])
def test_a_weight_of_zero_leaves_its_term_out(name):
    e = embeddings()
    losses = objective(e, Loss(**{name: 0.0}))
    assert getattr(losses, name).item() == 0.0 and losses.total.item() > 0
    assert all(g is not None for g in gradients(e, losses.total))


def test_equal_texts_are_not_negatives_of_each_other_if_masked():
    e = embeddings(B=2)
    e = e._replace(short_ids=torch.tensor([7, 7]))
    assert objective(e, Loss(mask_equal_texts=True)).short.item() == pytest.approx(0.0, abs=1e-6)
    assert objective(e, Loss()).short.item() > 0


def test_losses_are_fp32_whatever_the_towers_ran_in():
    e = embeddings()
    half = e._replace(**{name: getattr(e, name).detach().bfloat16().requires_grad_() for name in ROWS})
    losses = objective(half, Loss())
    assert losses.total.dtype == torch.float32 and math.isfinite(losses.total)


def test_in_bf16_the_contrastive_terms_are_those_of_rounded_embeddings():
    e = embeddings()
    rounded = e._replace(**{name: getattr(e, name).bfloat16().float() for name in ROWS})
    half, exact = objective(e, Loss(precision="bf16")), objective(rounded, Loss(precision="fp32"))
    for name in ("short", "long", "region"):
        torch.testing.assert_close(getattr(half, name), getattr(exact, name), rtol=1e-5, atol=1e-6)
    assert half.hard_negative.equal(objective(e, Loss()).hard_negative) and half.total.dtype == torch.float32
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients(e, half.total))


@pytest.mark.parametrize(("pairs", "expected"), [(MANY_PAIRS - 1, torch.float32), (MANY_PAIRS, torch.bfloat16)])
def test_by_default_many_pairs_on_a_gpu_are_multiplied_in_bf16_and_none_on_a_cpu(pairs, expected):
    with FakeTensorMode(allow_non_fake_inputs=True):
        for device, dtype in (("cuda", expected), ("cpu", torch.float32)):
            rows = torch.empty(pairs, 4, device=device)
            assert [x.dtype for x in _operands(rows, rows, None)] == [dtype, dtype]
            assert _operands(rows, rows, "fp32")[0].dtype == torch.float32
