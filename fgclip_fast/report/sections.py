"""The parts of a run's page that come from its files alone, from top to bottom."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fgclip_fast.report import charts
from fgclip_fast.report.charts import Line
from fgclip_fast.report.files import RunFiles
from fgclip_fast.report.html import details, escape, facts, paragraph, percent, section, span, table

TERMS = ("hard_negative", "region", "short", "long")
TERM_NAMES = {
    "hard_negative": "hard negatives",
    "region": "regions",
    "short": "short captions",
    "long": "long captions",
}


def head(run: RunFiles, untrained: Mapping[str, Any], parameters: int | None) -> str:
    """What was trained on what, for how long, and the result in a sentence."""
    steps = f"{run.step:,}" if run.finished or not run.steps else f"{run.step:,} of {run.steps:,}, stopped"
    val = {"scenes": "the embedded set of rendered scenes", "": "none"}
    pairs = {
        "trained on": val.get(run.config.data.train, run.config.data.train),
        "validated on": val.get(run.config.data.val, run.config.data.val),
        "steps": steps,
        "images a step": run.config.batch_size * run.about.get("processes", 1),
        "time in steps": span(run.seconds) if run.train else None,
        "parameters": f"{parameters / 1e6:.1f} M" if parameters else None,
        "started": run.about.get("started"),
    }
    return (
        f'<header class="top"><p class="kicker">fgclip_fast · report of a run</p><h1>{escape(run.name)}</h1>'
        f'<p class="result">{escape(sentence(run, untrained))}</p>{facts(pairs)}</header>'
    )


def sentence(run: RunFiles, untrained: Mapping[str, Any]) -> str:
    """The result of a run."""
    hard = run.figures.get("unseen/hard", {})
    own = run.figures.get("records", {})
    if hard.get("top1") is not None:
        said = (
            f"Given a box and eleven texts that differ in one word, it picks the right one {percent(hard['top1'], 0)}"
        )
        said += f" of the time, for things that no training text tells of (chance {percent(hard['chance'], 0)}"
        return said + _before(untrained.get("unseen/hard", {}).get("top1")) + ")."
    if own.get("hard_negative_top1") is not None:
        share = percent(own["hard_negative_top1"], 0)
        said = f"Given a box, its text and that text's negatives, it picks the right one {share} of the time"
        before = _before(untrained.get("records", {}).get("hard_negative_top1")).removeprefix(", ")
        return f"{said} ({before})." if before else f"{said}."
    if own.get("short_image_to_text_r@1") is not None:
        share = percent(own["short_image_to_text_r@1"], 0)
        return f"Of {own['images']} validation images, {share} find their own short caption first."
    checked = run.validation[-1] if run.validation else {}
    if isinstance(checked.get("hard_negative_top1"), float):
        share = percent(checked["hard_negative_top1"], 0)
        said = f"At step {checked['step']:,} it picked a box's right text among its negatives {share} of the time"
        return f"{said}; {'it was stopped before its end' if not run.finished else 'the end was not evaluated'}."
    if not run.train:
        return "No step was done yet."
    why = "it was stopped before its end" if not run.finished else "it evaluated nothing"
    return f"{run.step:,} steps are done; there is no result yet, since {why}."


def _before(share: float | None) -> str:
    return "" if share is None else f", before training {percent(share, 0)}"


def training(run: RunFiles) -> str:
    """Losses, learning rate and validation over time."""
    if not run.train:
        return section("training", "How it learned", paragraph("The log holds no training step.", "note"))
    losses = [Line(TERM_NAMES[t], points(run.train, t), s) for t, s in zip(TERMS, "abcd", strict=True)]
    kept = [line for line in losses if any(value for _, value in line.points)]
    checks = {"hard_negative_top1": "right text among negatives", "region_top1_in_image": "right text in picture"}
    shares = [Line(n, points(run.validation, k), s) for (k, n), s in zip(checks.items(), "ab", strict=True)]
    skipped = sum(bool(line.get("skipped")) for line in run.train)
    note = f"{skipped} steps were not finite and changed nothing." if skipped else ""
    grid = "".join(
        (
            charts.lines("Loss terms, unweighted", kept),
            charts.lines("Validation", [line for line in shares if line.points]),
            charts.lines("Learning rate", [Line("learning rate", points(run.train, "lr"), "a")]),
            charts.lines("Gradient norm", [Line("gradient norm", points(run.train, "grad_norm"), "a")], log=True),
        )
    )
    return section("training", "How it learned", f'<div class="charts">{grid}</div>', paragraph(note) if note else "")


def points(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one figure of the log, where it has it."""
    return [(line["step"], line[name]) for line in log if isinstance(line.get(name), int | float)]


def speed(run: RunFiles, tokens: Mapping[str, int]) -> str:
    """Where the time of a step goes, and how many text tokens packing saves."""
    if not run.train:
        return ""
    parts: dict[str, float] = {}
    for line in run.times:
        for name, seconds in line.items():
            if name not in ("step", "kind"):
                parts[name] = parts.get(name, 0.0) + seconds
    waiting = sum(line["waiting"] for line in run.train) / len(run.train)
    rates = {
        "images a second": f"{_median([line['images_per_s'] for line in run.train]):.0f}",
        "text tokens a second": f"{_median([line['tokens_per_s'] for line in run.train]):,.0f}",
        "waiting for data": percent(waiting),
        "peak memory": f"{run.train[-1]['memory_gb']:.1f} GB",
    }
    title = f"A step, measured over {len(run.times)} steps (each tower with its backward)"
    return section(
        "speed", "Where the time went", charts.stack(parts, title) if parts else "", facts(rates), _tokens(tokens)
    )


def _tokens(tokens: Mapping[str, int]) -> str:
    if not tokens:
        return ""
    padded = max(tokens.values())
    rows = [(name, f"{n:,}", f"{padded / n:.1f} ×") for name, n in tokens.items()]
    return "<h3>Text tokens of one batch</h3>" + table(["texts laid out", "tokens", "fewer by"], rows, "Text tokens")


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def provenance(run: RunFiles) -> str:
    """What is needed to do it again."""
    data = run.about.get("data", {})
    versions = run.about.get("versions", {})
    pairs: dict[str, object] = {
        "seed": run.config.seed,
        "device": run.about.get("device"),
        "machine": run.about.get("machine"),
    }
    commands = run.about.get("commands") or [f"python -m fgclip_fast.train --config {run.path / 'config.yaml'}"]
    bad = sorted(run.records.items(), key=lambda item: -item[1])
    counts = table(["cause", "count"], bad, "Bad records by cause") if bad else paragraph("None.")
    fingerprints = [(name, d.get("shards"), d.get("samples"), d.get("fingerprint")) for name, d in data.items()]
    return section(
        "again",
        "To do it again",
        "".join(f"<pre><code>{escape(command)}</code></pre>" for command in commands),
        facts(pairs),
        table(["data", "shards", "samples", "fingerprint"], fingerprints, "Data") if fingerprints else "",
        "<h3>Records that were bad, dropped or filled</h3>" + counts if run.train else "",
        details("Versions", table(["package", "version"], versions.items(), "Versions")) if versions else "",
        details("config.yaml, as resolved", f"<pre><code>{escape(_yaml(run))}</code></pre>"),
    )


def _yaml(run: RunFiles) -> str:
    text = (run.path / "config.yaml").read_text(errors="replace")
    try:
        return yaml.safe_dump(yaml.safe_load(text), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError:
        return text
