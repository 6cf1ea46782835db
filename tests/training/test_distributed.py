"""Two processes: the same gradient as one on the whole batch, with regions spread unequally, and one stop for all."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fgclip_fast.config import Loss, Optim
from fgclip_fast.inputs.batch import Example, make_batch
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import distributed, freezing, grad_cache, optim
from fgclip_fast.training.distributed import Processes, StopFlag
from fgclip_fast.training.objective import objective
from tests.models import MINI

GLOBAL = Loss(region=0.0, hard_negative=0.0)


def example(number):
    """The first images have three regions with negatives each, the last none at all."""
    n = 3 if number < 3 else 0
    generator = torch.Generator().manual_seed(number)
    texts = [f"a thing of kind {number}{i}" for i in range(n)]
    return Example(
        image=torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator),
        short=f"a photo of {number}", long=f"a long text about the number {number}",
        boxes=torch.tensor([[0.1, 0.2, 0.6, 0.7]]).repeat(n, 1), region_texts=texts,
        hard_texts=[[text, "another thing", "a third"] for text in texts],
    )  # fmt: skip


def make_model():
    torch.manual_seed(0)
    return FGCLIP(MINI)


def gradients(model, processes, numbers, micro, weights):
    network = distributed.wrap(model, processes)
    parts = [numbers[i : i + micro] for i in range(0, len(numbers), micro)]
    batches = [make_batch([example(n) for n in part], model.tokenizer) for part in parts]
    losses_of = partial(objective, weights=weights, group=processes.group)
    losses = grad_cache.backward(network, network, batches, losses_of)
    return losses, {name: p.grad.clone() for name, p in model.named_parameters()}


def one_of_two(rank, folder, micro):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    processes = Processes(rank, 2, dist.group.WORLD, torch.device("cpu"))
    numbers = list(range(4 * rank, 4 * rank + 4))
    found = [gradients(make_model(), processes, numbers, micro, weights) for weights in (GLOBAL, Loss())]
    stop = StopFlag(processes)
    agreed = [stop.agreed(rank == 1 and step >= 2) for step in range(5)]
    torch.save((found, agreed), f"{folder}/{rank}.pt")
    distributed.stop(processes)
    os._exit(0)  # gloo's threads now and then abort an interpreter that shuts down; all is written


@pytest.mark.parametrize("micro", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_two_processes_equal_one(tmp_path, micro):
    mp.spawn(one_of_two, (str(tmp_path), micro), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    alone = Processes(0, 1, None, torch.device("cpu"))
    losses, whole = gradients(make_model(), alone, list(range(8)), 8, GLOBAL)
    shares = [found[0][0].total for found, _ in results]
    assert torch.stack(shares).mean().item() == pytest.approx(losses.total.item(), rel=1e-5)
    for found, _ in results:
        for name, grad in whole.items():
            floor = 1e-6 if name.endswith("k_proj.bias") else 1e-5 * grad.abs().max() + 1e-9
            assert (found[0][1][name] - grad).abs().max() <= floor, name
    # With the regional terms each process has its own value, and all the same averaged gradient.
    first, second = (found[1][1] for found, _ in results)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert results[1][0][1][0].region.item() == 0.0 and results[0][0][1][0].region.item() > 0.0
    assert [agreed for _, agreed in results] == [[False, False, False, True, True]] * 2


def tuned(processes, numbers, held, l2_start):
    """The gradients of a first step, and the weights after three, with a part held still."""
    model = make_model()
    freezing.freeze(model, held)
    settings = Optim(lr=1e-2, warmup=0, l2_start=l2_start)
    optimizer, network = optim.adamw(model, settings), distributed.wrap(model, processes)
    batches = [make_batch([example(n) for n in part], model.tokenizer) for part in (numbers[:3], numbers[3:])]
    first = {}
    for step in range(3):
        optim.set_lr(optimizer, settings, step, 10)
        grad_cache.backward(network, network, batches, partial(objective, weights=GLOBAL, group=processes.group))
        first = first or {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optim.update(model, optimizer, settings)
    return first, {name: p.detach().clone() for name, p in model.named_parameters()}


def one_of_two_tuned(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    processes = Processes(rank, 2, dist.group.WORLD, torch.device("cpu"))
    numbers = list(range(4 * rank, 4 * rank + 4))
    kinds = [("text", 0.0), ("text", 10.0), ("all-but-projections", 0.0)]
    torch.save([tuned(processes, numbers, *kind) for kind in kinds], f"{folder}/{rank}.pt")
    distributed.stop(processes)
    os._exit(0)  # gloo's threads now and then abort an interpreter that shuts down; all is written


def test_two_processes_hold_parts_still_and_pull_the_others_to_their_start_alike(tmp_path):
    mp.spawn(one_of_two_tuned, (str(tmp_path),), nprocs=2)
    (free, pulled, projected), others = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    begun = dict(make_model().named_parameters())
    for held, (first, _) in (("text", free), ("all-but-projections", projected)):
        whole, _ = tuned(Processes(0, 1, None, torch.device("cpu")), list(range(8)), held, 0.0)
        assert first.keys() == whole.keys() < begun.keys()
        for name, grad in whole.items():
            floor = 1e-6 if name.endswith("k_proj.bias") else 1e-5 * grad.abs().max() + 1e-9
            assert (first[name] - grad).abs().max() <= floor, name
    for (_, mine), (_, theirs) in zip((free, pulled, projected), others, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in begun)
    for held, (_, after) in (("text", free), ("text", pulled), ("all-but-projections", projected)):
        assert all(torch.equal(after[name], begun[name]) for name in begun if name.startswith(freezing.HELD[held]))
    moved = [sum((after[name] - begun[name]).square().sum() for name in free[0]) for _, after in (free, pulled)]
    assert 0.0 < moved[1] < moved[0]


def two_of_which_one_dies(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    processes = Processes(rank, 2, dist.group.WORLD, torch.device("cpu"))
    dist.barrier()
    if rank == 1:
        os._exit(0)  # as a kill does: the sockets close, nothing is said
    try:
        with distributed.explained(processes):
            dist.all_reduce(torch.ones(1))
    except ConnectionError as error:
        Path(folder, "told").write_text(str(error))
    os._exit(0)


def test_a_process_whose_peer_dies_ends_with_a_sentence(tmp_path):
    mp.spawn(two_of_which_one_dies, (str(tmp_path),), nprocs=2)
    told = (tmp_path / "told").read_text()
    assert told.startswith("process 0: another of the 2 processes has died or cannot be reached (")
    assert "--resume auto" in told and "\n" not in told


def test_other_errors_stay_as_they_are():
    alone = Processes(0, 1, None, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="shapes differ"), distributed.explained(alone):
        raise RuntimeError("shapes differ")
