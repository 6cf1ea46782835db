"""The Triton kernels of the contrastive loss as a GPU would get them: launches from the public op, and resources."""

from unittest import mock

import pytest
import torch

from fgclip_fast.kernels import contrastive_engine as triton_engine
from fgclip_fast.kernels import contrastive_loss as kernels
from fgclip_fast.kernels import contrastive_tuning as tuning
from fgclip_fast.ops import contrastive_loss, reference
from tests.ahead_of_time import ARCHITECTURES, fake_cuda, recorded_launches
from tests.exactness import error, with_gradients
from tests.op_module import op_module

op, autograd = op_module("contrastive_loss"), op_module("contrastive_autograd")
KINDS = {"bf16": (torch.bfloat16, "ieee"), "tf32": (torch.float32, "tf32"), "fp32": (torch.float32, "ieee")}


def launches_of(N, D, kind, arch=90, ids=False, config=0):
    """What the public op launches for CUDA tensors that need gradients, on a GPU that is not here."""
    dtype, precision = KINDS[kind]
    # A custom op answers fake tensors by its fake; these are the functions behind.
    whole, attach = mock.patch.object(op, "_whole", op._whole._init_fn), autograd.attach._init_fn
    target = {"target_of": lambda device: tuning.TARGETS[arch], "fastest": lambda configs, *_, **__: configs[config]}
    chosen = mock.patch.multiple(tuning, **target), mock.patch.object(kernels, "_precision", lambda: precision)
    with fake_cuda(), whole, mock.patch.object(autograd, "attach", attach), chosen[0], chosen[1]:

        def step():
            image, text = (torch.empty(N, D, dtype=dtype, device="cuda", requires_grad=True) for _ in range(2))
            scale = torch.empty((), device="cuda", requires_grad=True)
            text_ids = torch.empty(N, dtype=torch.int64, device="cuda") if ids else None
            contrastive_loss(image, text, scale, text_ids=text_ids)

        return recorded_launches(step, kernels)


def test_launches_one_pass_over_all_logits_and_one_epilogue_a_part():
    first, *parts = launches_of(8192, 512, "bf16")
    assert first.kernel is kernels._lse_kernel and first.arguments["rows_ptr"].dtype == torch.bfloat16
    config = tuning.lse_configs(tuning.TARGETS[90], torch.bfloat16, "ieee", 8192, 8192)[0]
    assert first.grid == (-(-8192 // config.span_m), -(-8192 // config.span_n))
    assert (first.arguments["row_stride"], first.arguments["B"], first.arguments["D"]) == (512, 8192, 512)
    assert all(part.kernel is kernels._gradient_kernel for part in parts)
    R, C = tuning.part_shape(tuning.TARGETS[90], torch.bfloat16, 8192, 8192)
    assert len(parts) == -(-8192 // R) * -(-8192 // C)
    assert sum(part.arguments["R"] * part.arguments["C"] for part in parts) == 8192**2
    assert parts[0].arguments["dots_ptr"].dtype == torch.float32
    assert parts[0].arguments["weights_ptr"].dtype == torch.bfloat16
    assert sorted({part.arguments["first"] for part in parts})[0] < 0  # parts left of the diagonal


def test_gradients_of_fp32_are_made_in_place():
    part = launches_of(4096, 512, "fp32")[1].arguments
    weights, dots = (part[name].untyped_storage()._cdata for name in ("weights_ptr", "dots_ptr"))
    assert weights == dots


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("N", [1, 1000, 65536])
def test_parts_fit_half_the_l2_cache_and_sums_stay_small(arch, kind, N):
    dtype, precision = KINDS[kind]
    target = tuning.TARGETS[arch]
    R, C = tuning.part_shape(target, dtype, N, N)
    assert 1 <= R <= N and 1 <= C <= N
    assert R * C * (4 if dtype == torch.float32 else 4 + dtype.itemsize) <= target.l2 // 2
    configs = tuning.lse_configs(target, dtype, precision, N, N)
    assert configs
    for config in configs:
        assert config.span_m % config.block_m == 0 and config.span_n % config.block_n == 0
        assert N < 65536 or 8 * N * (N / config.span_m + N / config.span_n) <= 64 * 2**20  # bytes of partial sums


CASES = [
    ("bf16", 0),
    *(pytest.param(k, c, marks=pytest.mark.slow) for k in KINDS for c in range(5) if (k, c) > ("bf16", 0)),
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("kind", "config"), CASES)
def test_compiles_for_gpus_without_spills(arch, kind, config):
    dtype, precision = KINDS[kind]
    if config >= len(tuning.lse_configs(tuning.TARGETS[arch], dtype, precision, 65536, 65536)):
        pytest.skip("no such configuration for this GPU")
    lse, gradient, *_ = launches_of(65536, 512, kind, arch, ids=True, config=config)
    for launch in (lse, gradient) if config == 0 else (lse,):
        kernel = launch.resources(arch)
        print(f"{launch.kernel.fn.__name__} {launch.options} {kind} sm_{arch}: {kernel}")
        assert kernel.spills == 0 and kernel.shared <= tuning.TARGETS[arch].shared
        if launch is lse and kind != "fp32":
            assert {80: "mma.sync", 90: "wgmma", 100: "tcgen05.mma"}[arch] in kernel.ptx


@pytest.fixture
def matmul():
    """torch's options of products on a GPU, restored afterwards."""
    options = torch.backends.cuda.matmul
    before = options.fp32_precision
    yield options
    options.fp32_precision = before


def test_fp32_products_are_as_exact_as_the_user_asks_by_either_api(matmul):
    for choice, expected in (("tf32", "tf32"), ("ieee", "ieee"), ("none", "ieee")):
        matmul.fp32_precision = choice
        assert kernels._precision() == expected
    before = torch.get_float32_matmul_precision()
    for choice, expected in (("high", "tf32"), ("highest", "ieee")):
        torch.set_float32_matmul_precision(choice)
        assert kernels._precision() == expected
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_asking_for_tf32_reaches_fp32_inputs_alone(matmul, dtype):
    matmul.fp32_precision = "tf32"
    with fake_cuda():
        rows = kernels.side(torch.empty(64, 32, dtype=dtype, device="cuda"), None)
        scale = torch.empty((), device="cuda")
        (launch,) = recorded_launches(lambda: kernels.statistics(rows, rows, scale, 0, True), kernels)
    assert launch.arguments["PRECISION"] == ("tf32" if dtype == torch.float32 else "ieee")


def test_tf32_operands_are_rounded_not_truncated():
    x = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    with mock.patch.object(kernels, "_precision", lambda: "tf32"):
        rounded = kernels.side(x, None).embedding
        assert kernels.side(x.bfloat16(), None).embedding.equal(x.bfloat16())
    assert not (rounded.view(torch.int32) & 0x1FFF).any()  # a tensor core has nothing left to cut off
    off = (rounded.double() - x.double()) / x.double()
    # Of 64,000 errors the mean is 8e-7 in size; cutting off would make it 2e-4.
    assert off.abs().max() <= 2**-11 and off.mean().abs() < 4e-6
    with mock.patch.object(kernels, "_precision", lambda: "ieee"):
        assert kernels.side(x, None).embedding is x


def test_tf32_loss_and_gradients_are_those_of_the_rounded_rows():
    random = torch.Generator().manual_seed(0)
    image = torch.randn(70, 48, generator=random)
    inputs = image, 30 * image + torch.randn(70, 48, generator=random), torch.tensor(100.0)
    with mock.patch.object(kernels, "_precision", lambda: "tf32"):
        lse, _, positive, gradients = triton_engine.whole(*inputs, None, [True] * 3, 0)
    rounded = *(kernels.rounded_to_tf32(x) for x in inputs[:2]), inputs[2]
    _, *exact = with_gradients(reference.contrastive_loss, *rounded, dtype=torch.float64)
    assert (lse[0] + lse[1] >= positive).all()
    for mine, truth in zip(gradients, exact, strict=True):
        assert error(3 * mine, truth) <= 1e-5 * max(1.0, truth.abs().max().item())


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
