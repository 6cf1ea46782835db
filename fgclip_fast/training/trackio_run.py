"""A run in Trackio, which keeps figures on this machine, on a server of one's own or on Hugging Face."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fgclip_fast.training.tracker import Tracker, id_of


class TrackioRun(Tracker):
    """A run in Trackio, under the folder's name and the id in ``RUN/trackio/id``, by which a resumed run is continued.

    Where the figures go is decided by Trackio's own variables, such as ``TRACKIO_SERVER_URL``.
    """

    package: ClassVar[str] = "trackio"
    title: ClassVar[str] = "Trackio"
    install: ClassVar[str] = "docs/training.md has the pip lines"

    def _start(self, run: Path, project: str, config: Mapping[str, Any], done: int) -> None:
        import trackio

        # Trackio knows a run by its name.
        name = f"{run.name}-{id_of(run / 'trackio', done)}"
        self._run = trackio.init(project=project, name=name, config=dict(config), resume="allow", embed=False)

    def _log(self, step: int, named: Mapping[str, float]) -> None:
        self._run.log(dict(named), step=step)

    def _set_config(self, step: int, values: Mapping[str, Any]) -> None:
        # Trackio keeps the config as it was at the start.
        numbers = {f"config/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        self._run.log(numbers, step=step)

    def _finish(self, failed: bool) -> None:
        self._run.finish()
