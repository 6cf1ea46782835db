"""Images, texts and single requests through ViT-B/16, beside open_clip, transformers and onnxruntime.

pytest benchmarks/bench_encode.py --benchmark-only -s                          # fp32
pytest benchmarks/bench_encode.py --benchmark-only -s -m "slow or not slow"    # also bf16, and all of them compiled
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median, quantiles
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fgclip_fast
from benchmarks.measure import DEVICE, by_turns, seconds
from fgclip_fast.config.model import Model
from fgclip_fast.export import write_hf, write_open_clip
from fgclip_fast.inputs.image import normalize
from fgclip_fast.model.fgclip import FGCLIP

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
onnxruntime = pytest.importorskip("onnxruntime")

IMAGES, TEXTS = 8, 128
PAUSE = 0.05
"""Seconds before a single request: onnxruntime's threads spin on for a while, and would slow whatever follows it."""
BARS = {"images": 1.0, "short": 5.0, "mixed": 3.0}
"""Least ratio to the best peer as it is used: texts padded to 77 tokens."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
WORDS = """
red blue small old wooden shiny striped broken dog cat mug table chair window street tree boat child woman man holding
standing running beside under behind with and near the a on of two white black green bicycle horse kitchen garden river
mountain station market lamp bottle plate hat jacket umbrella in front sleeping open
"""
SLOW = pytest.mark.slow
Encode = Callable[[], Tensor]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of B/16 size with random weights, in the layout of each package; each export has been compared."""
    torch.manual_seed(0)
    model = FGCLIP(Model()).eval()
    home = tmp_path_factory.mktemp("b16")
    write_hf(model, home / "hf")
    write_open_clip(model, home / "open_clip")
    return home


class Case:
    """Ours and the peers in one dtype, compiled or not; each call takes what its users give it."""

    def __init__(self, folders: Any, dtype: torch.dtype, compiled: bool = False) -> None:
        like = replace(Model(), compile=compiled)
        self.ours = fgclip_fast.load(folders / "hf", like=like, dtype=dtype, device=DEVICE).eval()
        theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folders / 'open_clip'}")
        self.open_clip = theirs.eval().to(DEVICE, dtype)
        self.ids = open_clip.get_tokenizer(f"local-dir:{folders / 'open_clip'}")
        self.clip = transformers.CLIPModel.from_pretrained(folders / "hf", attn_implementation="sdpa").eval()
        self.clip.to(DEVICE, dtype)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "hf")
        self.dtype, self.wrap = dtype, torch.compile if compiled else (lambda call: call)
        self.calls: dict[str, Any] = {
            "open_clip image": self.wrap(self.open_clip.encode_image),
            "open_clip text": self.wrap(self.open_clip.encode_text),
            "transformers image": self.wrap(lambda x: self.clip.visual_projection(self.clip.vision_model(x)[1])),
            "transformers text": self.wrap(
                lambda ids: self.clip.text_projection(self.clip.text_model(input_ids=ids)[1])
            ),
        }

    def image(self, pixels: Tensor) -> dict[str, Encode]:
        """Of each package the call that embeds normalised pixels, Tensor[B, 3, 224, 224]."""
        rounded = pixels.to(self.dtype)
        return {
            "ours": lambda: self.ours.encode_image(pixels),
            "open_clip": lambda: self._unit("open_clip image", rounded),
            "transformers": lambda: self._unit("transformers image", rounded),
        }

    def text(self, texts: list[str]) -> dict[str, Encode]:
        """Of each package the call that embeds strings, tokenizer included."""

        def padded(**how: Any) -> Tensor:
            ids = self.tokenizer(texts, return_tensors="pt", truncation=True, **how)["input_ids"]
            return self._unit("transformers text", ids.to(DEVICE))

        return {
            "ours": lambda: self.ours.encode_text(texts),
            "open_clip": lambda: self._unit("open_clip text", self.ids(texts).to(DEVICE)),
            "transformers": partial(padded, padding="max_length", max_length=77),
            "transformers, padded to the longest": partial(padded, padding="longest"),
        }

    @torch.inference_mode()
    def _unit(self, name: str, inputs: Tensor) -> Tensor:
        return F.normalize(self.calls[name](inputs).float(), dim=-1)


def caption(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS.split()) for _ in range(words))


def captions(kind: str) -> list[str]:
    """Distinct captions of words drawn at random, which share few beginnings."""
    draw = random.Random(0)
    if kind == "short":  # 9 to 15 tokens
        return [caption(draw, draw.randint(7, 13)) for _ in range(TEXTS)]
    # As captions of the web and of annotators: most are short, some fill the path.
    return [caption(draw, min(70, 5 + int(draw.expovariate(1 / 16)))) for _ in range(TEXTS)]


def pixels(count: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return normalize(torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8, generator=draw)).to(DEVICE)


def agree(calls: Mapping[str, Encode], tolerance: float) -> None:
    """Compare every package's embeddings with ours; a fast wrong answer has no speed."""
    ours = calls["ours"]()
    for name, call in calls.items():
        difference = float((call() - ours).abs().max())
        assert difference <= tolerance, f"{name} differs by {difference:.1e}"


def timed(benchmark: Any, calls: Mapping[str, Encode], rows: int, what: str, dtype: torch.dtype, bar: float) -> None:
    agree(calls, TOLERANCE[dtype])  # and warms up
    peers = {name: call for name, call in calls.items() if name != "ours"}
    ratios = by_turns(benchmark, calls["ours"], peers, rounds=7)
    if not benchmark.enabled:
        return
    rate = rows / benchmark.stats["median"]
    versions = f"open_clip {open_clip.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    benchmark.extra_info.update(peer=versions, device=DEVICE, time=ratios, rows_per_s=rate)
    shown = ", ".join(f"{ratio:.2f} x {name} ({rate / ratio:.1f}/s)" for name, ratio in ratios.items())
    print(f"\n{what}, {dtype}, {torch.get_num_threads()} threads: {rate:.1f}/s; {shown}")
    as_used = min(ratio for name, ratio in ratios.items() if "longest" not in name)
    if DEVICE == "cpu" and dtype == torch.float32:
        assert as_used >= bar, f"{what}: {as_used:.2f} x the best peer, must be {bar}"


WAYS = [
    (torch.float32, False),
    pytest.param(torch.bfloat16, False, marks=SLOW),
    pytest.param(torch.float32, True, marks=SLOW),
    pytest.param(torch.bfloat16, True, marks=SLOW),
]


@pytest.mark.parametrize(("dtype", "compiled"), WAYS, ids=str)
def test_images(benchmark, folders, dtype, compiled):
    what = "images, compiled" if compiled else "images"
    timed(benchmark, Case(folders, dtype, compiled).image(pixels(IMAGES)), IMAGES, what, dtype, BARS["images"])


@pytest.mark.parametrize("kind", ["short", "mixed"])
@pytest.mark.parametrize(("dtype", "compiled"), WAYS, ids=str)
def test_texts(benchmark, folders, kind, dtype, compiled):
    what = f"{kind} captions{', compiled' if compiled else ''}"
    timed(benchmark, Case(folders, dtype, compiled).text(captions(kind)), TEXTS, what, dtype, BARS[kind])


class Tower(nn.Module):
    """One of transformers' towers with its projection, for onnxruntime."""

    def __init__(self, clip: Any, image: bool) -> None:
        super().__init__()
        self.tower = clip.vision_model if image else clip.text_model
        self.projection = clip.visual_projection if image else clip.text_projection

    def forward(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.projection(self.tower(inputs)[1]), dim=-1)


def onnx_call(clip: Any, what: str, inputs: Tensor, file: Any) -> Encode:
    """The tower in onnxruntime on as many threads as torch uses, for inputs of this shape."""
    torch.onnx.export(Tower(clip, what == "image").eval(), (inputs,), file, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: torch.from_numpy(session.run(None, {name: np.asarray(inputs)})[0])


@pytest.mark.skipif(DEVICE != "cpu", reason="latency of a CPU")
@pytest.mark.parametrize("what", ["image", "text"])
def test_latency(benchmark, folders, tmp_path, what):
    """One request at a time: median and 99th percentile, by turns."""
    case, text = Case(folders, torch.float32), ["a red mug beside an old wooden chair"]
    calls = case.image(pixels(1)) if what == "image" else case.text(text)
    padded = case.tokenizer(text, return_tensors="pt", padding="max_length", max_length=77)["input_ids"]
    given = pixels(1) if what == "image" else padded
    calls["onnxruntime"] = onnx_call(case.clip, what, given, tmp_path / "tower.onnx")
    agree(calls, 1e-4)
    times: dict[str, list[float]] = {name: [] for name in calls}

    def turn() -> None:
        for name, call in calls.items():
            sleep(PAUSE)
            times[name].append(seconds(call))

    benchmark.pedantic(turn, rounds=100 if benchmark.enabled else 1)
    if benchmark.enabled:
        found = {name: (1e3 * median(x), 1e3 * quantiles(x, n=100)[98]) for name, x in times.items()}
        benchmark.extra_info.update(peer=f"onnxruntime {onnxruntime.__version__}", device=DEVICE, milliseconds=found)
        print(f"\none {what}: " + ", ".join(f"{name} {m:.1f} ms (p99 {p:.1f})" for name, (m, p) in found.items()))
