"""Counts of single operations, by hand."""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from fgclip_fast.cost import rules
from fgclip_fast.cost.backward import Backward
from fgclip_fast.cost.counter import StepCounter
from fgclip_fast.cost.fake_cuda import DEVICE, fake_cuda
from fgclip_fast.training.host_copy import HostCopy


@contextmanager
def counting():
    counter, backward = StepCounter(), Backward()
    with fake_cuda(counter), backward.installed():
        counter.operations.clear()
        counter.waits.clear()
        yield counter


def total(counter, field, *kinds):
    return sum(getattr(x.cost, field) for x in counter.operations if x.cost.kind in kinds)


def test_a_linear_layer_and_gelu_cost_what_they_do_by_hand():
    B, K, N, size = 3, 4, 8, 4
    with counting() as counter:
        x, weight, bias = (torch.empty(shape, device=DEVICE) for shape in ((B, K), (N, K), (N,)))
        hidden = F.linear(x, weight.requires_grad_(), bias.requires_grad_())
        F.gelu(hidden).sum().backward()
    # The forward product and that of the weight's gradient; the input needs no gradient.
    assert total(counter, "flops", "product") == 2 * B * N * K + 2 * N * B * K
    hidden_bytes = size * B * N
    by_hand = {
        "gelu": 2 * hidden_bytes,
        "sum": hidden_bytes + size,
        "gradient of the sum": size,
        "gelu backward": size + 2 * hidden_bytes,  # the gradient comes as one expanded value
        "bias": hidden_bytes + size * N,
    }
    assert total(counter, "bytes", "elementwise") == sum(by_hand.values())
    product_bytes = size * (B * K + N * K + N + B * N) + size * (N * B + B * K + N * K)
    assert total(counter, "bytes", "product") == product_bytes
    assert len(counter.operations) == 7


def test_autocast_casts_a_weight_once_and_runs_its_products_in_bf16():
    with counting() as counter:
        x, weight = torch.empty(3, 4, device=DEVICE), torch.empty(8, 4, device=DEVICE, requires_grad=True)
        with torch.autocast("cuda", torch.bfloat16):
            F.linear(x, weight), F.linear(x, weight)
    casts = [x.cost.bytes for x in counter.operations if x.cost.cast]
    # Of each value 4 bytes are read and 2 written: the weight once, the input for each product.
    assert casts == [6 * 32, 6 * 12, 6 * 12]
    assert {x.cost.dtype for x in counter.operations if x.cost.kind == "product"} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("wait", "reason"),
    [
        (lambda x: x.sum().item(), "local_scalar_dense"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "indexing by a mask"),
        (lambda x: x.cpu(), "blocking copy"),
        (lambda x: torch.tensor(1.0, device=DEVICE), "blocking copy"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
        (lambda x: HostCopy(x).read(), "event of this step"),
    ],
)
def test_each_wait_of_the_host_is_counted_with_its_reason(wait, reason):
    with counting() as counter:
        wait(torch.empty(3, 4, device=DEVICE))
    assert [found for found, _ in counter.waits.elements()] == [reason]


def test_what_makes_no_host_wait_counts_none():
    with counting() as counter:
        x = torch.empty(3, 4, device=DEVICE)
        x.to("cpu", non_blocking=True).tolist()
        torch.empty(3, pin_memory=True).to(DEVICE, non_blocking=True)
        figures = HostCopy(x)
        counter.step += 1
        assert figures.read() == [[0.0] * 4] * 3
        x[torch.zeros(2, dtype=torch.int64, device=DEVICE)] + torch.full((), 1.0, device=DEVICE)
    assert not counter.waits


def test_memory_is_that_of_the_storages_that_live():
    with counting() as counter:
        before = counter.memory.live
        x = torch.empty(1000, device=DEVICE)
        view = x[10:]
        assert counter.memory.live - before == 4000
        del x
        assert counter.memory.live - before == 4000, "a view keeps its storage"
        y = view * 2
        del view, y
        assert counter.memory.live == before
        assert counter.memory.peak - before == 4000 + 3960


def test_what_a_node_has_saved_is_freed_when_it_has_run():
    with counting() as counter:
        x = torch.empty(1000, device=DEVICE, requires_grad=True)
        before = counter.memory.live
        loss = (x.exp().exp().exp()).sum()
        assert counter.memory.live - before == 3 * 4000 + 4
        loss.backward()
        assert counter.memory.live - before == 4000 + 4, "the gradient and the loss"


def test_a_new_op_registers_its_rule(monkeypatch):
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))

    @rules.rule("aten::erfinv")
    def cost(arguments, result):
        return rules.Cost("loss", flops=7 * arguments[0].numel(), scratch=4000)

    with counting() as counter:
        x = torch.empty(5, device=DEVICE)
        y = torch.erfinv(x)
        assert counter.memory.peak == counter.memory.live + 4000
        del x, y
    assert [(x.cost.kind, x.cost.flops) for x in counter.operations] == [("loss", 35)]
