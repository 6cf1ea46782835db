"""The kernels as a GPU would get them: launches from the public op, and what they take."""

from itertools import product

import pytest
import torch

from fgclip_fast.kernels import tree_attention as kernels, tree_attention_backward as backward_kernels
from fgclip_fast.ops import tree_attention
from fgclip_fast.ops.tree import TILE
from tests.ahead_of_time import ARCHITECTURES, MULTIPROCESSORS, fake_cuda, recorded_launches
from tests.op_module import op_module
from tests.trees import SMALL_TREES, tree_of

ops = op_module("tree_attention")


def fake_problem(tree, heads, head_dim, dtype):
    qkv = torch.empty(len(tree.end), 3, heads, head_dim, dtype=dtype, device="cuda")
    return *qkv.unbind(1), torch.empty(len(tree.end), heads, head_dim, dtype=dtype, device="cuda")


def fake_launches(tree, heads, head_dim, dtype, monkeypatch):
    """What the public op and its backward launch for tensors on a GPU that is not here."""
    for name in ("_forward", "_backward"):  # a custom op would answer fake tensors with fake results
        monkeypatch.setattr(ops, name, getattr(ops, name)._init_fn)

    def call():
        q, k, v, grad = fake_problem(tree, heads, head_dim, dtype)
        on_gpu = tree.to("cuda")
        out = tree_attention(q, k, v, on_gpu)
        lse = torch.empty(heads, len(q), device="cuda")
        ops._backward(grad, q, k, v, out, lse, list(on_gpu))

    with fake_cuda():
        return recorded_launches(call, kernels, backward_kernels)


def test_a_cuda_tensor_reaches_the_kernels(monkeypatch):
    tree = SMALL_TREES["a key that reaches far"]()
    launches = fake_launches(tree, 8, 64, torch.bfloat16, monkeypatch)
    assert [launch.kernel.fn.__name__ for launch in launches] == [
        "_forward_kernel",
        "_backward_kernel",
        "_sum_kernel",
    ]
    T, blocks = len(tree.end), launches[0].arguments
    assert launches[0].grid == (-(-T // blocks["BLOCK"]), 8)
    assert (blocks["T"], blocks["D"], blocks["TILE"], blocks["q_stride"], blocks["q_head"]) == (T, 64, TILE, 1536, 64)
    assert launches[1].grid == (-(-T // TILE) * (TILE // launches[1].arguments["BLOCK"]), 8)
    assert launches[2].grid == (len(tree.sum_key), 16)


def assert_fits_in_registers(head_dim, dtype, monkeypatch):
    tree = SMALL_TREES["a key that reaches far"]()
    for launch, arch in product(fake_launches(tree, 8, head_dim, dtype, monkeypatch), ARCHITECTURES):
        used = launch.resources(arch)
        print(f"{launch.kernel.fn.__name__} sm_{arch} {dtype} head_dim {head_dim}: {used}")
        assert used.spills == 0, f"{launch.kernel.fn.__name__} for sm_{arch}, {dtype}, head_dim {head_dim}: {used}"


def test_kernels_compile_without_spills(monkeypatch):
    assert_fits_in_registers(64, torch.bfloat16, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 48, 64, 80, 128])
def test_kernels_compile_without_spills_in_every_configuration(head_dim, dtype, monkeypatch):
    assert_fits_in_registers(head_dim, dtype, monkeypatch)


@pytest.mark.parametrize("arch", MULTIPROCESSORS)
def test_several_programs_share_an_sm(arch, monkeypatch):
    """More than one hides the latency of the other's loads: a program's loops run once or twice."""
    tree = SMALL_TREES["a key that reaches far"]()
    forward, backward, _ = fake_launches(tree, 8, 64, torch.bfloat16, monkeypatch)
    at_least = 4 if arch in (90, 100) else 2  # where products take their operands from shared memory, not registers
    for launch, wanted in ((forward, at_least), (backward, 2)):
        used = launch.resources(arch)
        assert used.ctas(arch) >= wanted and used.spills == 0, f"{launch.kernel.fn.__name__} for sm_{arch}: {used}"
        assert ("wgmma.mma_async" in used.ptx) == (arch == 90)


def test_another_batch_does_not_compile_a_kernel_anew():
    tree = SMALL_TREES["a key that reaches far"]()
    specializations = []
    for tokens, far_rows in ((640, 16), (641, 7), (1, 1)):
        batch = tree._replace(end=tree.end.new_zeros(tokens), far_rows=tree.far_rows.new_zeros(far_rows))
        with pytest.MonkeyPatch.context() as patch:
            launches = fake_launches(batch, 8, 64, torch.bfloat16, patch)
        specializations.append([launch.specialization() for launch in launches])
    assert specializations[0] == specializations[1] == specializations[2]


def test_partial_gradients_stay_within_their_budget():
    """512 images: long captions of 110 tokens, four groups of eleven; 8 heads of 64, fp32, keys and values."""
    generator = torch.Generator().manual_seed(0)
    long = torch.randint(0, 40000, (512, 108), generator=generator)
    long[:, :2] = torch.randint(0, 3, (512, 2), generator=generator)  # "the image shows …"
    positives = torch.randint(0, 2000, (2048, 1, 11), generator=generator).repeat(1, 11, 1)
    at = torch.randint(3, 11, (2048, 11, 1), generator=generator)
    hard = positives.scatter(2, at, torch.randint(0, 2000, at.shape, generator=generator)).flatten(0, 1)
    tree = tree_of(hard.tolist(), long.tolist())
    assert len(tree.token) > 100_000
    assert len(tree.far_rows) * 2 * 512 * 4 <= 256 * 2**20
