"""Curation: make training data better than it came. The first stage writes hard negatives by rules."""

from fgclip_fast.curate.rules import Level, Negative, NounSwaps, Rules, count_values
from fgclip_fast.curate.stage import Settings, write_negatives

__all__ = ["Level", "Negative", "NounSwaps", "Rules", "Settings", "count_values", "write_negatives"]
