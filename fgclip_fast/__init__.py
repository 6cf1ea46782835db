"""Fast, exact training and use of FG-CLIP (arXiv 2505.05071).

``fgclip_fast.load(path)`` gives a model that embeds images, texts and regions; ``fgclip_fast.ops`` holds the ops, for
any other CLIP code base too. Everything is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["FGCLIP", "load", "ops"]

if TYPE_CHECKING:
    from fgclip_fast import ops
    from fgclip_fast.model.fgclip import FGCLIP
    from fgclip_fast.model.pretrained import load


def __getattr__(name: str) -> Any:
    import importlib

    if name == "ops":
        return importlib.import_module("fgclip_fast.ops")
    if name == "load":
        return importlib.import_module("fgclip_fast.model.pretrained").load
    if name == "FGCLIP":
        return importlib.import_module("fgclip_fast.model.fgclip").FGCLIP
    raise AttributeError(f"module 'fgclip_fast' has no attribute {name!r}")
