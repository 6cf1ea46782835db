"""The contrastive loss: C++, Triton and plain torch agree with the eager spec, and hold at the edges."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from fgclip_fast.kernels import contrastive_engine, contrastive_tuning as tuning
from fgclip_fast.ops import contrastive_loss, contrastive_torch, native, reference
from tests import exactness
from tests.exactness import assert_same_bits, error, with_gradients
from tests.op_module import op_module

op, autograd = op_module("contrastive_loss"), op_module("contrastive_autograd")
GPU = torch.cuda.is_available()


@pytest.fixture(autouse=True)
def one_thread():
    """Problems are small here: threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["c++", "torch", "triton"])
def device(request, monkeypatch):
    """The CPU, served by C++ or plain torch; then what Triton serves: the GPU, or by its interpreter the CPU."""
    if request.param == "c++":
        assert native.why_not("contrastive_loss", "cpu") is None
    if request.param == "torch":
        monkeypatch.setattr(contrastive_torch, "NativeLogits", contrastive_torch.Logits)
    if request.param == "triton":
        small_stripes(monkeypatch)
        if GPU:
            return torch.device("cuda")
        monkeypatch.setattr(op, "_engine", lambda rows: contrastive_engine if len(rows) > 1 else contrastive_torch)
    return torch.device("cpu")


def small_stripes(monkeypatch):
    """Small tiles, and stripes of few rows: many of both, as large problems have."""
    small = [tuning.Tile(32, 16, 16, 4, 2, tma=True), tuning.Tile(16, 32, 16, 4, 2)]

    def tiles(target, rows, columns, precision):
        plain = not all(tuning._has_tma(side.embedding) for side in (rows, columns))
        return small[plain:]

    monkeypatch.setattr(tuning, "lse_tiles", tiles)
    monkeypatch.setattr(tuning, "gradient_tiles", tiles)
    monkeypatch.setattr(tuning, "rows_that_fit", lambda memory, row, B, block: min(B, 64))


def small_chunks(monkeypatch, rows=37):
    monkeypatch.setattr(contrastive_torch, "CHUNK_ROWS", rows)
    monkeypatch.setattr(contrastive_torch, "CHUNK_BYTES", 0)


def problem(N, D, dtype=torch.float32, device="cpu", scale=50.0, near=1.0, seed=0):
    """Images, texts near them, and a scale."""
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(N, D, generator=random)
    text = near * image + torch.randn(N, D, generator=random)
    statistics = torch.promote_types(dtype, torch.float32)
    return image.to(device, dtype), text.to(device, dtype), torch.tensor(scale, dtype=statistics, device=device)


def repeated_ids(N, device="cpu"):
    return torch.randint(max(1, N // 3), (N,), generator=torch.Generator().manual_seed(1)).to(device)


def assert_as_exact_as_eager(inputs, text_ids=None, **options):
    # The floor: fp32 rounding of a logit at this scale, felt by the shortest row.
    scale, dtype = inputs[2].item(), inputs[0].dtype
    shortest = min([1.0, *(row.norm().item() for x in inputs[:2] for row in x.float() if row.any())])
    exactness.assert_as_exact_as_eager(
        partial(contrastive_loss, **options),
        reference.contrastive_loss,
        *inputs,
        text_ids=text_ids,
        floor=4e-7 * max(scale, 10) / shortest,
        # On a GPU, gradients between products have the dtype of the inputs.
        rounding=2 * torch.finfo(dtype).eps if GPU and dtype != torch.float32 else 0.0,
    )


@pytest.mark.parametrize("D", [1, 48, 512, 640, 768, 1024])
@pytest.mark.parametrize("N", [0, 1, 2, 3, 127, 128, 1000])
def test_is_as_exact_as_eager(N, D):
    assert_as_exact_as_eager(problem(N, D))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("N", "D"), [(1, 1), (3, 48), (130, 40)])
@pytest.mark.parametrize("ids", [False, True], ids=["all-negative", "ids"])
def test_is_as_exact_as_eager_in_any_dtype(device, N, D, dtype, ids, request):
    if dtype == torch.bfloat16 and request.node.callspec.params["device"] == "triton" and not GPU:
        pytest.skip("Triton's interpreter multiplies bf16 wrongly")
    inputs = problem(N, D, dtype, device)
    text_ids = repeated_ids(N, device) if ids else None
    if dtype == torch.float16 and request.node.callspec.params["device"] == "triton":
        ours = with_gradients(contrastive_loss, *inputs, text_ids=text_ids)
        exact = with_gradients(reference.contrastive_loss, *inputs, dtype=torch.float64, text_ids=text_ids)
        for mine, truth in zip(ours, exact, strict=True):  # gradients between products are fp16, as under autocast
            assert error(mine, truth) <= 2e-3 * truth.abs().max() + 2e-5
    else:
        assert_as_exact_as_eager(inputs, text_ids)


@pytest.mark.parametrize("kept_rows", [0, 80, 1000])
@pytest.mark.parametrize("N", [36, 37, 38, 127, 300])
def test_chunks_need_not_divide_the_batch_nor_be_kept(monkeypatch, N, kept_rows):
    small_chunks(monkeypatch)
    budget = 4 * (4 * N * 48 + contrastive_torch.chunk_rows(N, N) * N + kept_rows * N)
    assert_as_exact_as_eager(problem(N, 48), memory_budget=budget)
    assert_as_exact_as_eager(problem(N, 48), repeated_ids(N), memory_budget=budget)


@pytest.mark.parametrize("ids", [False, True], ids=["all-negative", "ids"])
def test_rows_of_ranks_side_by_side_have_the_gradient_of_the_batch(device, ids):
    """What each of two ranks computes between the collectives, for both directions of a batch of 140."""
    image, text, scale = inputs = problem(140, 24, device=device)
    text_ids, own = repeated_ids(140, device) if ids else None, (slice(0, 70), slice(70, 140))
    ids_of = {r.start: (text_ids[r], text_ids) if ids else (None, None) for r in own}
    pairs = (image, text), (text, image)
    lses = [torch.cat([op._own_lse(a[r], b, scale, *ids_of[r.start], r.start)[0] for r in own], 1) for a, b in pairs]
    *exact, exact_scale = with_gradients(reference.contrastive_loss, *inputs, dtype=torch.float64, text_ids=text_ids)[
        1:
    ]
    for (a, b), lse, other_lse, expected in zip(pairs, lses, lses[::-1], exact, strict=True):
        parts = [op._own_gradient(a[r], b, scale, lse[:, r], other_lse, *ids_of[r.start], r.start) for r in own]
        mine = 3 * torch.cat([rows for rows, _ in parts]) / len(own)  # a rank's is times the number of ranks
        assert error(mine, expected) <= 1e-5 * expected.abs().max()
        assert error(3 * sum(s for _, s in parts) / len(own), exact_scale) <= 1e-4 * exact_scale.abs()


@pytest.mark.parametrize("scale", [100.0, 200.0])
def test_texts_opposite_to_images_do_not_underflow(device, scale):
    image, _, scale = problem(40, 48, device=device, scale=scale)
    assert_as_exact_as_eager((image, -image, scale))
    assert_as_exact_as_eager((image[:1].expand(40, 48), -image, scale))


def test_sums_over_many_rows_keep_their_digits():
    """One running fp32 sum of a column would be off by 1e-5 here."""
    image, text, scale = problem(2**14, 2, scale=3.0)
    _, columns, _ = contrastive_torch.logits_of(image, text, scale).statistics()
    cosines = F.normalize(image.double(), dim=1) @ F.normalize(text[:64].double(), dim=1).T
    exact = (scale * cosines).logsumexp(0) / math.log(2)
    assert error((columns.maximum.double() + columns.log)[:64], exact) < 3e-6


def test_identical_rows_share_the_probability(device):
    image, text, scale = problem(1, 48, device=device)
    inputs = image.expand(66, 48), text.expand(66, 48), scale
    loss, grad_image, *_ = with_gradients(contrastive_loss, *inputs)
    assert error(loss, 3 * torch.tensor(66.0).log().double()) < 1e-5 and grad_image.abs().max() < 1e-5


def test_small_loss_keeps_its_digits_at_a_large_scale(device):
    image = torch.tensor([[1.0, 0], [0.995, 0.0999]], device=device)  # 1 and 0.995 of 500: loss 0.08
    inputs = image, image.clone(), torch.tensor(500.0, device=device)
    exact, *_ = with_gradients(reference.contrastive_loss, *inputs, dtype=torch.float64)
    assert error(with_gradients(contrastive_loss, *inputs)[0], exact) < 1e-4


def test_zero_row_has_gradient_zero(device):
    image, text, scale = problem(5, 16, device=device)
    image[1], text[2] = 0, 0
    assert_as_exact_as_eager((image, text, scale))
    _, grad_image, grad_text, _ = with_gradients(contrastive_loss, image, text, scale)
    assert grad_image[1].eq(0).all() and grad_text[2].eq(0).all() and grad_text[1].ne(0).any()


def test_nan_is_passed_on(device):
    image, text, scale = problem(5, 16, device=device)
    image[3, 2] = torch.nan
    assert contrastive_loss(image, text, scale).isnan()


def test_none_and_one_pair_cost_nothing(device):
    for N in (0, 1):
        for value in with_gradients(contrastive_loss, *problem(N, 8, device=device)):
            assert value.abs().max() < 1e-5 if value.numel() else True
    assert contrastive_loss(*problem(1, 8, device=device)) == 0


def test_without_a_negative_is_zero(device):
    inputs = problem(70, 48, device=device)
    ids = torch.full((70,), 5, device=device)
    for value in with_gradients(contrastive_loss, *inputs, text_ids=ids):
        assert value.abs().max() < 1e-5


def test_distinct_ids_change_nothing(device):
    inputs = problem(70, 48, device=device)
    ids = torch.arange(70, device=device) * 2**40
    results = [with_gradients(contrastive_loss, *inputs, text_ids=i) for i in (None, ids)]
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_reads_only_its_own_rows_of_wider_ones(device):
    inputs = problem(70, 33, device=device)
    plain = with_gradients(contrastive_loss, *inputs)
    wide = [torch.full((72, 40), torch.nan, device=device) for _ in range(2)]
    views = [w[1:-1, 3:36].copy_(x) for w, x in zip(wide, inputs, strict=False)]
    columns = [x.t().contiguous().t() for x in inputs[:2]]
    ids = torch.arange(140, device=device)[::2]
    for image, text in (views, columns):
        leaves = [x.requires_grad_() for x in (image, text)]
        grads = torch.autograd.grad(3 * contrastive_loss(*leaves, inputs[2], text_ids=ids), leaves)
        for ours, theirs in zip(grads, plain[1:3], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_finite_differences():
    inputs = [x.requires_grad_() for x in problem(4, 5, torch.float64, scale=3.0)]
    for loss in (reference.contrastive_loss, contrastive_loss):
        for ids in (None, torch.tensor([0, 1, 0, 2])):
            assert torch.autograd.gradcheck(lambda i, t, s, loss=loss, ids=ids: loss(i, t, s, text_ids=ids), inputs)


def test_is_a_set_of_well_behaved_custom_ops():
    (image, text, scale), ids = problem(6, 8), repeated_ids(6)
    grads = torch.randn(6, 8), torch.randn(6, 8), torch.tensor(1.0)
    leaves = [x.clone().requires_grad_() for x in (image, text, scale)]
    for text_ids, wanted in ((None, [True] * 3), (ids, [False, True, False]), (None, [False] * 3)):
        torch.library.opcheck(op._whole, (image, text, scale, text_ids, 2**20, wanted))
    torch.library.opcheck(autograd.attach, (*leaves, torch.tensor(2.0), *grads))
    torch.library.opcheck(autograd._backward, (torch.tensor(2.0), *grads, image, text, scale))
    rows = image[2:5], text, scale
    lse, _ = op._own_lse(*rows, ids[2:5], ids, 2)
    torch.library.opcheck(op._own_lse, (*rows, ids[2:5], ids, 2))
    torch.library.opcheck(op._own_gradient, (*rows, lse, torch.randn(2, 6), None, None, 2))


def test_compiles_into_one_graph():
    compiled = torch.compile(contrastive_loss, fullgraph=True, backend="aot_eager")
    for N in (6, 9):
        inputs = problem(N, 16)
        results = [with_gradients(loss, *inputs, text_ids=repeated_ids(N)) for loss in (compiled, contrastive_loss)]
        assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_autocast_changes_nothing(device):
    inputs = problem(20, 16, device=device)
    plain = with_gradients(contrastive_loss, *inputs)
    with torch.autocast(device.type, torch.bfloat16):
        mixed = with_gradients(contrastive_loss, *inputs)
    assert all(a.equal(b) for a, b in zip(plain, mixed, strict=True))


@pytest.mark.parametrize("wanted", range(8))
def test_makes_only_the_gradients_that_somebody_wants(device, wanted):
    inputs = problem(20, 16, device=device)
    full = with_gradients(contrastive_loss, *inputs)[1:]
    leaves = [x.clone().requires_grad_(bool(wanted >> i & 1)) for i, x in enumerate(inputs)]
    loss = 3 * contrastive_loss(*leaves)
    assert loss.requires_grad == bool(wanted)
    for leaf, grad in zip(leaves, full, strict=True):
        if leaf.requires_grad:
            torch.testing.assert_close(torch.autograd.grad(loss, leaf, retain_graph=True)[0], grad)


def test_does_no_gradient_work_that_nobody_wants(monkeypatch):
    image, text, scale = problem(20, 16)
    expected = contrastive_loss(image, text, scale)
    monkeypatch.setattr(contrastive_torch.Logits, "gradients", None)
    assert contrastive_loss(image, text, scale).equal(expected)
    with torch.no_grad():
        assert contrastive_loss(image.requires_grad_(), text, scale).equal(expected)


def test_gradients_that_are_handed_out_twice_stay_what_they_were(device):
    """Two losses share an embedding, so autograd adds up what each handed out."""
    image, text, scale = (x.requires_grad_() for x in problem(20, 16, device=device))
    both = contrastive_loss(image * 1, text, scale) + contrastive_loss(image * 1, text.flip(0), scale)
    first, again = (torch.autograd.grad(both, (image, text, scale), retain_graph=True) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    both.backward(retain_graph=True)
    both.backward()
    assert all(x.grad.equal(2 * grad) for x, grad in zip((image, text, scale), first, strict=True))


def test_second_derivative_raises(device):
    image, text, scale = problem(3, 4, device=device)
    (grad,) = torch.autograd.grad(contrastive_loss(image.requires_grad_(), text, scale), image, create_graph=True)
    with pytest.raises(RuntimeError, match="contrastive_loss: it can be differentiated once only"):
        grad.sum().backward()


def test_keeps_for_backward_two_gradients_and_no_logits(device):
    N, D, saved = 100, 16, []
    inputs = [x.requires_grad_() for x in problem(N, D, torch.float32, device)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        contrastive_loss(*inputs)
    inputs_themselves = {x.data_ptr() for x in inputs}
    assert sum(x.nbytes for x in saved if x.data_ptr() not in inputs_themselves) <= 4 * (2 * N * D + 1)


def test_runs_in_a_checkpoint_that_unpacks_what_is_saved_once(device):
    inputs = [x.requires_grad_() for x in problem(20, 8, device=device)]
    plain = torch.autograd.grad(contrastive_loss(*inputs), inputs)
    again = torch.utils.checkpoint.checkpoint(contrastive_loss, *inputs, use_reentrant=False)
    assert all(a.equal(b) for a, b in zip(torch.autograd.grad(again, inputs), plain, strict=True))


def test_vmap_is_refused_since_it_would_lose_the_gradient():
    image, text, scale = problem(6, 4)
    with pytest.raises(RuntimeError, match=r"do not support torch\.vmap"):
        torch.vmap(contrastive_loss, (0, 0, None))(image.view(2, 3, 4), text.view(2, 3, 4), scale)


@pytest.mark.parametrize("memory_budget", [0, 2**30], ids=["recomputed", "kept"])
def test_gives_the_same_bits_twenty_times(monkeypatch, memory_budget):
    small_chunks(monkeypatch, rows=128)
    inputs = problem(600, 64)
    assert_same_bits(lambda: with_gradients(contrastive_loss, *inputs, memory_budget=memory_budget))


def changed(**changes):
    image, text, scale = problem(3, 4)
    return {"image": image, "text": text, "scale": scale} | changes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(image=[[1.0]]), "image must be a tensor, got list"),
        (changed(scale=20.0), "scale must be a tensor, got float"),
        (changed(memory_budget=-1), "memory_budget must be at least 0 bytes, got -1"),
        (changed(image=torch.zeros(3)), r"image must be \[B, D\] of floats, got \[3\]"),
        (changed(image=torch.zeros(3, 4, dtype=torch.int32)), r"image must be .* got \[3, 4\] torch.int32"),
        (changed(text=torch.zeros(2, 4)), r"text must be like image, \[3, 4\] .* got \[2, 4\]"),
        (changed(text=torch.zeros(3, 4).half()), "text must be like image, .* got .* torch.float16"),
        (changed(scale=torch.zeros(1)), r"scale must be one float, \[\], on cpu, got \[1\]"),
        (changed(text_ids=torch.zeros(2).long()), r"text_ids must be \[B\] = \[3\] int64, got \[2\] torch.int64"),
        (changed(text_ids=torch.zeros(3)), r"text_ids must be \[B\] = \[3\] int64, got \[3\] torch.float32"),
    ],
)
def test_error_names_the_argument(arguments, message):
    with pytest.raises(ValueError, match="contrastive_loss: " + message):
        contrastive_loss(**arguments)
