"""The inputs of a model: tokens, pixels, boxes, and the batch that carries them.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgclip_fast.inputs import boxes
    from fgclip_fast.inputs.batch import Batch, Example, make_batch
    from fgclip_fast.inputs.image import ImageInput, Transform, normalize, rgb, squash
    from fgclip_fast.inputs.texts import Texts
    from fgclip_fast.inputs.tokenizer import Tokenizer, Tokens

__all__ = [
    "Batch",
    "Example",
    "ImageInput",
    "Texts",
    "Tokenizer",
    "Tokens",
    "Transform",
    "boxes",
    "make_batch",
    "normalize",
    "rgb",
    "squash",
]
_FILES = {
    "batch": ("Batch", "Example", "make_batch"),
    "image": ("ImageInput", "Transform", "normalize", "rgb", "squash"),
    "texts": ("Texts",),
    "tokenizer": ("Tokenizer", "Tokens"),
}


def __getattr__(name: str) -> Any:
    import importlib

    for file, names in _FILES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{file}"), name)
    if name == "boxes":
        return importlib.import_module(f"{__name__}.boxes")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
