"""The cost of a training step on a card, counted on any machine.

The real step (model, losses, backward pass, optimizer) runs on tensors without values; each operation is noted with
its FLOPs, bytes and launches, and every storage while it lives. Nothing is measured: :func:`step_cost` says what a
card has to do, and a :class:`Card` what its datasheet allows.
"""

from fgclip_fast.cost.cards import CARDS, Card
from fgclip_fast.cost.fit import Fit, fit
from fgclip_fast.cost.rules import Cost, rule
from fgclip_fast.cost.step_cost import StepCost, step_cost
from fgclip_fast.cost.table import table, verdict

__all__ = ["CARDS", "Card", "Cost", "Fit", "StepCost", "fit", "rule", "step_cost", "table", "verdict"]
