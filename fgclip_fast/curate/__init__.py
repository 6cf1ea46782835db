"""Curation: from images to training data, stage by stage; each is a function from record to record."""

from fgclip_fast.curate.lexicon.chunks import Phrase, phrases_of
from fgclip_fast.curate.lexicon.rules import Level, Negative, NounSwaps, Rules, count_values
from fgclip_fast.curate.negatives import Negatives, write_negatives
from fgclip_fast.curate.running import run
from fgclip_fast.curate.stage import AskingStage, Done, Item, LeftOut, Stage

__all__ = [
    "AskingStage",
    "Done",
    "Item",
    "LeftOut",
    "Level",
    "Negative",
    "Negatives",
    "NounSwaps",
    "Phrase",
    "Rules",
    "Stage",
    "count_values",
    "phrases_of",
    "run",
    "write_negatives",
]
