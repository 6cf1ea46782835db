"""Shards of records, their order, decoding, and the loader; names are imported when they are first asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgclip_fast.data.file_order import examples
    from fgclip_fast.data.importers.importing import import_records
    from fgclip_fast.data.loader import Loader
    from fgclip_fast.data.records import Record, Region, parse
    from fgclip_fast.data.shards import Shards, ShardWriter, expand

__all__ = [
    "Loader",
    "Record",
    "Region",
    "ShardWriter",
    "Shards",
    "examples",
    "expand",
    "import_records",
    "parse",
]
_FILES = {
    "file_order": ("examples",),
    "importers.importing": ("import_records",),
    "loader": ("Loader",),
    "records": ("Record", "Region", "parse"),
    "shards": ("ShardWriter", "Shards", "expand"),
}


def __getattr__(name: str) -> Any:
    import importlib

    for file, names in _FILES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
