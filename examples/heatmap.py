"""Where in an image does a text fit? A heat map of its patches, and a search over boxes.

``python examples/heatmap.py WEIGHTS IMAGE TEXT``: a folder of weights or a run, an image file, a text. Without
arguments: a small random model, which has learned nothing, on a rendered scene.
"""

import sys
from itertools import product
from pathlib import Path

import torch
from PIL import Image

import fgclip_fast
from fgclip_fast.evaluation.heatmap import heatmap
from fgclip_fast.inputs.image import read
from fgclip_fast.presets import PRESETS
from fgclip_fast.scenes.compose import render
from fgclip_fast.scenes.write import scene_of

Box = tuple[float, float, float, float]


def candidates(side: float = 0.25) -> list[Box]:
    """Boxes of three sizes that overlap by half, as fractions of the image."""
    found = []
    for size in (side, 2 * side, 3 * side):
        starts = [step * size / 2 for step in range(int((1 - size) / (size / 2) + 1e-9) + 1)]
        found += [(x, y, x + size, y + size) for y, x in product(starts, starts)]
    return found


def search(model: fgclip_fast.FGCLIP, image: Image.Image, text: str, best: int = 3) -> list[tuple[Box, float]]:
    """The boxes whose embeddings are nearest to a text's, with their cosines, the nearest first."""
    boxes = candidates()
    regions = model.encode_regions([image], [boxes], unit="fraction")
    cosine = regions @ model.encode_text([text])[0]
    return [(boxes[i], cosine[i].item()) for i in cosine.argsort(descending=True)[:best].tolist()]


def main(model: fgclip_fast.FGCLIP, image: Image.Image, text: str, output: Path) -> list[tuple[Box, float]]:
    """Print the best boxes, and draw the heat map with the best one in it."""
    model.eval()
    found = search(model, image, text)
    for box, cosine in found:
        print(f"{cosine:.3f}", " ".join(f"{fraction:.2f}" for fraction in box))
    patches = model.encode_dense(image)[0]  # [G, G, D]
    similarity = torch.einsum("d,yxd->yx", model.encode_text([text])[0], patches).cpu()
    heatmap(image, similarity[None], [text], found[0][0]).save(output)
    print(f"{output}: bright where the text fits")
    return found


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(fgclip_fast.load(sys.argv[1]), read(sys.argv[2]), sys.argv[3], Path("heatmap.png"))
    else:
        scene = render(scene_of("val", 0, seed=0))
        main(fgclip_fast.FGCLIP(PRESETS["tiny"].model), scene, "a red mug", Path("heatmap.png"))
