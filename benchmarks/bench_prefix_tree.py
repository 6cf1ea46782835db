"""The prefix tree of a batch's texts, as a data worker builds it: CPU time beside bars, since no peer builds one.

pytest benchmarks/bench_prefix_tree.py --benchmark-only -s

The tree is compared with the eager reference first.
"""

import random
from statistics import median
from time import process_time

import torch

from benchmarks.texts import KINDS, texts_of
from benchmarks.workload import WORDS
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.ops import prefix_tree, reference
from fgclip_fast.ops.tree import EOS, TILE


def test_building_the_tree(benchmark):
    texts = texts_of(KINDS["hard"], longs=0, groups=2046)
    token, offsets = texts.token[: texts.offsets[22500]], texts.offsets[:22501]
    expected = reference.prefix_tree(token, offsets, 22500, share=True, multiple=TILE, eos=EOS)
    assert all(mine.equal(array) for mine, array in zip(prefix_tree(token, offsets, 22500), expected, strict=True))
    spent: list[float] = []

    def run() -> None:
        start = process_time()  # one thread: what it takes on a core of its own
        prefix_tree(token, offsets, 22500)
        spent.append(1e3 * (process_time() - start))

    benchmark.pedantic(run, rounds=25, warmup_rounds=2)
    if benchmark.enabled:
        print(f"\ntree of 22,500 texts, {len(token)} tokens: {median(spent):.1f} ms")
        assert median(spent) <= 10


def test_tokenising_and_packing_an_image(benchmark):
    """CPU time of 50 texts, all threads counted, batches of 64 images."""
    draw, tokenizer = random.Random(0), Tokenizer()
    words = [tokenizer.decode(torch.tensor([word])) for word in draw.sample(WORDS, 5000)]
    texts = [" ".join(draw.choices(words, k=draw.randint(8, 14))) for _ in range(50 * 64)]
    flat = tokenizer(texts)
    spent: dict[str, list[float]] = {"tokenise": [], "pack": []}

    def run() -> None:
        for part, work in (("tokenise", lambda: tokenizer(texts)), ("pack", lambda: prefix_tree(*flat, len(texts)))):
            start = process_time()
            work()
            spent[part].append(1e3 * (process_time() - start) / 64)

    benchmark.pedantic(run, rounds=9, warmup_rounds=1)
    if benchmark.enabled:
        shown = {part: median(values) for part, values in spent.items()}
        benchmark.extra_info.update(cpu_ms_an_image=shown)
        print(f"\nan image with 50 texts: tokenise {shown['tokenise']:.2f} CPU-ms, pack {shown['pack']:.3f} CPU-ms")
        assert sum(shown.values()) <= 0.5
