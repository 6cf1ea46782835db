"""The embedded data set: rendered scenes with captions, regions and hard negatives.

Names are imported when they are first asked for, so that using the data set does not load what draws it.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["EMBEDDED", "Source", "embedded", "resolve", "write_scenes"]

if TYPE_CHECKING:
    from fgclip_fast.scenes.locate import EMBEDDED, Source, embedded, resolve
    from fgclip_fast.scenes.write import write_scenes


def __getattr__(name: str) -> Any:
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "write" if name == "write_scenes" else "locate"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
