"""FG-CLIP's ops; importing them loads torch and nothing else of the package."""

from fgclip_fast.ops import native
from fgclip_fast.ops.activation_linear import activation_linear
from fgclip_fast.ops.add_layer_norm import add_layer_norm
from fgclip_fast.ops.contrastive_loss import contrastive_loss
from fgclip_fast.ops.dense_attention import dense_attention
from fgclip_fast.ops.hard_negative_loss import hard_negative_loss, hard_negative_scores
from fgclip_fast.ops.norm_linear import norm_linear
from fgclip_fast.ops.prefix_tree import prefix_tree
from fgclip_fast.ops.region_embedding import region_embedding
from fgclip_fast.ops.split_joint import split_joint
from fgclip_fast.ops.tree import Tree
from fgclip_fast.ops.tree_attention import tree_attention

native.require_installation()

__all__ = [
    "Tree",
    "activation_linear",
    "add_layer_norm",
    "contrastive_loss",
    "dense_attention",
    "hard_negative_loss",
    "hard_negative_scores",
    "norm_linear",
    "prefix_tree",
    "region_embedding",
    "split_joint",
    "tree_attention",
]
