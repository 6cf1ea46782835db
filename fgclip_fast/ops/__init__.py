"""FG-CLIP's ops; importing them loads torch and nothing else of the package."""

from fgclip_fast.ops.prefix_tree import Tree, prefix_tree
from fgclip_fast.ops.tree_attention import tree_attention

__all__ = ["Tree", "prefix_tree", "tree_attention"]
