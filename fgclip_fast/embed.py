"""The command ``fgclip embed``: rank texts for an image, draw where they fit, or write embeddings of many images.

For example: ``fgclip embed runs/last photo.jpg --text "a red mug" "a blue mug"``.
"""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from fgclip_fast import command, embed_many, preflight
from fgclip_fast.config import yaml_file
from fgclip_fast.config.rules import Device, Positive, check
from fgclip_fast.evaluation.heatmap import heatmap
from fgclip_fast.inputs.image import read
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.process import heap
from fgclip_fast.scenes.compose import SIDE
from fgclip_fast.scenes.locate import EMBEDDED

log = logging.getLogger("fgclip_fast")
DESCRIPTION = """Rank texts for an image or a box in it, draw where they fit, or embed images.

With one image and --text: the texts, ranked. With --output: the embeddings of all images, also those in folders, in
one .npz or .parquet file, or in a folder of parquet parts, which goes on where it was stopped."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FILES = (".npz", ".parquet")
"""Endings of one file; any other output is a folder."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The images and texts, and the wanted result."""

    run: Positional[str]
    """A run, or a folder of weights."""
    images: Positional[tuple[str, ...]]
    """Images, or folders of them."""
    text: tuple[str, ...] = ()
    """Texts to rank."""
    box: tuple[float, float, float, float] | None = None
    """Rank for this box: x0 y0 x1 y1, in pixels of the image."""
    long: bool = False
    """Encode the texts by the long path, up to 248 tokens; else by the short one, up to 77."""
    heatmap: str | None = None
    """PNG file to write: the image lit where each text fits, one row a text."""
    output: str | None = None
    """.npz or .parquet file to write, or a folder of parquet files: the embeddings of all images, and of the texts."""
    batch_size: Positive[int] = 64
    """Images a forward pass."""
    part_size: Positive[int] = 16384
    """Images a file of such a folder; at most one file is lost when the command is stopped."""
    workers: Positive[int | None] = None
    """Processes that decode images; 1: this one alone. None: one for each core, at most 8, and one for few images."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Products in fp32, or bf16, which auto takes where they are faster; embeddings are fp32."""
    trust_file: bool = False
    """Run what a pickle or TorchScript archive asks for, if its weights cannot be read otherwise."""
    device: Device = "auto"
    """auto (the first GPU, else the CPU), cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check(self)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    with command.frame("embed"):
        run(command.read(Request, "embed", arguments, DESCRIPTION))


def run(request: Request) -> None:
    """Rank texts, draw a heat map, or write embeddings.

    Raises:
        ValueError: options conflict, or a file is not an image.
        OSError: a file cannot be read or written.
    """
    paths = list(find(request.images))
    _check(request, paths)
    device = preflight.device(request.device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[preflight.precision(request.precision, device)]
    model = pretrained.load(request.run, dtype=dtype, trust_file=request.trust_file)
    heap.keep_freed_memory(device.type)
    model.to(device).eval()
    if request.output:
        write(model, paths, request)
        return
    image = _open(paths[0])
    if (message := warning(request.run, image)) is not None:
        log.warning(message)
    show(rank(model, image, request))
    if request.heatmap:
        draw(model, image, request).save(request.heatmap)
        log.info("%s: each text fits best where the image is bright", request.heatmap)


def find(names: Sequence[str]) -> Iterator[Path]:
    """Find images: files as they are named, and all images below folders.

    Raises:
        FileNotFoundError: a file or folder does not exist, or a folder holds no image.
    """
    for name in names:
        path = Path(name)
        if not path.exists():
            raise FileNotFoundError(f"{name} does not exist")
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS) if path.is_dir() else [path]
        if not found:
            raise FileNotFoundError(f"no image in {name} (looked for {', '.join(ENDINGS)})")
        yield from found


def rank(model: FGCLIP, image: Image.Image, request: Request) -> list[tuple[str, float]]:
    """Rank the texts for the image or the box: (text, probability), the best first."""
    return model.rank(image, request.text, box=request.box, kind="long" if request.long else "short")


def draw(model: FGCLIP, image: Image.Image, request: Request) -> Image.Image:
    """Draw a row for each text: the image, and the image lit where the text fits."""
    patches = model.encode_dense(image)[0].cpu()
    texts = model.encode_text(request.text, kind="long" if request.long else "short").cpu()
    similarity = torch.einsum("nd,yxd->nyx", texts, patches)
    sides = image.size * 2
    box = None if request.box is None else [side / length for side, length in zip(request.box, sides, strict=True)]
    return heatmap(image, similarity, request.text, box)


def warning(run: str, image: Image.Image) -> str | None:
    """A warning for a model trained only on rendered scenes if the image has another size than those; else None."""
    saved = Path(run) / "config.yaml"
    if not saved.is_file() or image.size == (SIDE, SIDE):
        return None
    config = yaml_file.load(saved)
    if config.data.train != EMBEDDED or config.init is not None:
        return None
    return (
        f"this model was trained only on rendered scenes of {SIDE} x {SIDE} pixels, so its answers for this image "
        f"({image.width} x {image.height}) mean little; train on your own data, or load released weights"
    )


def write(model: FGCLIP, paths: Sequence[Path], request: Request) -> None:
    """Write the embeddings of all readable images; name and count the others."""
    words = request.text
    texts = embed_many.Texts(words, model.encode_text(words, "long" if request.long else "short").cpu().numpy())
    folder = embed_many.Folder([str(path) for path in paths], request.batch_size, request.workers)
    output = Path(str(request.output))
    if output.suffix in FILES:
        count = embed_many.write_file(model, folder, texts, output)
    else:
        of = {"long": request.long, "precision": str(model.vision_model.encoder.blocks()[0].mlp.fc1.weight.dtype)}
        with command.going_on("embed"):
            count = embed_many.write_parts(model, folder, texts, output, request.part_size, of)
    log.info("%s: %d images, %d could not be read", output, count, len(paths) - count)


def show(ranked: Sequence[tuple[str, float]]) -> None:
    """Print texts with their probabilities."""
    table = Table("text", "probability")
    for text, probability in ranked:
        table.add_row(text, f"{probability:.1%}")
    Console(markup=False).print(table)


def _check(request: Request, paths: Sequence[Path]) -> None:
    if request.output:
        output = Path(request.output)
        if output.suffix and output.suffix not in FILES and not output.is_dir():
            raise ValueError(f"--output must end in .npz or .parquet, or be a folder, got {request.output}")
        if request.box or request.heatmap:
            raise ValueError("--box and --heatmap are for one image, without --output")
        if output.suffix != ".npz" and importlib.util.find_spec("pyarrow") is None:
            raise ValueError(f"{output} needs pyarrow: pip install pyarrow, or write .npz")
    elif not request.text:
        raise ValueError("nothing to do: give --text to rank texts, or --output to write embeddings")
    elif len(paths) != 1:
        raise ValueError(f"texts are ranked for one image, got {len(paths)}; --output embeds many")
    for name, file in (("output", request.output), ("heatmap", request.heatmap)):
        if file and (name == "heatmap" or Path(file).suffix in FILES):
            preflight.check_output(f"--{name}", Path(file))


def _open(path: Path) -> Image.Image:
    try:
        return read(path)
    except OSError as error:
        raise ValueError(f"cannot read {path} as an image: {error}") from None


if __name__ == "__main__":
    main()
