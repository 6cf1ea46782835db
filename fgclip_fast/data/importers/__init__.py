"""Make shards from other layouts of images and annotations; :mod:`~fgclip_fast.data.importers.formats` lists them."""

from fgclip_fast.data.importers.importing import Imported, import_records

__all__ = ["Imported", "import_records"]
