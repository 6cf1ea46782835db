"""The section of a page on what a run's model can tell apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fgclip_fast.evaluation import comparison
from fgclip_fast.evaluation.comparison import RESAMPLES, Difference
from fgclip_fast.report import charts
from fgclip_fast.report.charts import Mark
from fgclip_fast.report.files import RunFiles
from fgclip_fast.report.html import escape, paragraph, percent, section, table
from fgclip_fast.scenes.levels import LEVELS

LEVEL_TITLES = {
    "hard": "Hard: one word differs",
    "medium": "Medium: two words differ",
    "easy": "Easy: three words differ",
    "trivial": "Trivial: texts of other things",
}
INTERVALS = (
    f"Changes come with a 95 % interval from {RESAMPLES:,} paired resamples of the images; "
    "* marks one that excludes zero."
)
BEFORE_AFTER = (
    '<ul class="keys"><li class="key unseen">after training</li><li class="key before">before training</li></ul>'
)
RECORD_TITLES = {
    "hard_negative_top1": "Right text among its negatives",
    "region_top1_in_image": "Right text among those of the image's boxes",
    "phrase_top1_in_image": "Right box of the image for a text",
    "short_image_to_text_r@1": "Image finds its short caption (R@1)",
    "short_text_to_image_r@1": "Short caption finds its image (R@1)",
    "long_image_to_text_r@1": "Image finds its long caption (R@1)",
    "long_text_to_image_r@1": "Long caption finds its image (R@1)",
}


def accuracy_section(
    run: RunFiles, untrained: Mapping[str, Any], differences: Mapping[str, Difference] | None = None
) -> str:
    """Accuracy by level and attribute, beside chance and the model before training.

    Args:
        run: the run.
        untrained: suite → figures of the model before training.
        differences: figure of the validation records → difference of the run and the model before training.
    """
    names = [name.removeprefix("unseen/") for name in run.figures if name.startswith("unseen/")]
    parts = [_levels(run, untrained, in_order(names))] if names else []
    parts.append(_records(run.figures.get("records", {}), untrained.get("records", {}), differences or {}))
    rows = [
        (name, percent(f["top1"]), percent(f["chance"]), f["questions"])
        for name, f in run.figures.items()
        if "top1" in f and not name.startswith(("unseen/", "seen/")) and name not in run.kept
    ]
    if rows:
        parts.append(table(["suite", "top-1", "chance", "questions"], rows, "Other suites"))
    if not any(parts):
        parts = _no_figures(run)
    return section("accuracy", "What it can tell apart", *parts)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names of levels as the embedded set lists them; other names come last."""
    names = list(names)
    return [name for name in LEVELS if name in names] + [name for name in names if name not in LEVELS]


def level_title(name: str) -> str:
    """The title of a level, or of a suite about one attribute."""
    return LEVEL_TITLES.get(name, f"Only the {name.replace('-', ' ')} differs")


def in_points(d: Difference) -> str:
    """A difference in points with its 95 % interval, as people read it; * marks one that is sure."""
    text = f"{100 * d.value:+.1f} ({100 * d.low:+.1f} … {100 * d.high:+.1f}){'*' if d.sure else ''}"
    return text.replace("-", "−")


def kept_section(run: RunFiles) -> str:
    """Figures on other data before and after training, from evaluations of the run against its start."""
    if not run.kept:
        if run.config.init is None:
            return ""
        command = f"python -m fgclip_fast.evaluate {run.path} --against init --suite retrieval --data FOLDER"
        text = "Other data were not asked about before and after training. Do it, then write the report again:"
        code = f"<pre><code>{escape(command)}</code></pre>"
        return section("kept", "What it kept", paragraph(text, "note"), code)
    parts = [_kept(name, against) for name, against in run.kept.items()]
    text = f"Other data, asked before and after training. {INTERVALS}"
    return section("kept", "What it kept", paragraph(text), BEFORE_AFTER, *parts)


def _kept(name: str, against: Mapping[str, Any]) -> str:
    """Figures on one of the other data sets, with the verdict."""
    found = {figure: comparison.read(d) for figure, d in against["differences"].items()}
    if not found:
        return f"<h3>{escape(name)}</h3>{paragraph('No image was asked about both before and after training.', 'note')}"
    main, first = next(iter(found.items()))
    rows = [
        (RECORD_TITLES.get(figure, figure), [Mark(d.second, "before"), Mark(d.first, "unseen")])
        for figure, d in found.items()
    ]
    cells = [[percent(d.first), percent(d.second), in_points(d)] for d in found.values()]
    text = f"After training: {first.verdict}, by {RECORD_TITLES.get(main, main)} over {first.images:,} images."
    chart = charts.shares(rows, ["After", "Before", "Change, points"], cells)
    return f"<h3>{escape(name)}</h3>{paragraph(text)}{chart}{_curve(against)}"


def _curve(against: Mapping[str, Any]) -> str:
    """The figures of weights between the start and the run, where they were asked for."""
    curve = against.get("curve")
    if not curve:
        return ""
    head = ["", *(f"{share:g}" for share in curve["shares"])]
    rows = [[RECORD_TITLES.get(figure, figure), *map(percent, values)] for figure, values in curve["figures"].items()]
    main, values = next(iter(curve["figures"].items()))
    dots = [
        (f"{share:g} of the run", [Mark(value, "unseen")] if value is not None else [])
        for share, value in zip(curve["shares"], values, strict=True)
    ]
    title = f"Weights between the start (0) and the run (1): {RECORD_TITLES.get(main, main)}"
    chart = charts.shares(dots, [""], [[percent(value)] for value in values])
    return f"<h4>{escape(title)}</h4>{chart}{table(head, rows, 'All figures by the share of the run')}"


def _no_figures(run: RunFiles) -> list[str]:
    if not run.config.data.val:
        text = "This run had no validation data, so nothing was evaluated. To give it some, pass --data.val SHARDS."
        return [paragraph(text, "note")]
    command = f"<pre><code>{escape(f'python -m fgclip_fast.evaluate {run.path}')}</code></pre>"
    return [paragraph("This run was not evaluated. Evaluate it, then write the report again:", "note"), command]


def _levels(run: RunFiles, untrained: Mapping[str, Any], names: Sequence[str]) -> str:
    rows, cells = [], []
    for name in names:
        unseen, seen = run.figures[f"unseen/{name}"], run.figures.get(f"seen/{name}", {})
        before = untrained.get(f"unseen/{name}", {})
        marks = [Mark(unseen["chance"], "chance")]
        marks += [
            Mark(f["top1"], style) for f, style in ((before, "before"), (seen, "seen")) if f.get("top1") is not None
        ]
        if unseen["top1"] is not None:
            marks.append(Mark(unseen["top1"], "unseen", (unseen["interval"][0], unseen["interval"][1])))
        rows.append((level_title(name), marks))
        cells.append([percent(f.get("top1")) for f in (unseen, seen, before)] + [percent(unseen["chance"])])
    keys = "".join(
        f'<li class="key {style}">{name}</li>'
        for style, name in (
            ("unseen", "unseen: noun and colour never came together in training; with the 95 % interval"),
            ("seen", "seen in training"),
            ("before", "unseen, before training"),
            ("chance", "chance"),
        )
    )
    chart = charts.shares(rows, ["Unseen", "Seen", "Before", "Chance"], cells)
    return (
        paragraph("Share of boxes for which the right text scores highest among its negatives.")
        + f'<ul class="keys">{keys}</ul>{chart}'
    )


def _records(after: Mapping[str, Any], before: Mapping[str, Any], differences: Mapping[str, Difference]) -> str:
    """Figures on the user's validation records, after and before training."""
    names = [name for name in RECORD_TITLES if after.get(name) is not None]
    if not names:
        return ""
    rows, cells = [], []
    for name in names:
        interval = after.get("hard_negative_interval") if name == "hard_negative_top1" else None
        marks = [Mark(before[name], "before")] if before.get(name) is not None else []
        marks.append(Mark(after[name], "unseen", (interval[0], interval[1]) if interval else None))
        rows.append((RECORD_TITLES[name], marks))
        change = [in_points(differences[name]) if name in differences else "–"] if differences else []
        cells.append([percent(after[name]), percent(before.get(name)), *change])
    counts = f"{after['images']:,} images; {after.get('regions', 0):,} boxes in images that have several; "
    counts += f"{after.get('hard_negative_groups', 0):,} boxes with negatives."
    if differences:
        counts += f" Both were asked the same questions. {INTERVALS}"
    chart = charts.shares(rows, ["After", "Before", *(["Change, points"] if differences else [])], cells)
    return f"<h3>On the validation records</h3>{paragraph(counts)}{BEFORE_AFTER}{chart}"
