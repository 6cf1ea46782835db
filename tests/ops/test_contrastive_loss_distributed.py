"""The contrastive loss over the ranks of a group: averaged it is one process's, and before that as DDP expects."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fgclip_fast.ops import contrastive_loss, reference
from fgclip_fast.ops.contrastive_loss import agree_batch_size

N, D, F = 12, 5, 7
UPSTREAM = 3.0


def problem(ids: bool):
    """What goes into two linear towers, their weights, a scale, and ids."""
    random = torch.Generator().manual_seed(0)
    pixels, words, vision, language = (torch.randn(*s, generator=random) for s in ((N, F), (N, F), (F, D), (F, D)))
    return pixels, words, vision, language, torch.tensor(9.0), torch.arange(2 * N)[::2] % 5 if ids else None


def one_process(ids: bool):
    pixels, words, *leaves, text_ids = problem(ids)
    vision, language, scale = leaves = [x.double().requires_grad_() for x in leaves]
    image, text = pixels.double() @ vision, words.double() @ language
    loss = UPSTREAM * reference.contrastive_loss(image, text, scale, text_ids)
    return [loss.detach(), *torch.autograd.grad(loss, [*leaves, image, text])]


def one_rank(rank: int, world: int, folder: str) -> None:
    """Everything that a rank does, so that a world is started once."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=world)
    group = dist.group.WORLD
    results: dict[str, object] = {}
    for name, ids in (("all", False), ("ids", True)):
        pixels, words, *leaves, text_ids = problem(ids)
        vision, language, scale = leaves = [x.requires_grad_() for x in leaves]
        own = slice(rank * N // world, (rank + 1) * N // world)
        image, text = pixels[own] @ vision, words[own] @ language
        own_ids = None if text_ids is None else text_ids[own]
        loss = UPSTREAM * contrastive_loss(image, text, scale, group, own_ids)
        results[name] = [loss.detach(), *torch.autograd.grad(loss, [*leaves, image, text], retain_graph=True)]
        with torch.no_grad():
            assert torch.equal(UPSTREAM * contrastive_loss(image, text, scale, group, own_ids), loss)
        frozen = contrastive_loss(image.detach(), text, scale, group, own_ids)  # gradient of one side alone
        results[name + " frozen"] = torch.autograd.grad(UPSTREAM * frozen, [language, scale])
    regions = torch.randn(rank, D, requires_grad=True)  # as many as the rank says; none on the first
    contrastive_loss(regions, regions.flip(0), torch.tensor(9.0)).backward()
    results["regions"] = regions.grad.isfinite().all().item()
    results["agreed"] = agree_batch_size(4, group)
    try:
        agree_batch_size(4 + rank, group)
    except ValueError as refusal:
        results["refusal"] = str(refusal)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads now and then abort an interpreter that shuts down; all is written


@pytest.fixture(scope="module", params=[1, 2, 4])
def ranks(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(one_rank, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def averaged(ranks, name):
    return [torch.stack(values).mean(0).double() for values in zip(*(r[name] for r in ranks), strict=True)]


@pytest.mark.parametrize("name", ["all", "ids"])
def test_averaged_over_ranks_is_one_process(ranks, name):
    expected = one_process(name == "ids")
    mean = averaged([{name: r[name][:4]} for r in ranks], name)  # loss, vision, language, scale
    torch.testing.assert_close(mean, expected[:4], rtol=1e-5, atol=2e-6)
    frozen = averaged(ranks, name + " frozen")
    torch.testing.assert_close(frozen, expected[2:4], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["all", "ids"])
def test_gradient_of_own_rows_is_times_the_number_of_ranks(ranks, name):
    expected = one_process(name == "ids")
    for at in (4, 5):  # image, text
        together = torch.cat([r[name][at] for r in ranks]).double()
        torch.testing.assert_close(together, len(ranks) * expected[at], rtol=1e-5, atol=5e-6)


def test_without_a_group_ranks_may_have_any_number_of_pairs(ranks):
    assert all(r["regions"] for r in ranks)


def test_unequal_batch_sizes_are_refused_on_every_rank(ranks):
    assert all(r["agreed"] == 4 * len(ranks) for r in ranks)
    sizes = [4 + rank for rank in range(len(ranks))]
    message = f"every rank must have the same batch size, got {sizes} by rank"
    assert all(message in r["refusal"] for r in ranks) if len(ranks) > 1 else "refusal" not in ranks[0]


def test_one_process_needs_no_agreement():
    assert agree_batch_size(7, None) == 7
