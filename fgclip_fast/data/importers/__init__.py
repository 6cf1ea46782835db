"""Make shards from other layouts, one file for each."""

from fgclip_fast.data.importers.jsonl import write_shards

__all__ = ["write_shards"]
