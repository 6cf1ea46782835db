"""Write a model in the layout of another package, and compare what that package computes with ours."""

from fgclip_fast.export.f_vit import write_f_vit
from fgclip_fast.export.fg_clip import write_fg_clip
from fgclip_fast.export.hf import write_hf, write_vision_tower
from fgclip_fast.export.immich import write_immich
from fgclip_fast.export.onnx import write_onnx
from fgclip_fast.export.onnx_model import OnnxModel
from fgclip_fast.export.open_clip import write_open_clip

__all__ = [
    "OnnxModel",
    "write_f_vit",
    "write_fg_clip",
    "write_hf",
    "write_immich",
    "write_onnx",
    "write_open_clip",
    "write_vision_tower",
]
