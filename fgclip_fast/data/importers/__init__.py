"""Other layouts to shards, one file a source."""
