"""Make shards from other layouts, one file for each."""
