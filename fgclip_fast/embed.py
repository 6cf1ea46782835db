"""The command ``fgclip embed``: rank texts for an image, draw where they fit, or write embeddings of many images.

For example: ``fgclip embed runs/last photo.jpg --text "a red mug" "a blue mug"``.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from fgclip_fast import command, config_file, heap, preflight
from fgclip_fast.config_rules import Device, Positive, check
from fgclip_fast.evaluation.heatmap import heatmap
from fgclip_fast.inputs.image import read
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.scenes.compose import SIDE
from fgclip_fast.scenes.locate import EMBEDDED
from fgclip_fast.whole_file import replacing

log = logging.getLogger("fgclip_fast")
DESCRIPTION = """Rank texts for an image or a box in it, draw where they fit, or embed images.

With one image and --text: the texts, ranked. With --output: the embeddings of all images, also those in folders, in
one .npz or .parquet file."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = (".npz", ".parquet")


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
    """.npz or .parquet file to write: the embeddings of all images, and of the texts."""
    batch_size: Positive[int] = 64
    """Images a forward pass."""
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
    model = pretrained.load(request.run, trust_file=request.trust_file)
    device = preflight.device(request.device)
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
    config = config_file.load(saved)
    if config.data.train != EMBEDDED or config.init is not None:
        return None
    return (
        f"this model was trained only on rendered scenes of {SIDE} x {SIDE} pixels, so its answers for this image "
        f"({image.width} x {image.height}) mean little; train on your own data, or load released weights"
    )


def write(model: FGCLIP, paths: Sequence[Path], request: Request) -> None:
    """Write the embeddings of all readable images; name and count the others."""
    names: list[str] = []
    rows: list[np.ndarray] = []
    remaining = iter(paths)
    while batch := list(islice(remaining, request.batch_size)):
        good = [(path, image) for path in batch if (image := _try_open(path)) is not None]
        if good:
            names += [str(path) for path, _ in good]
            rows.append(model.encode_image([image for _, image in good]).cpu().numpy())
    if not rows:
        raise ValueError(f"none of the {len(paths)} images can be read")
    texts = (
        model.encode_text(request.text, kind="long" if request.long else "short").cpu().numpy()
        if request.text
        else None
    )
    _save(Path(str(request.output)), names, np.concatenate(rows), request.text, texts)
    log.info("%s: %d images, %d could not be read", request.output, len(names), len(paths) - len(names))


def show(ranked: Sequence[tuple[str, float]]) -> None:
    """Print texts with their probabilities."""
    table = Table("text", "probability")
    for text, probability in ranked:
        table.add_row(text, f"{probability:.1%}")
    Console(markup=False).print(table)


def _check(request: Request, paths: Sequence[Path]) -> None:
    if request.output:
        if Path(request.output).suffix not in FORMATS:
            raise ValueError(f"--output must end in .npz or .parquet, got {request.output}")
        if request.box or request.heatmap:
            raise ValueError("--box and --heatmap are for one image, without --output")
        _parquet(Path(request.output))
    elif not request.text:
        raise ValueError("nothing to do: give --text to rank texts, or --output to write embeddings")
    elif len(paths) != 1:
        raise ValueError(f"texts are ranked for one image, got {len(paths)}; --output embeds many")
    for name, file in (("output", request.output), ("heatmap", request.heatmap)):
        if file:
            preflight.check_output(f"--{name}", Path(file))


def _open(path: Path) -> Image.Image:
    try:
        return read(path)
    except OSError as error:
        raise ValueError(f"cannot read {path} as an image: {error}") from None


def _try_open(path: Path) -> Image.Image | None:
    try:
        return _open(path)
    except ValueError as error:
        log.warning("%s; left out", error)
        return None


def _save(path: Path, names: list[str], images: np.ndarray, words: Sequence[str], texts: np.ndarray | None) -> None:
    if path.suffix == ".npz":
        columns = {"path": np.array(names), "image": images}
        if texts is not None:
            columns |= {"text": np.array(words), "text_embedding": texts, "similarity": images @ texts.T}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
        return
    arrow, parquet = _parquet(path)
    columns_of = {"path": names, "image": list(images)}
    if texts is not None:
        columns_of |= {
            f"similarity: {word}": similarity for word, similarity in zip(words, texts @ images.T, strict=True)
        }
    with replacing(path) as temporary:
        parquet.write_table(arrow.table(columns_of), temporary)


def _parquet(path: Path):
    """Import pyarrow and its parquet part if the name of the file ends in .parquet; else None."""
    if path.suffix != ".parquet":
        return None
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow, or write .npz") from None
    return pyarrow, pyarrow.parquet


if __name__ == "__main__":
    main()
