"""The page of a survey: one file with figures, warnings, and images with their boxes and texts."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fgclip_fast.data.causes import BAD
from fgclip_fast.inspection.findings import (
    BATCHES,
    LIMITS,
    Duplicates,
    Warning,
    duplicates,
    equal_texts,
    truncated,
    warnings,
)
from fgclip_fast.inspection.refused import refused
from fgclip_fast.inspection.samples import Reader, Shown, Triple
from fgclip_fast.inspection.survey import Survey
from fgclip_fast.report import charts
from fgclip_fast.report.explore import thumbnail
from fgclip_fast.report.html import caption, data_uri, escape, facts, paragraph, percent, section, table
from fgclip_fast.report.page import save

SHEET, TRIPLES, GROUPS, FREQUENT = 48, 50, 12, 25
"""Images of the contact sheet, regions with their negatives, groups of duplicates, and frequent texts to show."""
_KINDS = {"short": "short captions", "long": "long captions", "region": "region texts", "negative": "negatives"}


def write(survey: Survey, path: Path) -> list[Warning]:
    """Write the page; return the warnings that stand on it.

    Raises:
        OSError: the file cannot be written.
    """
    found, reader = duplicates(survey), Reader(survey)
    warned = warnings(survey, found)
    save(
        path,
        f"{path.resolve().parent.name}: data",
        [
            _head(survey),
            _warnings(warned),
            section("sheet", "Images and boxes", _sheet(reader.sheet(SHEET))),
            _triples(reader.triples(TRIPLES)),
            texts(survey),
            sizes(survey),
            _refused(survey),
            _left_out(survey, reader),
            _duplicates(survey, found, reader),
        ],
        script=None,
    )
    return warned


def figures(survey: Survey) -> dict[str, str]:
    """The main counts, in words."""
    part, found = survey.part, duplicates(survey)
    counts = [f"{sum(survey.split[a.shard] == name for a in part.addresses):,} {name}" for name in survey.splits]
    regions = int(part.regions.sum())
    before = sum(count for count, _ in refused(survey.shards).values())
    by_import = f", and {before:,} by the import" if before else ""
    return {
        "images": ", ".join(counts),
        "regions": f"{regions:,}, {regions / len(part.addresses):.1f} an image",
        "with negatives": f"{int((part.boxes[:, 3] > 0).sum()):,}",
        "left out": f"{sum(part.causes[cause] for cause in BAD):,}{by_import}",
        "duplicates": f"{found.inside:,} inside splits, {found.across:,} groups across",
    }


def _head(survey: Survey) -> str:
    settings = survey.settings
    model = f"Sizes are for {settings.image_size} pixels and patches of {settings.patch_size}."
    title = f"{len(survey.part.addresses):,} images of {len(survey.shards):,} shards"
    return (
        f'<header class="top"><p class="kicker">Data set</p><h1>{escape(title)}</h1>'
        f"{facts(figures(survey))}{paragraph(model, 'quiet')}</header>\n"
    )


def _warnings(warned: Sequence[Warning]) -> str:
    if not warned:
        return section("warnings", "Warnings", paragraph("None: no sign of a silent mistake was found."))
    items = "".join(f"<li><b>{escape(one.title)}.</b> {escape(one.detail)}</li>" for one in warned)
    return section("warnings", f"Warnings: {len(warned)}", f'<ul class="warnings">{items}</ul>')


def _sheet(shown: Sequence[Shown]) -> str:
    tiles = "".join(
        f"<li>{framed(one.encoded, one.name, [region.box for region in one.record.regions])}"
        f"<p>{caption(one.record.short[:160])}</p></li>"
        for one in shown
    )
    return f'<ul class="sheet">{tiles}</ul>'


def _triples(triples: Sequence[Triple]) -> str:
    if not triples:
        return ""
    cards = "".join(
        f'<li><article class="card"><div class="answer">'
        f"{framed(triple.shown.encoded, triple.shown.name, [triple.region.box])}"
        f'<ol class="ranks"><li class="truth">{caption(triple.region.short)}</li>'
        + "".join(f"<li>{caption(text)}</li>" for text in triple.region.negatives)
        + "</ol></div></article></li>"
        for triple in triples
    )
    rule = "The first text must fit the box; every other one must be false of it, and only just."
    return section("triples", "Regions and their negatives", paragraph(rule), f'<ul class="cards">{cards}</ul>')


def texts(survey: Survey) -> str:
    """The lengths of texts, and how often they are equal."""
    part = survey.part
    cut = truncated(survey)
    rows = [
        [
            *(_KINDS[kind], f"{total:,}", f"{np.median(part.lengths[kind]):.0f}", f"{part.lengths[kind].max()}"),
            *(str(LIMITS[kind]), f"{n:,} ({percent(n / total)})"),
        ]
        for kind, (n, total) in cut.items()
        if total
    ]
    lengths = "".join(
        charts.histogram(f"Tokens of {_KINDS[kind]}", n, [LIMITS[kind] * i // 11 for i in range(12)])
        for kind, n in part.lengths.items()
        if len(n)
    )
    equal = [
        (f"{batch:,} in a batch", percent(equal_texts(part.captions, batch)), percent(equal_texts(part.texts, batch)))
        for batch in BATCHES
    ]
    frequent = [(text, f"{times:,}") for text, times in part.texts.most_common(FREQUENT)]
    return section(
        "texts",
        "Texts",
        table(["", "texts", "median tokens", "longest", "limit", "cut"], rows, "Lengths of texts"),
        f'<div class="charts">{lengths}</div>',
        "<h3>Equal texts in a batch</h3>",
        paragraph("The share of texts that another one of the batch equals; each is a negative that is true."),
        table(["", "short captions", "captions and regions"], equal, "Equal texts in a batch"),
        "<h3>Most frequent texts</h3>",
        table(["text", "times"], frequent, "Most frequent texts"),
    )


def sizes(survey: Survey) -> str:
    """The sizes of images and boxes."""
    part, size = survey.part, survey.settings.image_size
    shortest, aspect = part.images.min(1), part.images[:, 0] / np.maximum(1, part.images[:, 1])
    parts = [
        charts.histogram("Shorter side of images, pixels", shortest, [0, 64, 128, size, 336, 512, 768, 1024, 2048]),
        charts.histogram("Width by height", aspect, [0, 0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2]),
        charts.histogram("Regions of an image", part.regions, [0, 1, 2, 3, 4, 5, 8, 12, 20]),
    ]
    if len(part.boxes):
        patches = np.sqrt(part.boxes[:, 0] * part.boxes[:, 1])
        parts.append(charts.histogram("Size of boxes, patches", patches, [0, 0.5, 1, 2, 3, 4, 6, 8, 12, 16]))
        parts.append(charts.histogram("Negatives of a region", part.boxes[:, 3], [0, 1, 2, 3, 5, 10, 11]))
    return section("sizes", "Images and regions in numbers", f'<div class="charts">{"".join(parts)}</div>')


def _refused(survey: Survey) -> str:
    """What the import refused, of which no shard holds the picture."""
    rows = [(cause, f"{n:,}", "; ".join(named)) for cause, (n, named) in refused(survey.shards).items()]
    title = "Refused by the import"
    return section("refused", title, table(["cause", "records", "the first of them"], rows, title)) if rows else ""


def _left_out(survey: Survey, reader: Reader) -> str:
    causes = survey.part.causes
    if not causes:
        return ""
    rows = [(cause, f"{n:,}") for cause, n in causes.most_common()]
    shown = "".join(
        f"<li>{framed(reader.image(address), reader.name(address), [])}<p>{escape(cause)}: "
        f"{escape(detail.removeprefix(f'{cause}: ')[:200])}</p></li>"
        for cause, found in survey.part.bad.items()
        for address, detail in found
    )
    sheet = f'<ul class="sheet">{shown}</ul>' if shown else ""
    title = "Left out, dropped and filled"
    return section("left-out", title, table(["cause", "times"], rows, title), sheet)


def _duplicates(survey: Survey, found: Duplicates, reader: Reader) -> str:
    if not found.groups:
        return ""
    rows = []
    for group in found.groups[:GROUPS]:
        addresses = [survey.part.addresses[i] for i in group[:6]]
        tiles = "".join(
            f"<li>{framed(reader.image(a), reader.name(a), [])}<p>{escape(reader.name(a))}</p></li>" for a in addresses
        )
        rows.append(f'<ul class="sheet">{tiles}</ul>')
    text = (
        f"{found.inside:,} images repeat another one of their split, and {found.across:,} groups lie in several "
        f"splits. {min(GROUPS, len(found.groups))} groups are shown, those across splits first."
    )
    return section("duplicates", "Equal and nearly equal images", paragraph(text), *rows)


def framed(encoded: bytes, name: str, boxes: Sequence[Sequence[float]]) -> str:
    """An image with boxes drawn over it; its name where it cannot be shown."""
    try:
        small, width, height = thumbnail(encoded)
    except Exception:  # of a broken file the decoder raises nearly anything
        return f'<div class="frame missing">{escape(name)}</div>'
    drawn = "".join(
        f'<rect class="{kind}" x="{x0 * width:.1f}" y="{y0 * height:.1f}" width="{(x1 - x0) * width:.1f}" '
        f'height="{(y1 - y0) * height:.1f}"/>'
        for x0, y0, x1, y1 in boxes
        for kind in ("under", "over")
    )
    return (
        f'<div class="frame"><img src="{data_uri(small)}" width="{width}" height="{height}" alt="{html.escape(name)}" '
        f'loading="lazy"><svg viewBox="0 0 {width} {height}" aria-hidden="true">{drawn}</svg></div>'
    )
