"""Decoding against PIL on the same cores, and the whole loader in samples a second."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from benchmarks.measure import by_turns
from fgclip_fast.config import Data
from fgclip_fast.data.decode import decode
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.inputs.tokenizer import Tokenizer

SIZE = 224
BAR = 1.8  # times faster than Pillow, at least
COLOURS = ["red", "blue", "grey", "pink", "teal", "gold", "lime", "navy", "rose", "jade"]


def photo(seed, width=640, height=480):
    """A JPEG of quality 90 with the noise of a camera: about 120 kB."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    pixels = np.clip(smooth + random.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=90)
    return file.getvalue()


def record(number):
    """As many texts as FineHARD's mean: 3.3 regions, 0.8 of them with ten negatives, a long caption."""
    negatives = {str(i): f"a {colour} mug" for i, colour in enumerate(COLOURS)}
    regions = []
    for i in range(4 if number % 3 == 0 else 3):
        flag = int((number + i) % 4 == 0)
        box = [0.1 * i, 0.1, 0.1 * i + 0.5, 0.8]
        texts = {"short_expr": "a green mug", "long_expr": "a glossy green mug with a chipped rim"}
        regions.append({"bbox": box, **texts, "flag_short_neg": flag, "short_expr_negs": negatives if flag else {}})
    caption = f"Photo {number} shows a green mug on an oak table beside an open book. " * 8
    return {"short_caption": f"a green mug, photo {number}", "caption": caption, "bbox_info": regions}


def by_pil(file):
    image = Image.open(io.BytesIO(file)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def all_of(files, decoder, threads):
    with ThreadPoolExecutor(threads) as pool:  # both let go of Python's lock while they work
        return list(pool.map(decoder, files))


@pytest.fixture(scope="module")
def files():
    return [photo(seed) for seed in range(64)]


@pytest.fixture
def one_thread():
    """torch as it is in a loader's worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_decode(benchmark, files, one_thread, threads):
    ours = partial(all_of, files, partial(decode, size=SIZE), threads)
    peer = partial(all_of, files, by_pil, threads)
    apart = [(a.int() - b.int()).abs() for a, b in zip(ours(), peer(), strict=True)]
    mean, most = torch.stack(apart).float().mean().item(), max(x.max().item() for x in apart)
    assert mean <= 0.01 and most <= 2
    ratios = by_turns(benchmark, ours, {"Pillow": peer}, rounds=7, warmup_rounds=1)
    if benchmark.enabled:
        rate = len(files) / benchmark.stats["median"]
        benchmark.extra_info.update(
            peer=f"Pillow {PIL.__version__}", ratio=ratios["Pillow"], images_per_second=rate,
            mean_difference=mean, largest_difference=most,
        )  # fmt: skip
        print(f"\ndecode, {threads} threads: {rate:.0f} images/s, {ratios['Pillow']:.1f} x Pillow, mean difference "
              f"{mean:.3f} of 255, at most {most}")  # fmt: skip
        assert ratios["Pillow"] >= BAR


@pytest.mark.parametrize("decoder", ["cpu", "dali"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loader(benchmark, files, tmp_path, workers, decoder):
    for shard in range(4):
        with ShardWriter(tmp_path / f"{shard}.tar") as writer:
            for i, file in enumerate(files):
                number = len(files) * shard + i
                writer.write(f"{number:06d}", jpg=file, json=json.dumps(record(number)).encode())
    data = Data(train=str(tmp_path), workers=workers, decoder=decoder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader = Loader(
        data, image_size=SIZE, batch_size=32, seed=0, tokenizer=Tokenizer(), packing="prefix-tree", device=device
    )
    batches = loader.batches()
    (batch,) = next(batches)
    assert batch.image.shape == (32, 3, SIZE, SIZE) and not loader.counts
    benchmark.pedantic(lambda: [next(batches) for _ in range(4)], rounds=3, warmup_rounds=1)
    if benchmark.enabled:
        benchmark.extra_info.update(samples_per_second=4 * 32 / benchmark.stats["median"])
