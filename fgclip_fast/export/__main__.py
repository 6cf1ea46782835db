"""The command ``fgclip export``: write a model for another package, and check that it computes the same there.

For example: ``fgclip export runs/last --format open-clip --output mine-open-clip``.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tyro.conf import Positional

from fgclip_fast import command
from fgclip_fast.config.rules import FilePath, NotNegative, Positive, check, require
from fgclip_fast.export import accuracy
from fgclip_fast.export.f_vit import write_f_vit
from fgclip_fast.export.fg_clip import write_fg_clip
from fgclip_fast.export.hf import write_hf, write_vision_tower
from fgclip_fast.export.immich import write_immich
from fgclip_fast.export.onnx import Precision, write_onnx
from fgclip_fast.export.open_clip import write_open_clip
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.interpolation import interpolate

log = logging.getLogger("fgclip_fast")
DESCRIPTION = """Write a model in the layout of another package, load it there, and compare the embeddings."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The model, and the layout that is wanted."""

    run: Positional[str]
    """A run, a folder of weights, or a name on a hub."""
    format: Literal["fg-clip", "hf", "open-clip", "vision-tower", "f-vit", "onnx", "immich"]
    """fg-clip: the released layout, whole. onnx: all passes as ONNX graphs. hf: transformers' CLIPModel takes
    the short path of it, AutoModel all. open-clip: the short path, by local-dir:. immich: its CLIP package.
    vision-tower: a CLIPVisionModel. f-vit: the detector's backbone and class embeddings."""
    output: str
    """Folder to write; it must not exist or be empty."""
    interpolate: tuple[str, float] | None = None
    """Weights INIT and a share in [0, 1]: (1 - share) of INIT and share of the model are written. Between a fine-tuned
    model and its start lie models that know both (WiSE-FT, arXiv 2109.01903)."""
    merge: tuple[str, ...] = ()
    """Other models of the same geometry; the weighted mean of the model and these is written."""
    weights: NotNegative[tuple[float, ...]] = ()
    """With --merge: the model's share and one for each other, 1 in sum. (): all equal."""
    precision: Precision = "float32"
    """Of onnx and immich: float16 or int8 make the products smaller, and on some processors faster."""
    records: str | None = None
    """With --format onnx below float32: validation shards on which its cost is measured. None: the run's own."""
    limit: Positive[int | None] = None
    """Records at most. None: all."""
    classes: FilePath[Path | None] = None
    """With --format f-vit: file of class names, one a line or a JSON list. None: OV-COCO's 65."""
    trust_file: bool = False
    """Run what a pickle or TorchScript archive asks for, if its weights cannot be read otherwise."""

    def __post_init__(self) -> None:
        check(self)
        if self.interpolate is not None:
            require(0 <= self.interpolate[1] <= 1, "interpolate must name a share in [0, 1]", self.interpolate[1])
            require(not self.merge, "merge must be left out beside interpolate", self.merge)
        if self.weights:
            count = 1 + len(self.merge)
            require(self.merge, "weights must be left out without merge", self.weights)
            require(len(self.weights) == count, f"weights must be one a model, {count}", self.weights)
            require(abs(sum(self.weights) - 1) < 1e-6, "weights must be 1 in sum", self.weights)
        for option in ("precision", "records", "limit", "classes"):
            if getattr(self, option) not in (None, "float32") and option not in FORMATS[self.format].options:
                readers = " or ".join(name for name, one in FORMATS.items() if option in one.options)
                raise ValueError(f"{option} is for --format {readers}, got it with {self.format}")

    @property
    def others(self) -> dict[str, float]:
        """The models to mix in, and the share of each."""
        if self.interpolate is not None:
            return {self.interpolate[0]: 1 - self.interpolate[1]}
        shares = self.weights or (1 / (1 + len(self.merge)),) * (1 + len(self.merge))
        return dict(zip(self.merge, shares[1:], strict=True))


class Format(NamedTuple):
    """A layout."""

    write: Callable[[FGCLIP, Path, Request], float]
    """Writes and compares; the largest difference."""
    packages: str = ""
    """What pip is to install for it."""
    options: tuple[str, ...] = ()
    """Options that it alone reads."""


FORMATS = {
    "fg-clip": Format(lambda model, folder, _: write_fg_clip(model, folder)),
    "hf": Format(lambda model, folder, _: write_hf(model, folder), "transformers"),
    "open-clip": Format(lambda model, folder, _: write_open_clip(model, folder), "open_clip_torch"),
    "vision-tower": Format(lambda model, folder, _: write_vision_tower(model, folder), "transformers"),
    "f-vit": Format(lambda model, folder, r: write_f_vit(model, folder, r.classes), "open_clip_torch", ("classes",)),
    "onnx": Format(
        lambda model, folder, r: write_onnx(model, folder, r.precision),
        "onnx onnxscript onnxruntime",
        ("precision", "records", "limit"),
    ),
    "immich": Format(
        lambda model, folder, r: write_immich(model, folder, r.precision),
        "onnx onnxscript onnxruntime",
        ("precision",),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    with command.frame("export"):
        run(command.read(Request, "export", arguments, DESCRIPTION))


def run(request: Request) -> None:
    """Write the export and compare it.

    Raises:
        ValueError: the folder holds something, a package is missing, or the other package computes something else.
        OSError: a file cannot be read or written.
    """
    folder, layout = Path(request.output), FORMATS[request.format]
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"output must be a new or empty folder, got {folder}")
    lower = request.format == "onnx" and request.precision != "float32"
    data = accuracy.find_records(Path(request.run), request.records) if lower else None
    model = pretrained.load(request.run, trust_file=request.trust_file).eval()
    mix(model, request.others, request.trust_file)
    try:
        difference = layout.write(model, folder, request)
    except ImportError as error:
        raise ValueError(f"--format {request.format} needs {error.name}: pip install {layout.packages}") from None
    log.info("%s: loaded by its consumer, embeddings differ by at most %.1e", folder, difference)
    if data is not None:
        accuracy.measure(model, folder, data, request.limit)
    elif lower:
        log.warning("export: what %s costs was not measured; name validation shards by --records", request.precision)


def mix(model: FGCLIP, others: Mapping[str, float], trust_file: bool = False) -> None:
    """Make a model the weighted mean of itself and others, of which each is read when its turn comes.

    Raises:
        ValueError: one has another geometry.
    """
    kept = 1 - sum(others.values())
    for path, share in others.items():
        total = kept + share
        interpolate(model, pretrained.load(path, trust_file=trust_file), kept / total if total > 0 else 1)
        kept = total


if __name__ == "__main__":
    main()
