"""Shards, records, their order, decoding and loading."""
