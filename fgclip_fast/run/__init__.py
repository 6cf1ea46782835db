"""A training run: its folder, its parts, its state, and the loop."""
