"""The hard-negative loss: C++ and Triton agree with the eager spec, and hold at the edges."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given, strategies as st

from fgclip_fast.kernels import hard_negative_loss as kernels
from fgclip_fast.ops import hard_negative_loss, hard_negative_scores, native, reference
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, error, with_gradients
from tests.op_module import op_module

op = op_module("hard_negative_loss")
GPU = torch.cuda.is_available()


@pytest.fixture(params=["c++", "triton"])
def device(request):
    """The CPU, served by C++; then what Triton serves: the GPU, or where there is none the CPU, by its interpreter."""
    assert native.why_not("hard_negative_loss", "cpu") is None
    if request.param == "c++" or GPU:
        yield torch.device("cpu" if request.param == "c++" else "cuda")
        return
    op._forward.register_kernel("cpu")(kernels.forward)
    op._backward.register_kernel("cpu")(kernels.backward)
    yield torch.device("cpu")
    op._forward.register_kernel("cpu")(op._forward_cpu)
    op._backward.register_kernel("cpu")(op._backward_cpu)


def problem(sizes, D, dtype=torch.float32, device="cpu", seed=0, scale=50.0):
    """Regions, their texts (as many as ``sizes`` says, the first near its region), offsets and scale."""
    random = torch.Generator().manual_seed(seed)
    regions = torch.randn(len(sizes), D, generator=random)
    texts = torch.randn(sum(sizes), D, generator=random) + regions.repeat_interleave(torch.tensor(sizes).long(), 0)
    offsets = torch.tensor([0, *accumulate(sizes)], device=device)
    statistics = torch.promote_types(dtype, torch.float32)
    rows = (x.to(device, dtype) for x in (regions, texts))
    return *rows, offsets, torch.tensor(scale, dtype=statistics, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("D", [1, 33, 512])
@pytest.mark.parametrize("sizes", [[], [1], [11], [1, 1, 11], [1, 11, 3, 37]], ids=str)  # texts of each region
def test_is_as_exact_as_eager(device, sizes, D, dtype, request):
    inputs = problem(sizes, D, dtype, device)
    # The floor is fp32 rounding of a logit at scale 50, felt by the shortest row; where a GPU rounds to bf16, Triton's
    # interpreter truncates.
    floor = 1e-5 / min([1.0, *(row.norm().item() for x in inputs[:2] for row in x.float())])
    interpreted = request.node.callspec.params["device"] == "triton" and not GPU
    truncation = torch.finfo(dtype).eps if interpreted and dtype == torch.bfloat16 else 0.0
    losses = hard_negative_loss, reference.hard_negative_loss
    assert_as_exact_as_eager(*losses, *inputs, floor=floor, rounding=truncation)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [[], [1], [1, 11, 3, 37]], ids=str)
def test_scores_are_those_of_eager(device, sizes, dtype):
    regions, texts, offsets, _ = problem(sizes, 33, dtype, device)
    scores = hard_negative_scores(regions, texts, offsets)
    similarity, rank = reference.hard_negative_scores(regions, texts, offsets)
    torch.testing.assert_close(scores.similarity, similarity)
    assert scores.rank.equal(rank) and scores.correct.equal(rank == 0)


def test_scores_rank_a_region_by_its_own_texts_alone(device):
    regions = torch.eye(2, device=device)
    texts = torch.tensor([[1.0, 0], [0, 1], [1, 9], [0, 5], [-1, 2]], device=device)  # 1 right of 2, beaten by 1 of 3
    scores = hard_negative_scores(regions, texts, torch.tensor([0, 2, 5], device=device))
    assert scores.rank.tolist() == [0, 1] and scores.correct.tolist() == [True, False]


@pytest.mark.parametrize("D", [7, 512])
def test_tie_with_the_positive_is_correct_and_nan_is_not(device, D):
    regions, texts, offsets, _ = problem([12, 2], D, device=device)
    texts[1:12] = texts[0]
    texts[12] = torch.nan
    assert hard_negative_scores(regions, texts, offsets).correct.tolist() == [True, False]


def test_without_any_negative_is_exactly_zero(device):
    for sizes in ([], [1, 1, 1]):
        for value in with_gradients(hard_negative_loss, *problem(sizes, 8, device=device)):
            assert value.eq(0).all()


def test_group_of_one_changes_nothing(device):
    regions, texts, offsets, scale = problem([1, 5, 1, 3], 16, device=device)
    keep = torch.tensor([1, 2, 3, 4, 5, 7, 8, 9], device=device)
    alone = (regions[[1, 3]], texts[keep], torch.tensor([0, 5, 8], device=device), scale)
    torch.testing.assert_close(hard_negative_loss(regions, texts, offsets, scale), hard_negative_loss(*alone))


def test_zero_row_has_similarity_and_gradient_zero(device):
    regions, texts, offsets, scale = problem([4, 4], 16, device=device)
    regions[1], texts[2] = 0, 0
    loss, grad_regions, grad_texts, _ = with_gradients(hard_negative_loss, regions, texts, offsets, scale)
    similarity = hard_negative_scores(regions, texts, offsets).similarity
    assert loss.isfinite() and similarity[2] == 0 and similarity[4:].eq(0).all()
    assert grad_regions[1].eq(0).all() and grad_texts[2].eq(0).all() and grad_texts[1].ne(0).any()


def test_small_loss_keeps_its_digits_at_a_large_scale(device):
    regions = torch.tensor([[1.0, 0]], device=device)
    texts = torch.tensor([[1.0, 0], [0.995, 0.0999]], device=device)  # 1 and 0.995 of 500: loss 0.08
    inputs = (regions, texts, torch.tensor([0, 2], device=device), torch.tensor(500.0, device=device))
    loss, *_ = with_gradients(hard_negative_loss, *inputs)
    exact, *_ = with_gradients(reference.hard_negative_loss, *inputs, dtype=torch.float64)
    assert error(loss, exact) < 1e-5


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9), seed=st.integers(0, 2**31 - 1))
def test_order_of_negatives_does_not_matter(sizes, seed):
    regions, texts, offsets, scale = problem(sizes, D=16, seed=seed)
    reordered = torch.cat([torch.cat([own[:1], own[1:].flip(0)]) for own in texts.split(sizes)])
    torch.testing.assert_close(*(hard_negative_loss(regions, t, offsets, scale) for t in (texts, reordered)))


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9), seed=st.integers(0, 2**31 - 1))
def test_length_of_rows_does_not_matter(sizes, seed):
    regions, texts, offsets, scale = problem(sizes, D=16, seed=seed)
    stretch = torch.rand(len(texts), 1) * 100 + 0.01
    torch.testing.assert_close(*(hard_negative_loss(regions, t, offsets, scale) for t in (texts, texts * stretch)))


def test_reads_only_its_own_rows_of_wider_ones(device):
    inputs = problem([1, 11, 3], 33, device=device)
    offsets, scale = inputs[2:]
    plain = with_gradients(hard_negative_loss, *inputs)
    wide = [torch.full((len(x) + 2, 40), torch.nan, device=device) for x in inputs[:2]]
    regions, texts = (w[1:-1, 3:36].copy_(x).requires_grad_() for w, x in zip(wide, inputs, strict=False))
    assert not texts.is_contiguous()
    grads = torch.autograd.grad(3 * hard_negative_loss(regions, texts, offsets, scale), (regions, texts))
    assert all(a.equal(b) for a, b in zip(grads, plain[1:3], strict=True))
    columns = [x.t().contiguous().t() for x in inputs[:2]]
    assert with_gradients(hard_negative_loss, *columns, offsets, scale)[0].equal(plain[0])


def test_offsets_may_be_int32(device):
    regions, texts, offsets, scale = problem([1, 11, 3], 33, device=device)
    results = [hard_negative_loss(regions, texts, o, scale) for o in (offsets, offsets.int())]
    assert results[0].equal(results[1])


def test_gradients_are_those_of_finite_differences(device):
    regions, texts, offsets, scale = problem([1, 4, 2], 5, torch.float64, device, scale=3.0)
    leaves = [x.requires_grad_() for x in (regions, texts, scale)]
    assert torch.autograd.gradcheck(lambda r, t, s: hard_negative_loss(r, t, offsets, s), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_is_a_well_behaved_custom_op(device, dtype):
    for sizes in ([], [1, 11, 3]):
        regions, texts, offsets, scale = problem(sizes, 16, dtype, device)
        leaves = [x.requires_grad_() for x in (regions, texts, scale)]
        torch.library.opcheck(op._forward, (leaves[0], leaves[1], offsets, leaves[2]))


def test_compiles_into_one_graph():
    compiled = torch.compile(hard_negative_loss, fullgraph=True, backend="aot_eager")
    for sizes in ([1, 11, 3], [2, 2]):
        inputs = problem(sizes, 16)
        results = [with_gradients(loss, *inputs) for loss in (compiled, hard_negative_loss)]
        assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_second_derivative_raises(device):
    regions, texts, offsets, scale = problem([3], 4, device=device)
    loss = hard_negative_loss(regions.requires_grad_(), texts, offsets, scale)
    (grad,) = torch.autograd.grad(loss, regions, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gives_the_same_bits_on_any_number_of_threads(dtype):
    inputs = problem([11, 1, 3, 40] * 64, 33, dtype)
    assert_same_bits(lambda: with_gradients(hard_negative_loss, *inputs))


def test_runs_the_reference_where_nothing_faster_is(monkeypatch):
    monkeypatch.setattr(native, "serves", lambda *_: False)
    inputs = problem([1, 11, 3], 16)
    assert hard_negative_loss(*inputs).equal(reference.hard_negative_loss(*inputs))
    assert hard_negative_scores(*inputs[:3]).rank.equal(reference.hard_negative_scores(*inputs[:3])[1])


BAD_ARGUMENTS = {
    r"regions must be \[R, D\] of fp32, fp16 or bf16, got \[2\]": {"regions": torch.zeros(2)},
    r"regions must be .*, got \[2, 8\] of torch.int64": {"regions": torch.zeros(2, 8).long()},
    r"texts must be \[M, 8\] of torch.float32, got \[5, 7\]": {"texts": torch.zeros(5, 7)},
    r"texts must be .*, got \[5, 8\] of torch.bfloat16": {"texts": torch.zeros(5, 8).bfloat16()},
    r"texts must be on cpu like regions, got meta": {"texts": torch.zeros(5, 8, device="meta")},
    r"offsets must be \[R \+ 1\] = \[3\] of int32 or int64, got \[2\]": {"offsets": torch.tensor([0, 5])},
    r"offsets must be .*, got \[3\] of torch.float32": {"offsets": torch.tensor([0.0, 2, 5])},
    r"offsets must run from 0 to M = 5, got 0 to 6": {"offsets": torch.tensor([0, 2, 6])},
    r"offsets must run from 0 to M = 5, got 1 to 5": {"offsets": torch.tensor([1, 2, 5])},
    r"offsets must rise, got \[5, 5\] at region 1": {"offsets": torch.tensor([0, 5, 5])},
    r"scale must be \[\] of torch.float32 on cpu, got \[1\]": {"scale": torch.ones(1)},
    r"scale must be .*, got \[\] of torch.float64 on cpu": {"scale": torch.tensor(1.0).double()},
}


@pytest.mark.parametrize("message", BAD_ARGUMENTS)
@pytest.mark.parametrize("served", [True, False], ids=["c++", "reference"])
def test_error_names_the_argument(message, served, monkeypatch):
    monkeypatch.setattr(native, "serves", lambda *_: served)
    arguments = dict(zip(("regions", "texts", "offsets", "scale"), problem([2, 3], D=8), strict=True))
    with pytest.raises(ValueError, match="hard_negative_loss: " + message):
        hard_negative_loss(**arguments | BAD_ARGUMENTS[message])


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device")
def test_offsets_are_read_on_a_gpu_when_asked(monkeypatch):
    regions, texts, _, scale = problem([2, 3], D=8, device="cuda")
    monkeypatch.setenv("FGCLIP_CHECK", "1")
    with pytest.raises(ValueError, match="offsets must rise"):
        hard_negative_loss(regions, texts, torch.tensor([0, 5, 5], device="cuda"), scale)
