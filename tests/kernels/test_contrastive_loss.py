"""The Triton kernels of the contrastive loss as a GPU would get them: launches from the public op, and resources."""

from contextlib import ExitStack
from unittest import mock

import pytest
import torch

from benchmarks.roofline_contrastive_loss import counted_launches
from fgclip_fast.kernels import (
    contrastive_engine as engine,
    contrastive_gradient as gradient,
    contrastive_lse as lse,
    contrastive_side as sides,
    contrastive_tuning as tuning,
)
from fgclip_fast.kernels.lse import Lse
from fgclip_fast.ops import reference
from fgclip_fast.ops.contrastive_engine import mean_loss
from tests.ahead_of_time import fake_cuda, recorded_launches
from tests.exactness import error, with_gradients

ARCHITECTURES = tuple(tuning.TARGETS)
KINDS = {"bf16": (torch.bfloat16, "ieee"), "tf32": (torch.float32, "tf32"), "fp32": (torch.float32, "ieee")}
D = 768


def launches_of(N, D, kind="bf16", arch=90, ids=False, memory=2**30, tile=0):
    """What a loss with gradients launches for CUDA tensors, on a GPU that is not here; none without such a tile."""
    dtype, precision = KINDS[kind]
    found = []

    def nth(tiles):
        def of(*args):
            found.append(len(tiles(*args)))
            return tiles(*args)[min(tile, found[-1] - 1) :]

        return of

    def step():
        image, text = (torch.empty(N, D, dtype=dtype, device="cuda") for _ in range(2))
        text_ids = torch.empty(N, dtype=torch.int64, device="cuda") if ids else None
        engine.whole(image, text, torch.empty((), device="cuda"), text_ids, [True] * 3, memory)

    with ExitStack() as stack:
        stack.enter_context(fake_cuda())
        stack.enter_context(mock.patch.object(tuning, "target_of", lambda device: tuning.TARGETS[arch]))
        for name in ("lse_tiles", "gradient_tiles"):
            stack.enter_context(mock.patch.object(tuning, name, nth(getattr(tuning, name))))
        for module in (lse, gradient, sides):
            stack.enter_context(mock.patch.object(module, "precision_of", lambda x: precision))
        launches = recorded_launches(step, lse, gradient)
    return launches if tile < max(found) else []


def by_name(launches, name):
    return [launch for launch in launches if launch.kernel.fn.__name__ == name]


def problem(N, D=24, near=1.0, scale=50.0):
    random = torch.Generator().manual_seed(0)
    image = torch.randn(N, D, generator=random)
    return image, near * image + torch.randn(N, D, generator=random), torch.tensor(scale)


def whole(image, text, scale, ids=None, memory=2**20):
    """Loss and gradients of 3 times the loss, by the kernels."""
    rows, columns, positive, gradients = engine.whole(image, text, scale, ids, [True] * 3, memory)
    return [3 * mean_loss(rows, columns, positive), *(3 * grad for grad in gradients)]


def test_a_large_batch_takes_few_launches():
    """By bars of the design: 200 launches, where parts of 2048 x 2048 logits took 4,096."""
    assert counted_launches(65536, D, torch.bfloat16) <= 100
    assert counted_launches(131072, D, torch.bfloat16) <= 200
    assert counted_launches(1024, 512, torch.float32) <= 60


def test_a_launch_walks_over_all_columns_of_a_stripe_and_stores_half_precision():
    launches = launches_of(65536, D)
    stripes = by_name(launches, "_gradient_kernel")
    for stripe in stripes:
        weights = stripe.arguments["weights"].base
        assert weights.dtype == torch.bfloat16 and stripe.arguments["N"] == 65536
        assert weights.untyped_storage().nbytes() <= 2**30
    for with_maxima in (False, True):  # each stripe has a launch for either value of the flag; one of them is empty
        own = [stripe for stripe in stripes if stripe.arguments["ONLINE"] == with_maxima]
        assert sum(stripe.arguments["B"] for stripe in own) == 65536
        assert [stripe.arguments["first"] for stripe in own] == [i * 8192 for i in range(8)]
    assert len(by_name(launches, "_lse_kernel")) == 2


@pytest.mark.parametrize("N", [2, 1000, 65536])
def test_sums_and_stripes_keep_the_memory_budget(N):
    for memory in (2**26, 2**30):
        launches = launches_of(N, 64, memory=memory)
        for launch in by_name(launches, "_lse_kernel") + by_name(launches, "_gradient_kernel"):
            arguments = launch.arguments
            if "weights" in arguments:
                largest, least = (
                    arguments["weights"].base.untyped_storage().nbytes(),
                    2 * arguments["BLOCK_M"] * (N + 16),
                )
            else:
                largest = sum(arguments[f"{side}_sum_ptr"].untyped_storage().nbytes() for side in ("row", "column"))
                least = 4 * largest / arguments["B"] * arguments["BLOCK_M"]
            assert largest <= max(memory, least)


def test_persistent_programs_are_as_many_as_run_at_a_time():
    (first, _), (stripe, *_) = (by_name(launches_of(65536, D), name) for name in ("_lse_kernel", "_gradient_kernel"))
    assert first.arguments["TMA"] and first.grid == (132,) and stripe.grid == (264,)
    plain = by_name(launches_of(65536, D, arch=80), "_lse_kernel")[0]
    assert not plain.arguments["TMA"] and plain.grid == (512 * 512,)


def test_small_batches_take_small_tiles_so_that_every_processor_has_work():
    large, small = (by_name(launches_of(N, D), "_lse_kernel")[0] for N in (65536, 512))
    assert large.arguments["BLOCK_M"] * large.arguments["BLOCK_N"] == 256 * 128 and small.grid[0] == 64


def test_rows_that_tma_cannot_read_are_read_by_pointers():
    for width, readable in ((D, True), (500, False)):
        assert by_name(launches_of(65536, width), "_lse_kernel")[0].arguments["TMA"] == readable


CASES = [
    ("bf16", D, False, 0),
    *(
        pytest.param(kind, width, ids, i, marks=pytest.mark.slow)
        for kind in KINDS
        for width, ids in ((D, False), (D, True), (500, True))
        for i in range(4)
        if (kind, width, ids, i) != ("bf16", D, False, 0)
    ),
]


# Compiling takes five seconds: the consumer cards are left to the slow tests.
@pytest.mark.parametrize(
    "arch", [pytest.param(arch, marks=pytest.mark.slow) if arch in (89, 120) else arch for arch in ARCHITECTURES]
)
@pytest.mark.parametrize(("kind", "width", "ids", "i"), CASES)
def test_compiles_for_gpus_without_spills(arch, kind, width, ids, i):
    N = 65535 if ids else 65536  # odd sizes need masks
    launches = launches_of(N, width, kind, arch, ids, tile=i)
    if not launches:
        pytest.skip("no such tile for this GPU")
    different = {(launch.kernel.fn.__name__, str(launch.specialization())): launch for launch in launches}
    for launch in different.values():
        name, made = launch.kernel.fn.__name__, launch.resources(arch)
        print(f"{name} {launch.options} {kind} sm_{arch}: {made}")
        assert made.spills == 0 and made.shared <= tuning.TARGETS[arch].shared
        if name in ("_lse_kernel", "_gradient_kernel") and kind != "fp32":
            family = tuning._family(arch)
            assert {80: "mma.sync", 90: "wgmma", 100: "tcgen05.mma"}[family] in made.ptx


def test_epilogue_on_sm_90_is_short_and_takes_one_exponential_a_logit():
    launch = by_name(launches_of(65536, D), "_lse_kernel")[0]
    made, values = launch.resources(90), 256 * 128 // 256  # logits of a thread
    opcodes = made.opcodes()
    last = max(i for i, opcode in enumerate(opcodes) if opcode.startswith("HGMMA"))
    assert (len(opcodes) - last) * 128 // values * 64 // 128 <= 850  # of a 128 x 128 tile, 64 logits a thread
    assert sum(opcode.startswith("MUFU.EX2") for opcode in opcodes) == values
    stripe = by_name(launches_of(65536, D), "_gradient_kernel")[0]
    assert sum(opcode.startswith("MUFU.EX2") for opcode in stripe.resources(90).opcodes()) == 128 * 128 // 256


def test_128_wide_tiles_leave_room_for_a_second_program_on_an_h100():
    launch = by_name(launches_of(65536, D, tile=2), "_lse_kernel")[0]
    assert launch.arguments["BLOCK_M"] == launch.arguments["BLOCK_N"] == 128 and launch.resources(90).ctas(90) == 2


def test_an_architecture_with_tensor_memory_specialises_its_warps():
    for name in ("_lse_kernel", "_gradient_kernel"):
        launch = by_name(launches_of(65536, D, arch=100), name)[0]
        assert launch.arguments["WARP_SPECIALIZE"] and launch.resources(100).warps > launch.options["num_warps"]


@pytest.mark.parametrize("scale", [1.0, 50.0, 69.0, 100.0, 300.0])
@pytest.mark.parametrize("sign", [1, -1], ids=["near", "opposite"])
def test_sums_without_a_maximum_are_used_only_where_they_cannot_underflow(scale, sign):
    image, text, scale = problem(40, scale=scale)
    text = sign * image + 0.1 * text
    with mock.patch.object(gradient, "shares", wraps=lse.shares) as shares:
        ours = whole(image, text, scale)
    flag = shares.call_args.args[2].item()
    # Opposite texts have no logit near the bound; at 300 all exponentials of a row are below 2^-80.
    assert flag == (sign < 0 and scale == 300)
    exact = with_gradients(reference.contrastive_loss, image, text, scale, dtype=torch.float64)
    for mine, truth in zip(ours, exact, strict=True):
        assert error(mine, truth) <= 4e-7 * max(scale, 10) * max(1.0, truth.abs().max().item())


def test_one_lost_column_makes_all_sums_run_again_with_maxima():
    image, text, scale = problem(70, scale=200.0, near=3.0)
    image[:, 0] = image[:, 0].abs() + 50
    text[:, 0] = text[:, 0].abs() + 50
    text[5] = -image.mean(0)
    exact = with_gradients(reference.contrastive_loss, image, text, scale, dtype=torch.float64)
    for mine, truth in zip(whole(image, text, scale), exact, strict=True):
        assert error(mine, truth) <= 1e-4 * max(1.0, truth.abs().max().item())


def test_ranks_may_disagree_on_how_they_summed():
    """The log-sum-exps of one rank may come with maxima, and the other's without."""
    image, text, scale = problem(32, scale=30.0)
    (row_lse, positive), (column_lse, _) = (
        engine.own_lse(a, b, scale, None, 0) for a, b in ((image, text), (text, image))
    )
    moved = Lse(column_lse.maximum + 0.37, column_lse.log - 0.37)
    plain, other = (engine.own_gradient(image, text, scale, row_lse, lse, None, 0) for lse in (column_lse, moved))
    for a, b in zip(plain, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert (row_lse.maximum + row_lse.log >= positive - 1e-4).all()


def test_stripes_of_any_height_give_the_same_loss():
    image, text, scale = problem(140, 16)
    ids = torch.arange(140) % 50
    one, many = whole(image, text, scale, ids, 2**30), whole(image, text, scale, ids, 1)
    for a, b in zip(one, many, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture
def matmul():
    """torch's options of products on a GPU, restored afterwards."""
    options = torch.backends.cuda.matmul
    before = options.fp32_precision
    yield options
    options.fp32_precision = before


def test_fp32_products_are_as_exact_as_the_user_asks_by_either_api(matmul):
    x = torch.empty(0)
    for choice, expected in (("tf32", "tf32"), ("ieee", "ieee"), ("none", "ieee")):
        matmul.fp32_precision = choice
        assert sides.precision_of(x) == expected and sides.precision_of(x.bfloat16()) == "ieee"
    before = torch.get_float32_matmul_precision()
    for choice, expected in (("high", "tf32"), ("highest", "ieee")):
        torch.set_float32_matmul_precision(choice)
        assert sides.precision_of(x) == expected
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", KINDS)
def test_only_fp32_that_may_be_rounded_is_multiplied_as_tf32(kind):
    for name in ("_lse_kernel", "_positive_kernel", "_gradient_kernel"):
        launch = by_name(launches_of(64, 32, kind), name)[0]
        assert launch.arguments["PRECISION"] == ("tf32" if kind == "tf32" else "ieee")


def test_tf32_operands_are_rounded_not_truncated(matmul):
    x = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    matmul.fp32_precision = "tf32"
    rounded = sides.side(x, None).embedding
    assert sides.side(x.bfloat16(), None).embedding.equal(x.bfloat16())
    assert not (rounded.view(torch.int32) & 0x1FFF).any()  # a tensor core has nothing left to cut off
    off = (rounded.double() - x.double()) / x.double()
    # Of 64,000 errors the mean is 8e-7 in size; cutting off would make it 2e-4.
    assert off.abs().max() <= 2**-11 and off.mean().abs() < 4e-6
    matmul.fp32_precision = "ieee"
    assert sides.side(x, None).embedding is x


def test_tf32_loss_and_gradients_are_those_of_the_rounded_rows(matmul):
    image, text, scale = problem(70, 48, near=30.0, scale=100.0)
    matmul.fp32_precision = "tf32"
    ours = whole(image, text, scale)
    rounded = *(sides.rounded_to_tf32(x) for x in (image, text)), scale
    exact = with_gradients(reference.contrastive_loss, *rounded, dtype=torch.float64)
    for mine, truth in zip(ours[1:], exact[1:], strict=True):
        assert error(mine, truth) <= 3e-5 * max(1.0, truth.abs().max().item())


def test_what_was_fastest_is_remembered_and_a_folder_that_refuses_does_not_matter(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuning._remember({"a card": [128, 128]})
    tuning._remembered.cache_clear()
    assert tuning._remembered() == {"a card": [128, 128]}
    tuning._remembered.cache_clear()
    assert [f.name for f in (tmp_path / "fgclip_fast").iterdir()] == ["contrastive_loss.json"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tuning._remember({})


def test_sizes_that_change_from_step_to_step_are_not_timed_anew():
    keys = {tuning.key_of(*[sides.side(torch.empty(R, 8), None)] * 2) for R in (1025, 1500, 2048)}
    assert len(keys) == 1
