"""Tiny models to test with."""

from fgclip_fast.config.model import Model, Text, Vision

TINY = Model(
    vision=Vision(image_size=48, patch_size=16, width=48, layers=2, heads=4, mlp=96),
    text=Text(width=32, layers=2, heads=2, mlp=64),
    projection=24,
)
"""Towers of two narrow blocks over 3 x 3 patches, with CLIP's vocabulary."""

SMALL = Model(
    vision=Vision(image_size=32, patch_size=8, width=32, layers=2, heads=2, mlp=64),
    text=Text(width=32, layers=1, heads=2, mlp=64),
    projection=16,
)
"""Wide enough to learn a handful of scenes."""

MINI = Model(
    vision=Vision(image_size=32, patch_size=8, width=16, layers=2, heads=2, mlp=32),
    text=Text(width=16, layers=1, heads=2, mlp=32),
    projection=8,
)
"""The smallest of use, for tests of what stands around a model."""
