"""The words of the scenes: what there is to be said about a thing. Plain data, also for menus."""

from typing import NamedTuple

COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "grey")
PATTERNS = ("plain", "striped", "dotted", "checked")
FINISHES = ("matte", "shiny", "glowing")
SIZES = ("small", "large")
NOUNS = (
    "mug", "teapot", "house", "tree", "fish", "boat", "car", "umbrella", "mushroom", "flower", "cat", "duck",
    "butterfly", "hat", "boot", "shirt", "bell", "crown", "padlock", "guitar", "chair", "rocket", "snail", "apple",
)  # fmt: skip
