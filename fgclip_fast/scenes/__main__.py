"""``python -m fgclip_fast.scenes``: write the embedded data set, or look at it."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to make; give one of the three."""

    output: str | None = None
    """Folder for a data set: shards, and questions in FG-OVD's format."""
    contact_sheet: str | None = None
    """PNG file for a sheet of all nouns, colours, patterns, finishes and sizes."""
    scene: str | None = None
    """PNG file for one scene; its record is printed."""
    train: int = 12000
    """Scenes to train on."""
    val: int = 400
    """Scenes to validate on."""
    seed: int = 0
    """Of everything drawn."""
    workers: int | None = None
    """Processes; None: as many as this process may use cores."""
    split: Literal["train", "val"] = "train"
    """Whose scene; those of val may hold unseen pairs of noun and colour."""
    number: int = 0
    """Which scene."""
    length: float = 80
    """Longest side of each thing on the contact sheet, pixels."""
    zoom: int = 1
    """Enlarges sheet and scene so many times."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    import tyro

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    request = tyro.cli(Request, args=arguments, prog="fgclip scenes", description=__doc__)
    if not (request.output or request.contact_sheet or request.scene):
        raise SystemExit("error: nothing to make: give --output FOLDER, --contact-sheet FILE or --scene FILE")
    if request.contact_sheet:
        from fgclip_fast.scenes.sheet import contact_sheet

        _save(contact_sheet(request.length, request.seed), request.contact_sheet, request.zoom)
    if request.scene:
        _show_scene(request)
    if request.output:
        try:
            _write(request)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None


def _show_scene(request: Request) -> None:
    from fgclip_fast.scenes.compose import render
    from fgclip_fast.scenes.write import record_of, scene_of

    scene = scene_of(request.split, request.number, request.seed)
    _save(render(scene), str(request.scene), request.zoom)
    print(json.dumps(record_of(scene, request.split, request.number, request.seed), indent=2))


def _write(request: Request) -> None:
    from fgclip_fast.scenes.write import write

    start = time.perf_counter()
    folder = Path(str(request.output))
    write(folder, train=request.train, val=request.val, seed=request.seed, workers=request.workers)
    print(f"{folder}: {request.train} + {request.val} scenes in {time.perf_counter() - start:.0f} s")


def _save(image, path: str, zoom: int) -> None:
    image.resize((image.width * zoom, image.height * zoom), 0).save(path)
    print(path)


if __name__ == "__main__":
    main()
