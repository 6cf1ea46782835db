"""Dense attention agrees with the eager spec, by torch's kernel and by products."""

import pytest
import torch
import torch.nn.functional as F

from fgclip_fast.ops import dense_attention, reference
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, with_gradients


def problem(B=2, heads=3, M=5, N=7, d=16, dtype=torch.float32, device="cpu"):
    random = torch.Generator().manual_seed(0)
    shapes = (B, heads, M, d), (B, heads, N, d), (B, heads, N, d)
    return [torch.randn(shape, generator=random).to(device, dtype) for shape in shapes]


def some_keys(B, M, N, device="cpu"):
    """A mask in which each query sees its first key and some others."""
    mask = torch.rand(B, 1, M, N, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[..., 0] = True
    return mask.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("M", "N"), [(1, 1), (5, 7), (64, 96)])
@pytest.mark.parametrize("masked", [False, True])
def test_is_as_exact_as_eager(device, M, N, masked, dtype):
    inputs = problem(M=M, N=N, dtype=dtype, device=device)
    mask = some_keys(2, M, N, device) if masked else None
    assert_as_exact_as_eager(dense_attention, reference.dense_attention, *inputs, mask=mask, floor=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_causal_query_sees_no_later_key(device, dtype):
    inputs = problem(M=9, N=9, dtype=dtype, device=device)
    assert_as_exact_as_eager(dense_attention, reference.dense_attention, *inputs, is_causal=True, floor=1e-5)
    q, k, v = (x.requires_grad_() for x in inputs)
    (grad_v,) = torch.autograd.grad(dense_attention(q, k, v, is_causal=True)[:, :, :4].sum(), v)
    assert not grad_v[:, :, 4:].any()


def test_takes_slices_of_one_tensor():
    qkv = torch.randn(2, 11, 3, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    apart = with_gradients(dense_attention, *(x.contiguous() for x in (q, k, v)))
    for mine, expected in zip(with_gradients(dense_attention, q, k, v), apart, strict=True):
        torch.testing.assert_close(mine, expected)


def test_without_a_gradient_it_is_torchs_own_kernel():
    q, k, v = problem(dtype=torch.bfloat16)
    assert dense_attention(q, k, v).equal(F.scaled_dot_product_attention(q, k, v))


def test_no_images_give_empty_gradients():
    out, *grads = with_gradients(dense_attention, *problem(B=0, dtype=torch.bfloat16))
    assert out.shape == (0, 3, 5, 16) and [len(grad) for grad in grads] == [0, 0, 0]


def test_the_same_bits_every_time():
    inputs = problem(M=64, N=64, dtype=torch.bfloat16)
    assert_same_bits(lambda: with_gradients(dense_attention, *inputs), threads=(2,))
