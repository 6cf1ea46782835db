"""The network, its released layout on disk, and what users call on it."""
