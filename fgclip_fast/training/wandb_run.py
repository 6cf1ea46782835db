"""Send the figures of a run to Weights & Biases (W&B), too; whatever fails there, the run goes on."""

import logging
import os
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fgclip_fast.whole_file import write_whole

log = logging.getLogger("fgclip_fast")
_UPLOAD = "120"  # seconds that the end of a run waits for the last figures to be sent


def check(project: str | None) -> None:
    """Check that W&B can be used, before anything else of a run starts.

    Raises:
        ValueError: ``project`` is given, and the package wandb is not installed.
    """
    if project is not None:
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise ValueError("wandb needs W&B: pip install 'fgclip_fast[wandb]'") from None


class WandbRun:
    """A run at W&B. Its id lies in ``RUN/wandb/id``, so that a resumed run is continued there.

    A failure is told once, as a warning, and ends the sending alone. Where W&B cannot be reached at the start, the
    figures are kept in ``RUN/wandb`` for ``wandb sync``. Entity, mode, tags and the rest come from its own variables,
    such as ``WANDB_MODE=offline``.

    Args:
        run: folder of the run.
        project: name of the project there.
        config: of the run.
        done: steps done before; 0 begins another run there.
    """

    def __init__(self, run: Path, project: str, config: Mapping[str, Any], done: int) -> None:
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", _UPLOAD)
        self._run: Any = None
        self._attempt(lambda: self._start(run, project, config, done))

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Send the figures of a step, of which W&B draws curves over ``step``."""
        named = {f"{kind}/{name}": value for name, value in values.items()}
        self._attempt(lambda: self._run and self._run.log({"step": step, **named}))

    def close(self) -> None:
        """Wait until the figures are sent, two minutes at most."""
        self._attempt(lambda: self._run and self._run.finish())

    def _start(self, run: Path, project: str, config: Mapping[str, Any], done: int) -> None:
        import wandb

        file = run / "wandb" / "id"
        file.parent.mkdir(exist_ok=True)
        if not done or not file.exists():
            write_whole(file, secrets.token_hex(8))
        begin = partial(
            wandb.init, project=project, id=file.read_text(), name=run.name, dir=str(run), config=dict(config)
        )
        try:
            self._run = begin(resume="allow")
        except Exception as error:
            log.warning("wandb: %s; the figures are kept in %s, to be sent by `wandb sync`", _line(error), file.parent)
            self._run = begin(mode="offline")
        # Over a figure of ours, not over W&B's count of calls, which a resumed run would have to continue.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def _attempt(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            self._run = None
            log.warning("wandb: %s; no more figures are sent, and the run goes on", _line(error))


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
