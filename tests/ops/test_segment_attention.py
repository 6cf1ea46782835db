"""What other packages are handed must mean our attention, by their documentation; they themselves need a GPU."""

import sys
from types import SimpleNamespace

import pytest
import torch

from fgclip_fast.ops import reference, segment_attention
from tests.ahead_of_time import fake_cuda
from tests.exactness import with_gradients
from tests.trees import problem, random_texts, tree_of


def documented_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_q, max_k):
    """Causal attention in each sequence, aligned at the last query and the last key, as both packages document it."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    out = []
    for s in range(len(cu_seqlens_q) - 1):
        (a, b), (c, d) = (cu[s : s + 2].tolist() for cu in (cu_seqlens_q, cu_seqlens_k))
        assert b - a <= max_q and d - c <= max_k
        mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(diagonal=(d - c) - (b - a))
        rows = (x.transpose(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
        out.append(torch.nn.functional.scaled_dot_product_attention(*rows, attn_mask=mask).transpose(0, 1))
    return torch.cat(out)


def documented_flash_attn(q, k, v, *lengths, causal, deterministic):
    assert causal and deterministic
    return documented_varlen(q, k, v, *lengths)


def documented_varlen_attn(q, k, v, *lengths, window_size):
    assert window_size == (-1, 0)  # any key on the left, none on the right
    return documented_varlen(q, k, v, *lengths)


@pytest.mark.parametrize("backend", ["flash", "varlen"])
@pytest.mark.parametrize("share", [True, False], ids=["prefix-tree", "padding-free"])
def test_segments_mean_the_same_attention(backend, share, monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=documented_flash_attn))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", documented_varlen_attn)
    tree = tree_of(random_texts(40, 3, 12), random_texts(5, 2, 300), share=share)
    q, k, v, upstream = problem(tree)
    expected = with_gradients(reference.tree_attention, q, k, v, tree.end, upstream=upstream)
    ours = with_gradients(getattr(segment_attention, backend), q, k, v, tree, upstream=upstream)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_varlen_attn_takes_our_arguments():
    tree = tree_of(random_texts(40, 3, 12))
    with fake_cuda():
        q, k, v = (torch.empty(len(tree.end), 8, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        assert segment_attention.varlen(q, k, v, tree.to("cuda")).shape == q.shape


def test_xformers_mask_is_ours():
    bias = pytest.importorskip("xformers.ops.fmha.attn_bias")
    assert bias  # the package loads without its kernels
    tree = tree_of(random_texts(40, 3, 12), multiple=1)
    mask = segment_attention._mask(tree).materialize((len(tree.end), len(tree.key))) == 0
    i, j = torch.arange(len(tree.end))[:, None], tree.key[None, :]
    begins = torch.bucketize(i, tree.query_offsets, right=True) - 1  # each query's segment, and each key's
    own = begins == torch.bucketize(torch.arange(len(tree.key)), tree.key_offsets, right=True) - 1
    assert torch.equal(mask, own & (j <= i) & (i < tree.end[tree.key.long()]))
