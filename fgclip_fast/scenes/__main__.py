"""The command ``fgclip scenes``."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fgclip_fast import command

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Request:
    """The files to write: at least one of output, contact-sheet and scene."""

    output: str | None = None
    """Folder to write the data set to: shards, and questions in FG-OVD's format."""
    contact_sheet: str | None = None
    """PNG file to write: a sheet with every noun, colour, pattern, finish and size."""
    scene: str | None = None
    """PNG file to write: one scene. Its record is printed."""
    train: int = 12000
    """Number of scenes to train on."""
    val: int = 400
    """Number of scenes to validate on."""
    seed: int = 0
    """Seed of everything random."""
    workers: int | None = None
    """Processes that draw; None: one for each core that this process may use."""
    split: Literal["train", "val"] = "train"
    """Split of the scene of --scene. Scenes of val may show pairs of noun and colour that no scene of train shows."""
    number: int = 0
    """Number of the scene of --scene, from 0."""
    length: float = 80
    """Longest side of each thing on the contact sheet, in pixels."""
    zoom: int = 1
    """Factor by which sheet and scene are enlarged."""


DESCRIPTION = """Write the embedded data set (rendered scenes) to a folder, or render parts of it to look at.

Training uses the set without this command, by the word "scenes" as --data.train or --data.val."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    with command.frame("scenes"):
        run(command.read(Request, "scenes", arguments, DESCRIPTION))


def run(request: Request) -> None:
    """Write what is asked for.

    Raises:
        ValueError: nothing is asked for, or a number is out of range.
        OSError: a file cannot be written.
    """
    if not (request.output or request.contact_sheet or request.scene):
        raise ValueError("nothing to write; pass --output FOLDER, --contact-sheet FILE or --scene FILE")
    if request.contact_sheet:
        from fgclip_fast.scenes.sheet import contact_sheet

        _save(contact_sheet(request.length, request.seed), request.contact_sheet, request.zoom)
    if request.scene:
        _show_scene(request)
    if request.output:
        _write(request)


def _show_scene(request: Request) -> None:
    from fgclip_fast.scenes.compose import render
    from fgclip_fast.scenes.write import record_of, scene_of

    scene = scene_of(request.split, request.number, request.seed)
    _save(render(scene), str(request.scene), request.zoom)
    print(json.dumps(record_of(scene, request.split, request.number, request.seed), indent=2))


def _write(request: Request) -> None:
    from fgclip_fast.scenes.write import write_scenes

    start = time.perf_counter()
    folder = Path(str(request.output))
    write_scenes(folder, train=request.train, val=request.val, seed=request.seed, workers=request.workers)
    print(f"{folder}: {request.train} + {request.val} scenes in {time.perf_counter() - start:.0f} s")


def _save(image: "Image.Image", path: str, zoom: int) -> None:
    image.resize((image.width * zoom, image.height * zoom), resample=0).save(path)
    print(path)


if __name__ == "__main__":
    main()
