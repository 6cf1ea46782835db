"""Puts a page together: one file, no network, nothing in it runs but our own script."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fgclip_fast.report import accuracy, explore, gallery, sections, sight, untrained
from fgclip_fast.report.explore import Rule
from fgclip_fast.report.files import RunFiles, read
from fgclip_fast.report.html import details, escape, inline_json, paragraph, section, table
from fgclip_fast.report.sight import Sight

NAME = "report.html"


def write(run: Path) -> Path:
    """Writes ``report.html`` into a run's folder and returns its path.

    Raises:
        FileNotFoundError: the folder is not there, or no run.
        ValueError: its config or weights are not of this version.
    """
    files = read(run)
    before = untrained.figures(files)
    seen = sight.of_run(files)
    parameters = sum(p.numel() for p in seen.model.parameters()) if seen else None
    parts = [
        sections.head(files, before, parameters),
        accuracy.of_run(files, before),
        asking([(files.name, seen)], sight.another_set(files)) if seen else _no_pictures(files),
        sections.training(files),
        sections.speed(files, sight.tokens(files, seen.model) if seen else {}),
        answers(seen) if seen else "",
        sections.provenance(files),
    ]
    if seen:
        sight.write_samples(files, seen.explored)
    return save(run / NAME, f"{files.name}: report", parts)


def asking(runs: Sequence[tuple[str, Sight]], note: str = "") -> str:
    """The part of the page that answers phrases, for one run or for two side by side."""
    first = runs[0][1]
    budget = explore.BUDGET // len(runs)
    coded = [explore.embeddings(name, s.model, s.explored, s.texts, budget) for name, s in runs]
    how = "Choose words" if first.phrases.menus else "Choose a phrase of the validation set"
    any_word = " A menu at “any” stands for the mean of all its words." if first.phrases.menus else ""
    script = inline_json("explore-data", explore.payload(first.explored, first.phrases, coded))
    return section(
        "explore",
        "Ask it for something",
        paragraph(
            f"{how}: the {len(first.explored)} pictures stay bright where their patches fit best, and the boxes are "
            f"ranked anew. The pictures are spread evenly over the validation set, not chosen.{any_word}"
        ),
        paragraph(note, "note") if note else "",
        '<noscript><p class="note">This part needs JavaScript; it is in the file and loads nothing.</p></noscript>',
        '<form id="ask" class="menus"></form><p class="asked" id="asked"></p><div class="stage" id="stage"></div>',
        '<fieldset class="thumbs" id="thumbs"><legend>Pictures</legend></fieldset>',
        rules({name: s.rules() for name, s in runs}),
        _kept(coded),
        script,
    )


def rules(found: Mapping[str, Mapping[str, Rule]]) -> str:
    """Counts of pictures in which the hottest patch lies in the right box, a column for each run."""
    asked = next(iter(found.values()))
    if not asked:
        return ""
    rows = [
        (
            f"asked for {what}",
            *(f"{own[what].hits} of {own[what].total}" for own in found.values()),
            f"{rule.blind:.1f}",
        )
        for what, rule in asked.items()
    ]
    said = (
        "The rule: in each picture one box is asked for (the first; for a single word, one that alone in its picture "
        "has this word), and it counts if the centre of the patch with the highest cosine lies in that box."
    )
    names = list(found) if len(found) > 1 else ["in the right box"]
    title = "Where the brightest patch lies"
    return f"<h3>{title}</h3>{paragraph(said)}" + table(["", *names, "a blind guess"], rows, title)


def answers(seen: Sight) -> str:
    """Wrong and right answers, as many of each where there are."""
    wrong, right = gallery.answers(seen.views)
    mistakes, asked = gallery.wrong_share(seen.views)
    if not asked:
        return ""
    shown = [("Wrong", wrong), ("Right", right)]
    parts = [f"<h3>{name}</h3>{gallery.cards(found[: gallery.SHOWN], seen.scale)}" for name, found in shown if found]
    said = (
        f"{mistakes} of {asked} boxes in {len(seen.views)} pictures are answered wrongly. Wrong and right answers are "
        "shown in equal number, the first of each; bars are the model's probabilities, ✓ marks the right text."
    )
    return section("answers", "What it answered", paragraph(said), *parts)


def save(path: Path, title: str, parts: Sequence[str]) -> Path:
    """Writes the file; a policy in it forbids all scripts but ours, and all addresses."""
    style, script = asset("page.css"), asset("explore.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style></head>\n"
        f"<body><main>\n{''.join(parts)}</main>\n<script>{script}</script></body></html>\n"
    )
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


@cache
def asset(name: str) -> str:
    """A file beside this module."""
    return resources.files("fgclip_fast.report").joinpath(name).read_text(encoding="utf-8")


def _kept(coded: Sequence[Mapping[str, Any]]) -> str:
    cut = [c for c in coded if c["width"] < c["of"]]
    if not cut:
        return ""
    said = "; ".join(
        f"{c['name']}: {c['width']} of {c['of']} directions, {c['kept']:.2%} of the phrases' squared length"
        for c in cut
    )
    return details("What was left out to keep this file small", paragraph(said))


def _no_pictures(files: RunFiles) -> str:
    if files.weights is None:
        why = "This run has no checkpoint yet, so there is no model to show pictures to."
    elif not files.config.data.val:
        why = "This run has no validation pictures to show. Name shards by --data.val."
    else:
        why = f"The validation pictures could not be read: {files.config.data.val}"
    return section("explore", "Pictures", paragraph(why, "note"))
