import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fgclip_fast.ops import native, reference
from fgclip_fast.ops.prefix_tree import prefix_tree
from fgclip_fast.ops.tree import EOS, REACH, TILE, Tree

BOS = 49406
words = st.lists(st.integers(0, 3), max_size=12)  # few words: much is shared
texts = st.lists(words, max_size=60)
property_of = settings(deadline=None, max_examples=50)  # no test asserts on time


def flat(texts):
    rows = [[BOS, *text, EOS] for text in texts]
    offsets = torch.tensor([0, *accumulate(map(len, rows))])
    return torch.tensor([token for row in rows for token in row], dtype=torch.int32), offsets


def build(short, long=(), **options):
    return prefix_tree(*flat([*short, *long]), len(short), **options)


def path(tree, node):
    """The tokens that ``node`` sees."""
    i = torch.arange(node + 1)
    return i[tree.end[: node + 1] > node]


def lists(offsets, values):
    return [values[first:last].tolist() for first, last in pairwise(offsets.tolist())]


def nodes_of_trie(texts):
    trie, nodes = {}, 0
    for text in texts:
        at = trie
        for token in [BOS, *text, EOS]:
            nodes += token not in at
            at = at.setdefault(token, {})
    return nodes


@property_of
@given(short=texts, long=texts)
def test_every_text_can_be_read_back(short, long):
    tree = build(short, long)
    table_rows = [0] * len(short) + [77] * len(long)
    for text, node, table_row in zip([*short, *long], tree.pooled.tolist(), table_rows, strict=True):
        nodes = path(tree, node)
        assert tree.token[nodes].tolist() == [BOS, *text, EOS]
        assert tree.position[nodes].tolist() == list(range(table_row, table_row + len(nodes)))


@property_of
@given(short=texts, long=texts)
def test_has_as_many_tokens_as_a_trie(short, long):
    assert len(build(short, long, multiple=1).token) == nodes_of_trie(short) + nodes_of_trie(long)


@property_of
@given(short=texts, long=texts, share=st.booleans())
def test_subtrees_nest(short, long, share):
    end, open_ends = build(short, long, share=share).end.tolist(), []
    for j in range(len(end)):
        while open_ends and open_ends[-1] <= j:
            open_ends.pop()
        assert j < end[j] <= (open_ends[-1] if open_ends else len(end))
        open_ends.append(end[j])


@property_of
@given(short=texts, long=texts, share=st.booleans(), multiple=st.sampled_from([1, 7, 256]))
def test_agrees_with_plain_python(short, long, share, multiple):
    token, offsets = flat([*short, *long])
    expected = reference.prefix_tree(token, offsets, len(short), share=share, multiple=multiple, eos=EOS)
    ours = build(short, long, share=share, multiple=multiple)
    for name, mine, plain in zip(Tree._fields, ours, expected, strict=True):
        assert torch.equal(mine, plain), name


@property_of
@given(short=texts, long=texts)
def test_spines_and_runs_hold_the_ancestors(short, long):
    tree = build(short, long)
    for first, spine in zip(range(0, len(tree.token), TILE), lists(tree.spine_offsets, tree.spine), strict=True):
        assert [*spine, first] == path(tree, first).tolist()
    for last, keys in zip((tree.query_offsets[1:] - 1).tolist(), lists(tree.key_offsets, tree.key), strict=True):
        assert keys == path(tree, last).tolist()


def test_far_keys_are_the_first_of_each_spine():
    texts = torch.randint(0, 4, (300, 12), generator=torch.Generator().manual_seed(0)).tolist()
    tree = build(texts[:200], texts[200:])
    spines = lists(tree.spine_offsets, tree.spine)
    far = [[key for key in spine if tile - key // TILE >= REACH] for tile, spine in enumerate(spines)]
    assert tree.far_rows.numel() > 0
    assert tree.far_key_offsets.diff().tolist() == [len(keys) for keys in far]
    assert all(spine[: len(keys)] == keys for spine, keys in zip(spines, far, strict=True))
    flat = [key for keys in far for key in keys]
    for key, rows in zip(tree.sum_key.tolist(), lists(tree.sum_offsets, tree.far_rows), strict=True):
        assert rows == [row for row, other in enumerate(flat) if other == key]


@property_of
@given(short=texts, seed=st.integers(0, 2**31 - 1))
def test_order_of_texts_does_not_matter(short, seed):
    order = torch.randperm(len(short), generator=torch.Generator().manual_seed(seed))
    tree, shuffled = build(short), build([short[i] for i in order.tolist()])
    assert torch.equal(tree.pooled[order], shuffled.pooled)
    for name in ("token", "position", "end"):
        assert torch.equal(getattr(tree, name), getattr(shuffled, name))


@property_of
@given(short=texts, long=texts)
def test_equal_texts_of_one_path_are_pooled_at_the_same_token(short, long):
    ids = build(short, long).pooled.tolist()
    texts = [(r < len(short), *text) for r, text in enumerate([*short, *long])]
    assert len(set(ids)) == len(set(texts)) == len(set(zip(ids, texts, strict=True)))


def test_duplicates_cost_nothing():
    assert len(build([[5, 6, 7]] * 9, multiple=1).token) == 5


def test_what_follows_eos_is_dropped():
    token, offsets = flat([[1, EOS, 2, 3], [1]])
    tree = prefix_tree(token, offsets, 2, multiple=1)
    assert tree.token.tolist() == [BOS, 1, EOS]
    assert tree.pooled.tolist() == [2, 2]


@pytest.mark.parametrize(("shorts", "limit"), [(1, 77), (0, 248)], ids=["short", "long"])
def test_a_text_that_is_too_long_is_cut_and_ends_with_eos(shorts, limit):
    words = list(range(300))
    tree = prefix_tree(*flat([words]), shorts, multiple=1)
    assert tree.token.tolist() == [BOS, *words[: limit - 2], EOS]
    assert tree.pooled.tolist() == [limit - 1]


def test_filling_tokens_see_only_themselves():
    tree = build([[1, 2]], multiple=256)
    assert len(tree.token) == 256
    assert tree.end[4:].tolist() == list(range(5, 257))


def test_without_sharing_each_text_is_a_chain_in_the_given_order():
    tree = build([[2], [1], [2]], share=False, multiple=1)
    assert tree.token.tolist() == [BOS, 2, EOS, BOS, 1, EOS, BOS, 2, EOS]
    assert tree.end.tolist() == [3, 3, 3, 6, 6, 6, 9, 9, 9]


def test_none_gives_no_tokens():
    tree = build([])
    assert len(tree.token) == len(tree.pooled) == len(tree.spine) == 0


def test_is_the_same_in_many_threads():
    texts = torch.randint(0, 4, (500, 12), generator=torch.Generator().manual_seed(0)).tolist()
    arguments = (*flat(texts), 300)
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(lambda _: prefix_tree(*arguments), range(20)))
    assert all(torch.equal(a, b) for tree in trees for a, b in zip(tree, trees[0], strict=True))


def test_runs_in_a_forked_worker():
    arguments = (*flat([[1, 2], [1, 3]]), 2)
    torch.randn(300, 300) @ torch.randn(300, 300)  # the parent has threads, which a fork does not copy
    with multiprocessing.get_context("fork").Pool(1) as pool:
        tree = pool.apply_async(prefix_tree, arguments).get(timeout=60)
    assert torch.equal(tree.end, prefix_tree(*arguments).end)


@pytest.mark.parametrize("served", [True, False], ids=["native", "reference"])
def test_errors_name_the_row(served, monkeypatch):
    monkeypatch.setattr(native, "serves", lambda op, device: served and native.extension() is not None)
    token, offsets = flat([[1], [2]])
    token[-1] = 3
    with pytest.raises(ValueError, match="every row must hold EOS, row 1 does not"):
        prefix_tree(token, offsets, 2)
    with pytest.raises(ValueError, match=r"offsets must go from 0 to len\(token\) = 6, got 0 to 5"):
        prefix_tree(token, offsets - torch.tensor([0, 0, 1]), 2)
    with pytest.raises(ValueError, match=r"offsets must rise to len\(token\), row 0 does not"):
        prefix_tree(token, torch.tensor([0, 7, 6]), 2)


def test_errors_name_the_argument():
    token, offsets = flat([[1], [2]])
    with pytest.raises(ValueError, match=r"shorts must be in \[0, 2\], got 3"):
        prefix_tree(token, offsets, 3)
    with pytest.raises(ValueError, match=r"token must be one-dimensional torch\.int32"):
        prefix_tree(token.long(), offsets, 2)
    with pytest.raises(ValueError, match="multiple must be > 0, got 0"):
        prefix_tree(token, offsets, 2, multiple=0)
