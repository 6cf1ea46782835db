"""What a lower precision costs on the user's own validation records."""

import logging
from dataclasses import replace
from pathlib import Path

from fgclip_fast import figures_file, figures_table, suites
from fgclip_fast.config import Config, Data, yaml_file
from fgclip_fast.export.onnx_model import OnnxModel
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.scenes.locate import resolve

log = logging.getLogger("fgclip_fast")


def find_records(run: Path, records: str | None) -> Data | None:
    """Settings whose ``val`` names records: the given ones, else the run's own; None where there are none."""
    saved = run / "config.yaml"
    config = yaml_file.load(saved) if saved.exists() else Config(data=Data(train="", val=""))
    val = config.data.val if records is None else records
    return resolve(replace(config.data, train="", val=val)).data if val else None


def measure(model: FGCLIP, folder: Path, data: Data, limit: int | None) -> dict[str, float]:
    """Evaluate a model and its ONNX graphs on records, and print the figures of both side by side.

    Args:
        model: in fp32, on the CPU.
        folder: the graphs.
        data: its ``val`` names the records.
        limit: records at most; None: all.

    Returns:
        Figure → that of the graphs minus that of the model, in [-1, 1].

    Raises:
        OSError: the records cannot be read.
    """
    task = suites.Task(data=data, limit=limit)
    full, ours = (suites.evaluate(one, ["records"], task) for one in (model, OnnxModel(folder)))
    compared = figures_file.compared(ours, full, "fp32", None)
    log.info("%s: the graphs (model) against the model in fp32, on %s", folder, data.val)
    figures_table.show_comparison({name: {**found.values, "against": compared[name]} for name, found in ours.items()})
    return {name: found["difference"] for name, found in compared["records"]["differences"].items()}
