"""The network, its weights on disk, and the calls that users make on it.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgclip_fast.model.embeddings import Embeddings
    from fgclip_fast.model.fgclip import FGCLIP
    from fgclip_fast.model.network import Network
    from fgclip_fast.model.pretrained import load

__all__ = ["FGCLIP", "Embeddings", "Network", "load"]
_FILES = {"FGCLIP": "fgclip", "Embeddings": "embeddings", "Network": "network", "load": "pretrained"}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
