"""What F-ViT needs of a model: the frozen backbone, and an embedding for each class, ``background`` among them."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.evaluation.classes import read_list
from fgclip_fast.evaluation.ov_coco import BASE, CLASSES
from fgclip_fast.export.open_clip import config_of, state_of
from fgclip_fast.export.probe import compare, pixels
from fgclip_fast.files.whole_file import replacing, write_whole
from fgclip_fast.model.fgclip import FGCLIP

log = logging.getLogger("fgclip_fast")

BACKGROUND = "background"
BACKBONE, EMBEDDINGS = "backbone.pt", "class_embeddings.pt"
_EACH = "nice", "cool", "weird", "small", "large", "clean", "dirty", "hard to see"
_SEEN = (
    *("good", "bad", "bright", "dark", "low resolution", "cropped", "close-up", "jpeg corrupted", "blurry"),
    *("pixelated", "black and white"),
)
_MADE = "plastic", "toy", "plushie", "cartoon", "embroidered"


@torch.no_grad()
def write_f_vit(model: FGCLIP, folder: Path, classes: Path | None = None) -> float:
    """Write the image tower as open_clip's, and embeddings of classes by F-ViT's 63 templates; load both, and compare.

    ``backbone.pt`` is a state dict that ``open_clip.create_model(…, pretrained="backbone.pt")`` takes, and
    ``class_embeddings.pt`` a dict of name → Tensor[D], fp32, of unit length. ``all_classes.json`` and
    ``seen_classes.json`` are the lists that the detector's head reads beside it.

    Args:
        model: in evaluation mode.
        folder: made if missing.
        classes: file of names, one a line or a JSON list; None: the 65 of OV-COCO, of which 48 are seen.

    Returns:
        The largest difference of a patch's embedding of length 1, by the detector's pass over open_clip's tower.

    Raises:
        ValueError: open_clip computes something else, or the file holds no names, or one twice.
    """
    import open_clip

    names, seen = _names(classes)
    folder.mkdir(parents=True, exist_ok=True)
    parts = config_of(model)["model_cfg"]
    peer = open_clip.CLIP(**parts).eval()
    embeddings = {name: vector.clone() for name, vector in zip([*names, BACKGROUND], embed(model, names), strict=True)}
    for name, content in {BACKBONE: state_of(model, peer.state_dict()), EMBEDDINGS: embeddings}.items():
        with replacing(folder / name) as partial:
            torch.save(content, partial)
    write_whole(folder / "all_classes.json", json.dumps(names))
    write_whole(folder / "seen_classes.json", json.dumps(seen))
    log.info("%s: embed_dim %d, width %d", folder, model.config.projection, model.config.vision.width)
    return _check(model, folder, peer)


def _names(file: Path | None) -> tuple[list[str], list[str]]:
    """The classes, and those that a detector is trained on: of a file, all."""
    if file is None:
        return [*CLASSES], [*BASE]
    names = read_list(file)
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise ValueError(f"classes: {file} must hold names, each once, got {twice or 'nothing'}")
    names = [name for name in names if name != BACKGROUND]
    return names, names


def embed(model: FGCLIP, names: Sequence[str]) -> Tensor:
    """Embeddings of classes and of the background, each the unit mean over the templates: Tensor[C + 1, D], fp32."""
    rows = [text for name in [*names, BACKGROUND] for text in texts_of(name)]
    each = model.encode_text(rows).float().cpu().unflatten(0, (len(names) + 1, -1))
    return F.normalize(each.mean(dim=1), dim=-1)


def texts_of(name: str) -> list[str]:
    """The 63 texts of a class, as CLIPSelf's detector was trained with them (arXiv 2310.01403; ViLD's templates).

    "This is " stands before each text that begins with an "a" or with "the".
    """
    a = "an" if name[:1] in [*"aeiou"] else "a"
    shown = name.replace("_", " ").replace("/", " or ").lower().rstrip(".")
    texts = [f"There is {one} {shown} in the scene." for one in (a, "the")]
    texts += [f"a photo of {one} {shown} in the scene." for one in (a, "the", "one")]
    texts += [f"itap of {one} {shown}." for one in (a, "my", "the")]
    texts += [f"a photo of {one} {shown}." for one in (a, "my", "the", "one", "many")]
    texts += [f"a {how} photo of {one} {shown}." for how in _SEEN for one in (a, "the")]
    texts += [f"a photo of {one} {how} {shown}." for how in _EACH for one in ("a", "the")]
    texts += [f"{one} {how} {shown}." for how in _MADE for one in ("an" if how[0] in "aeiou" else "a", "the")]
    texts += [f"a painting of {one} {shown}." for one in ("the", "a")]
    return [f"This is {text}" if text.startswith(("a", "the")) else text for text in texts]


def _check(model: FGCLIP, folder: Path, peer: Any) -> float:
    """Read the files as the detector does, and compare its feature map and its classes with our calls."""
    peer.load_state_dict(torch.load(folder / BACKBONE, weights_only=True))
    names = [*json.loads((folder / "all_classes.json").read_text()), BACKGROUND]
    stored = torch.load(folder / EMBEDDINGS, weights_only=True)
    classes = F.normalize(torch.stack([stored[name] for name in names]), dim=1)
    theirs = F.normalize(_feature_map(peer.visual, pixels(model)), dim=-1)
    pairs = {
        "patch": (model.encode_dense(pixels(model)).flatten(1, 2), theirs),
        "class": (embed(model, names[:-1]), classes),
    }
    return compare("open_clip", pairs)


def _feature_map(visual: Any, image: Tensor) -> Tensor:
    """The detector's pass over a tower of open_clip's: of the last block no attention but its value path."""
    x = visual.conv1(image).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    *blocks, last = visual.transformer.resblocks
    x = visual.ln_pre(x)
    for block in blocks:
        x = block(x)
    width = x.shape[-1]
    value = F.linear(last.ln_1(x), last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :])
    x = x + last.attn.out_proj(value)
    x = x + last.mlp(last.ln_2(x))
    return visual.ln_post(x[:, 1:]) @ visual.proj
