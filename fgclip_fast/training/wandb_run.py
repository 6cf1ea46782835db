"""A run at Weights & Biases (W&B)."""

import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fgclip_fast.training.tracker import Tracker, id_of, in_one_line

log = logging.getLogger("fgclip_fast")
_UPLOAD = "120"  # seconds that the end of a run waits for the last figures to be sent


class WandbRun(Tracker):
    """A run at W&B. Its id lies in ``RUN/wandb/id``, so that a resumed run is continued there.

    Where W&B cannot be reached at the start, the figures are kept in ``RUN/wandb`` for ``wandb sync``. Entity, mode,
    tags and the rest come from its own variables, such as ``WANDB_MODE=offline``.
    """

    package: ClassVar[str] = "wandb"
    title: ClassVar[str] = "W&B"
    install: ClassVar[str] = "pip install 'fgclip_fast[wandb]'"

    def _start(self, run: Path, project: str, config: Mapping[str, Any], done: int) -> None:
        import wandb

        os.environ.setdefault("WANDB_FINISH_TIMEOUT", _UPLOAD)
        begin = partial(
            wandb.init,
            project=project,
            id=id_of(run / "wandb", done),
            name=run.name,
            dir=str(run),
            config=dict(config),
            allow_val_change=True,  # a resumed run may have other settings
        )
        try:
            self._run = begin(resume="allow")
        except Exception as error:
            log.warning("wandb: %s; the figures are kept in %s, to be sent by `wandb sync`", in_one_line(error),
                        run / "wandb")  # fmt: skip
            self._run = begin(mode="offline")
        # Over a figure of ours, not over W&B's count of calls, which a resumed run would have to continue.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def _log(self, step: int, named: Mapping[str, float]) -> None:
        self._run.log({"step": step, **named})

    def _set_config(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def _finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
