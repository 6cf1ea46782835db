"""FG-CLIP's ops; importing them loads torch and nothing else of the package."""

from fgclip_fast.ops.region_embedding import region_embedding

__all__ = ["region_embedding"]
