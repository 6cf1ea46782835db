"""FG-CLIP's ops; importing them loads torch and nothing else of the package."""

from fgclip_fast.ops.hard_negative_loss import hard_negative_loss, hard_negative_scores
from fgclip_fast.ops.region_embedding import region_embedding

__all__ = ["hard_negative_loss", "hard_negative_scores", "region_embedding"]
