"""A large batch in the memory of a small one: the same gradient, not a similar one."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from fgclip_fast.config import Loss
from fgclip_fast.inputs.batch import Example, make_batch
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import reference
from fgclip_fast.training import grad_cache
from fgclip_fast.training.freezing import HELD
from fgclip_fast.training.grad_cache import ROWS, SCALES
from fgclip_fast.training.objective import Losses, objective
from tests.models import SMALL

WORDS = ("mug", "boat", "tree", "fish", "hat")


def example(number):
    """An image with ``number % 4`` regions, the last of them without negatives where there are several."""
    generator = torch.Generator().manual_seed(number)
    n = number % 4
    texts = [f"a {WORDS[(number + i) % 5]} of kind {i}" for i in range(n)]
    hard = [[text, *(f"a {word} of kind {i}" for word in WORDS[: i + 1])] for i, text in enumerate(texts)]
    if n > 1:
        hard[-1] = []
    corners = torch.rand(n, 2, generator=generator) / 2
    return Example(
        image=torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator),
        short=f"a photo of things {number}", long=f"a long text on {number} things, " + ", ".join(WORDS),
        boxes=torch.cat([corners, corners + 0.4], dim=1), region_texts=texts, hard_texts=hard,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FGCLIP(SMALL)


def gradients(model, sizes, embed=None, losses_of=None):
    examples = iter([example(i) for i in range(sum(sizes))])
    batches = [make_batch([next(examples) for _ in range(size)], model.tokenizer) for size in sizes]
    model.zero_grad(set_to_none=True)
    losses_of = losses_of or partial(objective, weights=Loss())
    losses = grad_cache.backward(model, embed or model, batches, losses_of)
    return losses, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("mask", [False, True], ids=["all texts", "equal texts masked"])
@pytest.mark.parametrize("sizes", [[1] * 7, [3, 3, 1], [4, 3]], ids=str)
def test_gradient_is_that_of_the_whole_batch(model, sizes, mask):
    losses_of = partial(objective, weights=Loss(mask_equal_texts=mask))
    whole_losses, whole = gradients(model, [7], losses_of=losses_of)
    losses, cached = gradients(model, sizes, losses_of=losses_of)
    torch.testing.assert_close(losses, whole_losses)
    for name, grad in whole.items():
        floor = 1e-6 if name.endswith("k_proj.bias") else 1e-5 * grad.abs().max() + 1e-9  # k_proj.bias: zero in theory
        assert (cached[name] - grad).abs().max() <= floor, name


@pytest.mark.parametrize("sizes", [[7], [4, 3]], ids=str)
def test_an_outer_loss_scales_the_gradient(model, sizes):
    _, whole = gradients(model, sizes)
    for name, parameter in model.named_parameters():
        parameter.grad = whole[name].clone()  # of a step before
    examples = iter([example(i) for i in range(sum(sizes))])
    batches = [make_batch([next(examples) for _ in range(size)], model.tokenizer) for size in sizes]
    losses = grad_cache.backward(model, model, batches, partial(objective, weights=Loss()), torch.tensor(0.5))
    assert not losses.total.requires_grad
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 1.5 * whole[name], rtol=1e-5, atol=1e-7)


@pytest.fixture
def frozen(model, request):
    """The model with the parameters of some beginnings held still."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(request.param))
    yield model
    model.requires_grad_(True)


FROZEN = [*HELD.values(), ("text_model",), ("vision_model",), ("logit_scale_finegraind",)]


@pytest.mark.parametrize("frozen", FROZEN, indirect=True, ids=str)
def test_what_is_frozen_takes_no_part(frozen):
    trained = {name: p for name, p in frozen.named_parameters() if p.requires_grad}
    whole_losses, whole = gradients(frozen, [7])
    losses, cached = gradients(frozen, [4, 3])
    torch.testing.assert_close(losses, whole_losses)
    assert [name for name, grad in cached.items() if grad is not None] == list(trained)
    for name in trained:
        floor = 1e-6 if name.endswith("k_proj.bias") else 1e-5 * whole[name].abs().max() + 1e-9
        assert (cached[name] - whole[name]).abs().max() <= floor, name


@pytest.mark.parametrize(
    "frozen, text_passes, vision_passes",
    [((), 4, 4), (HELD["text"], 2, 4), (HELD["vision"], 4, 2), (HELD["all-but-projections"], 2, 2)],
    indirect=["frozen"],
    ids=["none", *HELD],
)
def test_a_tower_held_still_runs_once(frozen, text_passes, vision_passes):
    passes = Counter()
    hooks = [
        tower.register_forward_hook(lambda tower, *_: passes.update([tower]))
        for tower in (frozen.text_model, frozen.vision_model)
    ]
    gradients(frozen, [4, 3])
    for hook in hooks:
        hook.remove()
    assert [passes[frozen.text_model], passes[frozen.vision_model]] == [text_passes, vision_passes]


def test_bf16_equals_the_step_that_keeps_its_graphs_bit_for_bit(model):
    def embed(batch, known=None):
        with torch.autocast("cpu", torch.bfloat16):
            return model(batch, known)

    _, cached = gradients(model, [4, 3], embed)
    examples = [example(i) for i in range(7)]
    graphs = [embed(make_batch(part, model.tokenizer)) for part in (examples[:4], examples[4:])]
    model.zero_grad(set_to_none=True)
    names = (*ROWS, *SCALES)
    leaves = [g._replace(**{name: getattr(g, name).detach().requires_grad_() for name in names}) for g in graphs]
    objective(grad_cache.join(leaves), Loss()).total.backward()
    for graph, leaf in zip(graphs, leaves, strict=True):
        pairs = [(getattr(graph, name), getattr(leaf, name).grad) for name in names]
        torch.autograd.backward(*zip(*((out, grad) for out, grad in pairs if grad is not None), strict=True))
    for name, parameter in model.named_parameters():
        if "logit_scale" not in name:  # of the first graph here, of the last in the cached step: the same sum
            assert torch.equal(cached[name], parameter.grad), name
        torch.testing.assert_close(cached[name], parameter.grad)


class Wide(nn.Module):
    """A double-precision stand-in: embeddings are one linear map of numbers that the batch carries."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, numbers, known=None):
        return Embeddings(
            **{name: rows @ self.weight for name, rows in zip(ROWS, numbers[: len(ROWS)], strict=True)},
            **{name: self.scale.exp() * (i + 1) for i, name in enumerate(SCALES)},
            hard_region=numbers[6], hard_offsets=numbers[7],
            short_ids=numbers[6], long_ids=numbers[6], region_ids=numbers[6],
        )  # fmt: skip


def double_losses(e):
    own = e.regions.index_select(0, e.hard_region)
    parts = (
        reference.contrastive_loss(e.image, e.short, e.scale),
        reference.contrastive_loss(e.image, e.long, e.scale),
        reference.contrastive_loss(e.regions, e.region_texts, e.region_scale),
        reference.hard_negative_loss(own, e.hard_texts, e.hard_offsets, e.hard_scale),
    )
    return Losses(sum(parts), *parts)


def test_double_precision_agrees_to_1e_12():
    generator = torch.Generator().manual_seed(0)

    def part(B, R, groups):
        rows = [torch.randn(n, 6, dtype=torch.float64, generator=generator) for n in (B, B, B, R, R, sum(groups))]
        offsets = torch.tensor([0, *groups]).cumsum(0)
        return (*rows, torch.arange(len(groups)), offsets)

    parts = [part(2, 3, [3, 4]), part(1, 0, []), part(3, 2, [11])]
    model = Wide()
    grad_cache.backward(model, model, parts, double_losses)
    cached = [p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    double_losses(grad_cache.join([model(p) for p in parts])).total.backward()
    for mine, parameter in zip(cached, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-12, atol=1e-12)
