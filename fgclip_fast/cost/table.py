"""The cost of a step as text."""

from collections.abc import Callable, Sequence

from fgclip_fast.config import Config
from fgclip_fast.cost.cards import Card
from fgclip_fast.cost.counter import Operation
from fgclip_fast.cost.fit import Fit
from fgclip_fast.cost.rules import Kind
from fgclip_fast.cost.step_cost import PHASES, StepCost

Measure = Callable[[Sequence[Operation]], float]


def table(cost: StepCost, card: Card, attained: Card | None = None) -> str:
    """Counts by phase, times by kind, memory, and where the host waits.

    Args:
        cost: Of a step.
        card: Whose stated peaks the times and the utilisation are at.
        attained: The rates that the times are at instead, where they are thought to be lower.
    """
    rates = attained or card
    lines = [_line("", [*PHASES, "step", "at least"])]

    def row(name: str, measure: Measure, *kinds: Kind, unit: float = 1) -> None:
        values = [measure(cost.of(*kinds, phase=phase)) / unit for phase in (*PHASES, None)]
        timed = kinds and measure is not _casts
        time = [f"{1e3 * cost.seconds(rates, *kinds):.1f} ms"] if timed else []
        lines.append(_line(name, [_number(value, whole=unit == 1) for value in values] + time))

    row("products, TFLOP", _flops, "product", unit=1e12)
    row("attention, TFLOP", _flops, "attention", unit=1e12)
    row("losses, TFLOP", _flops, "loss", unit=1e12)
    row("elementwise, GB", _bytes, "elementwise", unit=1e9)
    row("of these casts", _casts, "elementwise")
    row("casts, GB", lambda operations: _bytes([x for x in operations if x.cost.cast]), unit=1e9)
    row("operations", len)
    if cost.of("collective"):
        row(
            "between processes, GB",
            lambda operations: _bytes([x for x in operations if x.cost.kind == "collective"]),
            unit=1e9,
        )
    row("launches, about", lambda operations: sum(x.cost.launches for x in operations))
    waits = "; ".join(f"{count} x {reason} in {place}" for (reason, place), count in cost.waits.items())
    lines += [
        f"host waits              {cost.waits.total()}  {waits}",
        f"saved for backward, GB  {cost.saved / 1e9:.1f}",
        f"peak memory, GB         {cost.peak / 1e9:.1f}; {card.name} has {card.usable / 1e9:.1f} to use: "
        + ("fits" if cost.fits(card) else "does not fit"),
        f"step at least, ms       {1e3 * cost.seconds(rates):.0f}, MFU at most {cost.utilisation(card, rates):.1%}",
    ]
    return "\n".join(lines)


def verdict(found: Fit, card: Card, config: Config) -> str:
    """Say whether a run's step fits a card, and how many images do."""
    cost = found.cost
    word = "fits" if cost.fits(card) else "does not fit"
    lines = [
        f"activations     {cost.saved / 1e9:.1f} GB saved for the backward pass",
        f"a step          {word} {card.name}: {cost.peak / 1e9:.1f} GB of {card.usable / 1e9:.1f} to use, by count",
        f"images          about {found.images:,} in one pass",
    ]
    if found.images < config.batch_size:
        size = found.micro_batch_size
        way_out = f"--micro-batch-size {size} does" if size else "no micro-batch of it does; a larger card is needed"
        lines.append(f"                {config.batch_size:,} do not fit one pass; {way_out}")
    return "\n".join(lines)


def heaviest(cost: StepCost, count: int) -> str:
    """The operations of a step that move most bytes, by name and phase."""
    totals: dict[tuple[str, str], list[float]] = {}
    for x in cost.of("elementwise"):
        entry = totals.setdefault((x.phase, "cast" if x.cost.cast else x.name), [0, 0])
        entry[0] += x.cost.bytes / 1e9
        entry[1] += 1
    most = sorted(totals.items(), key=lambda item: -item[1][0])[:count]
    return "\n".join(f"{phase:10} {name:44} {calls:5.0f} x {moved:8.2f} GB" for (phase, name), (moved, calls) in most)


def _flops(operations: Sequence[Operation]) -> float:
    return sum(x.cost.flops for x in operations)


def _bytes(operations: Sequence[Operation]) -> float:
    return sum(x.cost.bytes for x in operations)


def _casts(operations: Sequence[Operation]) -> float:
    return sum(x.cost.cast for x in operations)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:22}" + "".join(f"{cell:>12}" for cell in cells)


def _number(value: float, whole: bool) -> str:
    return f"{value:,.0f}" if whole else f"{value:.3f}" if 0 < value < 0.1 else f"{value:.1f}"
