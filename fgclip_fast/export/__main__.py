"""The command ``fgclip export``: write a model for another package, and check that it computes the same there.

For example: ``fgclip export runs/last --format open-clip --output mine-open-clip``.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from fgclip_fast import command
from fgclip_fast.config_rules import check, require
from fgclip_fast.export.fg_clip import write_fg_clip
from fgclip_fast.export.hf import write_hf, write_vision_tower
from fgclip_fast.export.open_clip import write_open_clip
from fgclip_fast.model import pretrained
from fgclip_fast.model.interpolation import interpolate

log = logging.getLogger("fgclip_fast")
DESCRIPTION = """Write a model in the layout of another package, load it there, and compare the embeddings."""
FORMATS = {"fg-clip": write_fg_clip, "hf": write_hf, "open-clip": write_open_clip, "vision-tower": write_vision_tower}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The model, and the layout that is wanted."""

    run: Positional[str]
    """A run, a folder of weights, or a name on a hub."""
    format: Literal["fg-clip", "hf", "open-clip", "vision-tower"]
    """fg-clip: the released layout, whole. hf: transformers' CLIPModel takes the short path of it, AutoModel all.
    open-clip: the short path, by local-dir:. vision-tower: a CLIPVisionModel."""
    output: str
    """Folder to write; it must not exist or be empty."""
    interpolate: tuple[str, float] | None = None
    """Weights INIT and a share in [0, 1]: (1 - share) of INIT and share of the model are written. Between a fine-tuned
    model and its start lie models that know both (WiSE-FT, arXiv 2109.01903)."""
    trust_file: bool = False
    """Run what a pickle or TorchScript archive asks for, if its weights cannot be read otherwise."""

    def __post_init__(self) -> None:
        check(self)
        if self.interpolate is not None:
            require(0 <= self.interpolate[1] <= 1, "interpolate must name a share in [0, 1]", self.interpolate[1])


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
    folder = Path(request.output)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"output must be a new or empty folder, got {folder}")
    model = pretrained.load(request.run, trust_file=request.trust_file).eval()
    if request.interpolate is not None:
        init, share = request.interpolate
        interpolate(model, pretrained.load(init, trust_file=request.trust_file), share)
    try:
        difference = FORMATS[request.format](model, folder)
    except ImportError as error:
        raise ValueError(f"--format {request.format} is checked by {error.name}: pip install {error.name}") from None
    log.info("%s: loaded by its consumer, embeddings differ by at most %.1e", folder, difference)


if __name__ == "__main__":
    main()
