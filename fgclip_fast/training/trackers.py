"""The services that the figures of a run go to beside its own log: none, one or several."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from fgclip_fast.config import Config
from fgclip_fast.training.tracker import Tracker
from fgclip_fast.training.trackio_run import TrackioRun
from fgclip_fast.training.wandb_run import WandbRun

_KINDS: tuple[type[Tracker], ...] = (WandbRun, TrackioRun)


class Trackers:
    """Passes what it is told to each of some trackers; false if there are none."""

    def __init__(self, members: Sequence[Tracker] = ()) -> None:
        self._members = tuple(members)

    def __len__(self) -> int:
        return len(self._members)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Send the figures of a step: those values that are finite numbers."""
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for member in self._members if finite else ():
            member.write(step, kind, finite)

    def set_config(self, step: int, values: Mapping[str, Any]) -> None:
        """Say that fields of the config have other values from a step on."""
        for member in self._members:
            member.set_config(step, values)

    def close(self, failed: bool = False) -> None:
        """Wait until the figures are sent."""
        for member in self._members:
            member.close(failed)


def check(config: Config) -> None:
    """Check that the packages of the trackers that a config names can be used, before anything else of a run starts.

    Raises:
        ValueError: one is not installed.
    """
    for kind in _KINDS:
        if getattr(config, kind.package) is not None:
            try:
                import_module(kind.package)
            except ImportError:
                raise ValueError(f"{kind.package} needs {kind.title}: {kind.install}") from None


@contextmanager
def opened(run: Path, config: Config, done: int, writes: bool) -> Iterator[Trackers]:
    """Open the trackers that a config names, and close them.

    Args:
        run: folder of the run.
        config: of the run.
        done: steps done before.
        writes: False for a process that sends nothing.
    """
    named = [(kind, getattr(config, kind.package)) for kind in _KINDS if writes]
    trackers = Trackers([kind(run, project, asdict(config), done) for kind, project in named if project])
    try:
        yield trackers
    except Exception:
        trackers.close(failed=True)
        raise
    trackers.close()
