"""Sections of a run's page that need only the run's files, from top to bottom."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fgclip_fast.report import charts
from fgclip_fast.report.charts import Line
from fgclip_fast.report.files import RunFiles
from fgclip_fast.report.html import details, duration, escape, facts, paragraph, percent, section, table
from fgclip_fast.scenes.locate import EMBEDDED

TERM_NAMES = {
    "hard_negative": "hard negatives",
    "region": "regions",
    "short": "short captions",
    "long": "long captions",
}
"""Loss term, as the log names it → its name on the page."""


VALIDATED = {
    "hard_negative_top1": "right text among negatives",
    "region_top1_in_image": "right text in its image",
    "short_image_to_text_r@1": "image finds its short caption",
    "long_image_to_text_r@1": "image finds its long caption",
}
"""Figure of the validation records → its name on the chart over the steps."""


def head(run: RunFiles, untrained: Mapping[str, Any], parameters: int | None) -> str:
    """The top of the page: the run's name, its result in a sentence, its data and size.

    Args:
        run: the run.
        untrained: suite → figures of the model before training.
        parameters: number of the model's parameters; None if there is no model.
    """
    steps = f"{run.step:,}" if run.finished or not run.steps else f"{run.step:,} of {run.steps:,}, stopped"
    names = {EMBEDDED: "the embedded set of rendered scenes", "": "none"}
    pairs = {
        "trained on": names.get(run.config.data.train, run.config.data.train),
        "validated on": names.get(run.config.data.val, run.config.data.val),
        "steps": steps,
        "images per step": run.global_batch_size,
        "time in steps": duration(run.seconds) if run.train else None,
        "parameters": f"{parameters / 1e6:.1f} M" if parameters else None,
        "started": run.provenance.get("started"),
    }
    return (
        f'<header class="top"><p class="kicker">fgclip_fast · report of a run</p><h1>{escape(run.name)}</h1>'
        f'<p class="result">{escape(sentence(run, untrained))}</p>{facts(pairs)}</header>'
    )


def sentence(run: RunFiles, untrained: Mapping[str, Any]) -> str:
    """The result of a run in a sentence: its hardest figure that is known, beside chance and before training."""
    hard = run.figures.get("unseen/hard", {})
    records = run.figures.get("records", {})
    if hard.get("top1") is not None:
        return (
            f"Given a box and eleven texts that differ in one word, it picks the right one {percent(hard['top1'], 0)} "
            "of the time, for things that no training text describes (chance "
            f"{percent(hard['chance'], 0)}{_before(untrained.get('unseen/hard', {}).get('top1'))})."
        )
    if records.get("hard_negative_top1") is not None:
        share = percent(records["hard_negative_top1"], 0)
        text = f"Given a box, its text and that text's negatives, it picks the right one {share} of the time"
        before = _before(untrained.get("records", {}).get("hard_negative_top1")).removeprefix(", ")
        return f"{text} ({before})." if before else f"{text}."
    if records.get("short_image_to_text_r@1") is not None:
        share = percent(records["short_image_to_text_r@1"], 0)
        return f"Of {records['images']} validation images, {share} rank their own short caption first."
    checked = run.validation[-1] if run.validation else {}
    if isinstance(checked.get("hard_negative_top1"), float):
        share = percent(checked["hard_negative_top1"], 0)
        text = f"At step {checked['step']:,} it picked a box's right text among its negatives {share} of the time"
        return f"{text}; {'it was stopped before its end' if not run.finished else 'it was not evaluated at its end'}."
    if not run.train:
        return "No step was done yet."
    why = "it was stopped before its end" if not run.finished else "it was not evaluated"
    return f"{run.step:,} steps are done. There is no result yet, because {why}."


def _before(share: float | None) -> str:
    return "" if share is None else f", before training {percent(share, 0)}"


def training(run: RunFiles, untrained: Mapping[str, Any]) -> str:
    """Charts of losses, validation, learning rate and gradient norm over the steps.

    Args:
        run: the run.
        untrained: suite → figures of the model before training, the first point of the validation.
    """
    if not run.train:
        return section("training", "How it learned", paragraph("The log holds no training step.", "note"))
    losses = [Line(n, points(run.train, t), s) for (t, n), s in zip(TERM_NAMES.items(), "abcd", strict=True)]
    kept = [line for line in losses if any(value for _, value in line.points)]
    validation = validated(run, untrained)
    shares = [Line(n, points(validation, k), s) for (k, n), s in zip(VALIDATED.items(), "abcd", strict=True)]
    terms = {"loss_total": "weighted sum", **{f"loss_{term}": name for term, name in TERM_NAMES.items()}}
    checked = [Line(n, points(validation, k), s) for (k, n), s in zip(terms.items(), "eabcd", strict=True)]
    skipped = sum(bool(line.get("skipped")) for line in run.train)
    note = f"{skipped} steps had a loss or gradient that was not finite; they were skipped." if skipped else ""
    grid = "".join(
        (
            charts.lines("Loss terms, unweighted", kept),
            charts.lines("Validation", [line for line in shares if line.points]),
            charts.lines("Validation losses", [line for line in checked if any(value for _, value in line.points)]),
            charts.lines("Learning rate", [Line("learning rate", points(run.train, "lr"), "a")]),
            charts.lines("Gradient norm", [Line("gradient norm", points(run.train, "grad_norm"), "a")], log=True),
        )
    )
    return section("training", "How it learned", f'<div class="charts">{grid}</div>', paragraph(note) if note else "")


def validated(run: RunFiles, untrained: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures on the validation records by step: before training, during it, and at its end."""
    lines, last = list(run.validation), run.figures.get("records", {})
    step = last.get("of", {}).get("step")
    if step is not None and all(line["step"] < step for line in lines):
        lines.append({**last, "step": step})
    before = untrained.get("records", {})
    # A start that was asked about a part of the records does not belong on their curve.
    comparable = bool(lines) and before.get("images") == lines[-1].get("images")
    return [{**before, "step": 0}, *lines] if before and comparable else lines


def points(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """The (step, value) pairs of one figure, from the lines of a log that hold it."""
    return [(line["step"], line[name]) for line in log if isinstance(line.get(name), int | float)]


def speed(run: RunFiles, tokens: Mapping[str, int]) -> str:
    """Charts of the time of a step by part, and of the text tokens that packing saves.

    Args:
        run: the run.
        tokens: layout of the texts → tokens of one batch; may be empty.
    """
    if not run.train:
        return ""
    parts: dict[str, float] = {}
    for line in run.times:
        for name, seconds in line.items():
            if name not in ("step", "kind"):
                parts[name] = parts.get(name, 0.0) + seconds
    waiting = sum(line["waiting"] for line in run.train) / len(run.train)
    rates = {
        "images per second": f"{_median([line['images_per_s'] for line in run.train]):.0f}",
        "text tokens per second": f"{_median([line['tokens_per_s'] for line in run.train]):,.0f}",
        "waiting for data": percent(waiting),
        "peak memory": f"{run.train[-1]['memory_gb']:.1f} GB",
    }
    title = f"Parts of a step, each tower with its backward pass (steps measured: {len(run.times)})"
    return section(
        "speed", "Where the time went", charts.stack(parts, title) if parts else "", facts(rates), _tokens(tokens)
    )


def _tokens(tokens: Mapping[str, int]) -> str:
    if not tokens:
        return ""
    padded = max(tokens.values())
    rows = [(name, f"{n:,}", f"{padded / n:.1f} ×") for name, n in tokens.items()]
    return "<h3>Text tokens of one batch</h3>" + table(
        ["layout of the texts", "tokens", "fewer by"], rows, "Text tokens"
    )


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def reproduction(run: RunFiles) -> str:
    """Commands, versions, data and config that reproduce the run."""
    data = run.provenance.get("data", {})
    versions = run.provenance.get("versions", {})
    pairs: dict[str, object] = {
        "seed": run.config.seed,
        "device": run.provenance.get("device"),
        "machine": run.provenance.get("machine"),
    }
    commands = run.provenance.get("commands") or [f"python -m fgclip_fast.train --config {run.path / 'config.yaml'}"]
    bad = sorted(run.records.items(), key=lambda item: -item[1])
    counts = table(["cause", "count"], bad, "Bad records by cause") if bad else paragraph("None.")
    fingerprints = [(name, d.get("shards"), d.get("samples"), d.get("fingerprint")) for name, d in data.items()]
    return section(
        "reproduce",
        "How to reproduce it",
        "".join(f"<pre><code>{escape(command)}</code></pre>" for command in commands),
        facts(pairs),
        table(["data", "shards", "samples", "fingerprint"], fingerprints, "Data") if fingerprints else "",
        "<h3>Bad records, dropped regions and filled texts</h3>" + counts if run.train else "",
        details("Versions", table(["package", "version"], versions.items(), "Versions")) if versions else "",
        details("config.yaml", f"<pre><code>{escape(_yaml(run))}</code></pre>"),
    )


def _yaml(run: RunFiles) -> str:
    text = (run.path / "config.yaml").read_text(errors="replace")
    try:
        return yaml.safe_dump(yaml.safe_load(text), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError:
        return text
