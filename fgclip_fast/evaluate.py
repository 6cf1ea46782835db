"""The command ``fgclip evaluate``: figures of a model by one of the suites, as tables and as JSON."""

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fgclip_fast import command, evaluate_output, evaluate_warnings, figures_file, figures_table, preflight, suites
from fgclip_fast.config import yaml_file
from fgclip_fast.evaluate_request import DESCRIPTION, Request, may_replace, refuse_unused, task_of
from fgclip_fast.evaluation import caveats, paper, text_rows
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.share import Share
from fgclip_fast.figures_file import INIT
from fgclip_fast.files.home_cache import cache_of
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.interpolation import interpolate
from fgclip_fast.process import heap
from fgclip_fast.scenes import locate
from fgclip_fast.suites import Task
from fgclip_fast.training import checkpoint, distributed, start
from fgclip_fast.training.distributed import Processes

log = logging.getLogger("fgclip_fast")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    with command.frame("evaluate"):
        run(command.read(Request, "evaluate", arguments, DESCRIPTION))


def run(request: Request) -> None:
    """Evaluate a model, print the figures and write them.

    Raises:
        ValueError: options that do not fit together, or data that the suite needs and that are not given.
        OSError: a file does not exist, or cannot be read or written.
    """
    refuse_unused(request)
    processes = distributed.start(preflight.device(request.device))
    with distributed.explained(processes, "start the evaluation again"):
        found = _measure(request, processes)
        distributed.stop(processes)
    if not request.allow_partial:
        _refuse_partial(found)


def _measure(request: Request, processes: Processes) -> dict[str, Figures]:
    """Evaluate by all processes; the first one prints and writes. Returns the figures in each of them."""
    heap.keep_freed_memory(processes.device.type)
    model, other = pretrained.load(request.run, trust_file=request.trust_file), _other(request)
    if request.output:
        preflight.check_output("output", Path(request.output))
        evaluate_output.read(Path(request.output))
    names, task = distributed.first_before_others(processes, partial(task_of, request))
    task = replace(task, share=Share(processes.group, shown=True))
    if processes.first:
        _warn(request, model, other, names)
    ask = partial(_ask, request=request, device=processes.device, names=names, task=task)
    found, settings = ask(model)
    found_of_other = None if other is None else ask(other)[0]
    curve = _curve(model, other, {0.0: found_of_other, 1.0: found}, ask) if request.curve else {}
    _compare_with_training(request, names, task)
    if processes.first:
        evaluate_warnings.of_long_texts(request.run, model, found)
        figures = figures_file.described(found, *_weights(request.run), request.limit, settings)
        plain = caveats.dense_untrained(model)
        for name, row in paper.beside(found, model.config, plain=plain, limit=request.limit).items():
            figures[name]["published"] = row
        figures_table.show(figures)
        if found_of_other is not None:
            compared = figures_file.compared(found, found_of_other, *_weights_of_other(request))
            figures = {name: f | {"against": compared[name] | curve.get(name, {})} for name, f in figures.items()}
            figures_table.show_comparison(figures)
            figures_table.show_curves(figures)
        evaluate_output.write(
            figures,
            Path(request.run),
            Path(request.output) if request.output else None,
            whole=request.automatic,
            replace=lambda: may_replace(request),
        )
    return found


def _ask(
    model: FGCLIP, *, request: Request, device: torch.device, names: Sequence[str], task: Task
) -> tuple[dict[str, Figures], dict[str, Any]]:
    """The figures of a model and its settings. It leaves the device again, since two may not fit a GPU."""
    settings = figures_file.settings(model.to(device))
    texts = None
    if request.text_cache != "off":
        folder = cache_of("texts") if request.text_cache == "auto" else Path(request.text_cache)
        # The settings and how the model runs are all that a text's last bits depend on.
        texts = text_rows.of_model(folder, f"{json.dumps(settings, sort_keys=True)} {model.config}")
    found = suites.evaluate(model, names, task, texts)
    model.cpu()
    return found, settings


def _curve(
    model: FGCLIP,
    other: FGCLIP | None,
    ends: Mapping[float, Mapping[str, Figures] | None],
    ask: Callable[[FGCLIP], tuple[dict[str, Figures], dict[str, Any]]],
) -> dict[str, dict[str, Any]]:
    """The figures of weights between two models, as ``evaluation.json`` holds them beside the comparison."""
    assert other is not None
    found = {share: figures for share, figures in ends.items() if figures is not None}
    for share in figures_file.CURVE:
        if share not in found:
            mixed = copy.deepcopy(model)
            interpolate(mixed, other, share)
            found[share] = ask(mixed)[0]
    return figures_file.curves(found)


def _warn(request: Request, model: FGCLIP, other: FGCLIP | None, names: Sequence[str]) -> None:
    evaluate_warnings.of_model(request.run, pretrained.find(request.run), model, names)
    if other is not None:
        if request.against != INIT:
            evaluate_warnings.of_model(str(request.against), pretrained.find(str(request.against)), other, ())
        evaluate_warnings.of_two(model, other)


def _compare_with_training(request: Request, names: Sequence[str], task: Task) -> None:
    """Look for validation images of a run that training has too, if both are the user's own."""
    saved = Path(request.run) / "config.yaml"
    if "records" in names and saved.is_file():
        own = locate.own_patterns(yaml_file.load(saved).data)
        if "train" in own and own["train"] and task.data.val:
            evaluate_warnings.of_leak(own["train"], task.data.val, task.share)


def _refuse_partial(found: Mapping[str, Figures]) -> None:
    """Refuse figures of fewer than half of the questions, after they are written."""
    for name, figures in found.items():
        lost = sum(figures.skipped.values())
        if "skipped" in figures.values and figures.asked < lost:
            causes = ", ".join(f"{count} {cause}" for cause, count in figures.skipped.items())
            of = f"{figures.asked} of {figures.asked + lost} ({causes})"
            raise ValueError(f"evaluate: {name}: fewer than half could be asked, {of}; --allow-partial accepts that")


def _other(request: Request) -> FGCLIP | None:
    """The model to compare with."""
    if request.against is None:
        return None
    config = Path(request.run) / "config.yaml"
    if request.against == INIT and not config.is_file():
        raise ValueError(f"against: init needs a run with a config.yaml, got {request.run}")
    try:
        if request.against == INIT:
            return start.again(yaml_file.load(config))
        return pretrained.load(request.against, trust_file=request.trust_file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"against {request.against}: {error}") from None
    except ValueError as error:
        raise ValueError(f"against {request.against}: {error}") from None


def _weights_of_other(request: Request) -> tuple[str, int | None]:
    """A name for the weights to compare with, and their step."""
    if request.against == INIT:
        return INIT, 0
    where, step = _weights(str(request.against))
    return str(where.resolve()), step


def _weights(path: str) -> tuple[Path, int | None]:
    """The folder or file of the weights, and the step of training that they are of."""
    where = pretrained.find(path)
    at = where.parent.name.removeprefix(checkpoint.PREFIX)
    return where, int(at) if at.isdigit() else None


if __name__ == "__main__":
    main()
