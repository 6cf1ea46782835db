"""Signs that a run goes wrong: steps in a row without a finite gradient, and losses far above those before."""

from collections import deque
from statistics import median

from torch import Tensor

from fgclip_fast.training.host_copy import HostCopy

SPAN = 100
"""Steps that a loss is compared with."""
_ENOUGH = 50  # steps before the first comparison
_FAR = 10.0  # median deviations above the median, which a step of a steady run does not reach
_MORE = 1.2  # times the median, so that a nearly constant loss is not flagged for its last digits


class SkippedSteps:
    """Counts the steps in a row that were skipped; each is read one step late, so that the host waits for none.

    Every process counts the same, since all decide by the same gradient.

    Args:
        limit: number of steps in a row that is too many; 0: none is.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._row = limit, 0
        self._pending: HostCopy | None = None

    def too_many(self, skipped: Tensor) -> bool:
        """Take in a step; True if the ``limit`` steps before it were all skipped.

        Args:
            skipped: Tensor[], 1 if the step changed nothing, else 0.
        """
        if self._pending is not None:
            self._row = self._row + 1 if self._pending.read() else 0
        self._pending = HostCopy(skipped) if self._limit else None
        return bool(self._limit) and self._row >= self._limit


class Spikes:
    """Finds losses far above the median of the last :data:`SPAN` steps."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=SPAN)

    def above(self, loss: float) -> float | None:
        """Take in the loss of a step; return the median before it if it is a spike, else None."""
        before = [*self._losses]
        self._losses.append(loss)
        if len(before) < _ENOUGH:
            return None
        middle = median(before)
        deviation = median(abs(other - middle) for other in before)
        return middle if loss > max(middle + _FAR * deviation, _MORE * middle) else None
