"""Write a model in the layout of another package, and compare what that package computes with ours."""

from fgclip_fast.export.fg_clip import write_fg_clip
from fgclip_fast.export.hf import write_hf, write_vision_tower
from fgclip_fast.export.open_clip import write_open_clip

__all__ = ["write_fg_clip", "write_hf", "write_open_clip", "write_vision_tower"]
