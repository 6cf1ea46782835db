"""``python -m fgclip_fast.evaluate RUN``: what a model can do, as a table and as JSON.

Suites: ``records``, the user's own validation shards; ``fg-ovd``, files in FG-OVD's format; ``levels``, the embedded
set's. Without ``--suite``: what the run itself would evaluate at its end.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import Positional

from fgclip_fast import command, config_file, preflight
from fgclip_fast.config import Config, Data, Device, Positive, check
from fgclip_fast.evaluation import fg_ovd, records
from fgclip_fast.model import pretrained
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.scenes.locate import EMBEDDED, embedded, locate
from fgclip_fast.training.objective import objective
from fgclip_fast.whole_file import write_json

FIGURES = "evaluation.json"
DESCRIPTION = """Measure what a model can do; print the figures as tables and write them as JSON.

Suites: records (your own validation shards), fg-ovd (files in FG-OVD's format), levels (the embedded set's questions).
Without --suite: what the run itself evaluates at its end."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to evaluate, and on what."""

    run: Positional[str]
    """A run, or a folder of weights."""
    suite: Literal["auto", "records", "fg-ovd", "levels"] = "auto"
    """auto: as at the end of the run."""
    data: str | None = None
    """records: shards; fg-ovd: a .jsonl file or a folder of them. None: as in the run's config."""
    images: str = ""
    """fg-ovd: folder that img_path is relative to."""
    output: str | None = None
    """File for the figures; None: evaluation.json in the run."""
    limit: Positive[int | None] = None
    """At most so many questions or records."""
    batch_size: Positive[int] = 32
    """Images a pass."""
    device: Device = "auto"
    """"cpu", "cuda", or auto."""

    def __post_init__(self) -> None:
        check(self)


def evaluate_run(run: Path, model: FGCLIP, config: Config) -> dict[str, Any]:
    """What a run evaluates at its end: its validation records, and the levels where they are the embedded set's.

    Returns:
        suite → figures; also written to ``evaluation.json`` in the run and printed.
    """
    figures = _as_at_the_end(model, config)
    _write(figures, run / FIGURES)
    show(figures)
    return figures


def on_records(model: FGCLIP, config: Config, limit: int | None = None, batch_size: int = 32) -> dict[str, Any]:
    """Figures on the validation records of a run; empty where it has none."""
    data = locate(config.data)
    if not data.val:
        return {}

    def losses_of(embeddings: Embeddings) -> dict[str, Tensor]:
        return objective(embeddings, config.loss)._asdict()

    ask = partial(records.evaluate, model, data, losses_of=losses_of, batch_size=batch_size, limit=limit)
    return _evaluating(model, ask).values


def on_levels(model: FGCLIP, limit: int | None = None, batch_size: int = 32) -> dict[str, Any]:
    """Figures on each level of the embedded set, for pairs seen in training and for unseen ones."""
    folder = embedded() / "levels"
    ask = partial(on_fg_ovd, model, images=folder / "images", batch_size=batch_size, limit=limit)
    return {
        f"{kind}/{path.stem}": ask(path)
        for kind in ("unseen", "seen")
        for path in sorted((folder / kind).glob("*.jsonl"))
    }


def on_fg_ovd(
    model: FGCLIP, path: Path, *, images: Path, batch_size: int = 32, limit: int | None = None
) -> dict[str, Any]:
    """Figures on one file in FG-OVD's format."""
    asked = partial(fg_ovd.evaluate, model, path, images, batch_size=batch_size, limit=limit)
    return _evaluating(model, asked).values


def show(figures: dict[str, Any]) -> None:
    """Prints one table a kind of suite."""
    table = Table("suite", "top-1", "95 %", "chance", "questions", "skipped")
    for name, f in figures.items():
        if "top1" in f:
            low, high = f["interval"]
            cells = f"{f['top1']:.1%}", f"{low:.1%} – {high:.1%}", f"{f['chance']:.1%}", str(f["questions"])
            table.add_row(name, *cells, ", ".join(f"{n} {cause}" for cause, n in f["skipped"].items()))
    console = Console()
    if table.row_count:
        console.print(table)
    for name, f in figures.items():
        if "top1" not in f:
            own = Table(name, "value")
            for key, value in f.items():
                if not isinstance(value, list):
                    own.add_row(key, f"{value:.4f}" if isinstance(value, float) else str(value))
            console.print(own)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    with command.frame("evaluate"):
        _run(command.read(Request, "evaluate", arguments, DESCRIPTION))


def _run(request: Request) -> None:
    _refuse_unused(request)
    output = Path(request.output) if request.output else Path(request.run) / FIGURES
    device = preflight.device(request.device)
    model = pretrained.load(request.run)
    preflight.check_output("output", output)
    others = {} if request.suite == "auto" and not request.output else _read(output)
    config = _config(request, model)
    figures = _suite(request, model.to(device), config)
    show(figures)
    _write(others | figures, output)


def _refuse_unused(request: Request) -> None:
    """An option that nobody reads would let its user believe in figures of something else."""
    uses = {"records": ("data",), "fg-ovd": ("data", "images")}.get(request.suite, ())
    for name in ("data", "images"):
        if getattr(request, name) and name not in uses:
            suites = "records or fg-ovd" if name == "data" else "fg-ovd"
            raise ValueError(f"{name} is for --suite {suites}, got it with --suite {request.suite}")


def _config(request: Request, model: FGCLIP) -> Config:
    saved = Path(request.run) / "config.yaml"
    config = config_file.load(saved) if saved.exists() else Config(model=model.config, data=Data(train="", val=""))
    if request.suite == "auto" and not config.data.val:
        has = "has no validation shards" if saved.exists() else "is no run with a config.yaml"
        raise ValueError(f"suite: {request.run} {has}, so give one: --suite records, fg-ovd or levels")
    return config


def _suite(request: Request, model: FGCLIP, config: Config) -> dict[str, Any]:
    if request.suite == "auto":
        return _as_at_the_end(model, config, request.limit, request.batch_size)
    if request.suite == "levels":
        return on_levels(model, request.limit, request.batch_size)
    if request.suite == "records":
        return _records(request, model, config)
    return _fg_ovd(request, model)


def _as_at_the_end(model: FGCLIP, config: Config, limit: int | None = None, batch_size: int = 32) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if config.data.val:
        figures["records"] = on_records(model, config, limit, batch_size)
    if config.data.val == EMBEDDED:
        figures |= on_levels(model, limit, batch_size)
    return figures


def _records(request: Request, model: FGCLIP, config: Config) -> dict[str, Any]:
    data = replace(config.data, val=request.data or config.data.val)
    if not data.val:
        raise ValueError("data: the run has no validation shards; name some by --data 'val-*.tar'")
    try:
        return {"records": on_records(model, replace(config, data=data), request.limit, request.batch_size)}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data: {error}") from None


def _fg_ovd(request: Request, model: FGCLIP) -> dict[str, Any]:
    if not request.data:
        raise ValueError("data: --suite fg-ovd needs --data, a .jsonl file in FG-OVD's format or a folder of them")
    path, images = Path(request.data), Path(request.images)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise FileNotFoundError(f"data must be a .jsonl file or a folder of them, got {path}")
    if not images.is_dir():
        raise FileNotFoundError(f"images must be a folder that is there, got {images}")
    ask = partial(on_fg_ovd, model, images=images, batch_size=request.batch_size, limit=request.limit)
    return {f"fg-ovd/{file.stem}": ask(file) for file in files}


def _evaluating(model: FGCLIP, work: Callable[[], Any]) -> Any:
    """Calls ``work`` with the model in evaluation mode and puts it back as it was."""
    training = model.training
    model.eval()
    try:
        return work()
    finally:
        model.train(training)


def _read(path: Path) -> dict[str, Any]:
    """Figures of other suites, which stay in the file."""
    if not path.exists():
        return {}
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        figures = None
    if not isinstance(figures, dict):
        raise ValueError(f"output must be a new file, or one of figures, got {path}")
    return figures


def _write(figures: dict[str, Any], path: Path) -> None:
    write_json(path, figures)


if __name__ == "__main__":
    main()
