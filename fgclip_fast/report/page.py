"""Assembles the page of one run: one file that loads nothing and runs no script but its own."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from fgclip_fast.evaluation.views import view
from fgclip_fast.files.whole_file import write_whole
from fgclip_fast.report import explore, gallery, model_views, sections, untrained
from fgclip_fast.report.accuracy import accuracy_section, kept_section
from fgclip_fast.report.explore import PointingGame
from fgclip_fast.report.files import RunFiles, read
from fgclip_fast.report.html import details, escape, inline_json, paragraph, section, table
from fgclip_fast.report.model_views import ModelViews

FILE = "report.html"


def write(run: Path, device: torch.device | str) -> Path:
    """Write ``report.html``; see :func:`fgclip_fast.report.write`."""
    files = read(run)
    before = untrained.figures(files, device)
    views = model_views.of_run(files, device)
    parameters = sum(p.numel() for p in views.model.parameters()) if views else None
    note = model_views.changed_validation_set_note(files) if views else ""
    differences = untrained.differences(files, device, views.model) if views else {}
    parts = [
        sections.head(files, before, parameters),
        accuracy_section(files, before, differences),
        _changed(files, views, device) if views else "",
        kept_section(files),
        explore_section([(files.name, views)], note) if views else _no_images(files),
        sections.training(files, before),
        sections.speed(files, model_views.count_tokens(files, views.model) if views else {}),
        _answers(views) if views else "",
        sections.reproduction(files),
    ]
    if views:
        model_views.write_samples(files, views.explored)
    return save(run / FILE, f"{files.name}: report", parts)


def explore_section(runs: Sequence[tuple[str, ModelViews]], note: str = "") -> str:
    """The section in which a reader chooses a phrase and sees where it fits.

    Args:
        runs: names and models of one run, or of two that are shown side by side.
        note: a remark on the validation set; may be empty.
    """
    first = runs[0][1]
    budget = explore.BUDGET // len(runs)
    coded = [explore.embeddings(name, v.model, v.explored, v.texts, budget) for name, v in runs]
    how = "Choose words" if first.phrases.menus else "Choose a phrase from the validation set"
    any_word = " A menu set to “any” stands for the mean of all its words." if first.phrases.menus else ""
    return section(
        "explore",
        "Ask it for something",
        paragraph(
            f"{how}: the {len(first.explored)} images stay bright where their patches fit best, and the boxes are "
            f"ranked again. The images are spread evenly over the validation set, not chosen.{any_word}"
        ),
        paragraph(note, "note") if note else "",
        '<noscript><p class="note">This part needs JavaScript. The script is in this file and loads nothing.</p>'
        "</noscript>",
        '<form id="ask" class="menus"></form><p class="asked" id="asked"></p><div class="stage" id="stage"></div>',
        '<fieldset class="thumbs" id="thumbs"><legend>Images</legend></fieldset>',
        _pointing_games({name: v.pointing_games() for name, v in runs}),
        _kept(coded),
        inline_json("explore-data", explore.payload(first.explored, first.phrases, coded)),
    )


def save(path: Path, title: str, parts: Sequence[str], script: str | None = "explore.js") -> Path:
    """Write a page with a content security policy that forbids every address, and every script but one beside us."""
    style, code = _asset("page.css"), _asset(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    element = f"<script>{code}</script>" if script else ""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style></head>\n"
        f"<body><main>\n{''.join(parts)}</main>\n{element}</body></html>\n"
    )
    write_whole(path, page)
    return path


def _pointing_games(games: Mapping[str, Mapping[str, PointingGame]]) -> str:
    """A table of pointing games, with a row for each thing asked for and a column for each run."""
    asked = next(iter(games.values()))
    if not asked:
        return ""
    rows = [
        (
            f"asked for {what}",
            *(f"{own[what].hits} of {own[what].total}" for own in games.values()),
            f"{game.blind:.1f}",
        )
        for what, game in asked.items()
    ]
    rule = (
        "In each image, the model is asked for one box: the first one or, for a single word, one that is the only box "
        "of its image with this word. The image counts if the centre of the patch with the highest cosine lies in "
        "that box."
    )
    names = list(games) if len(games) > 1 else ["in the right box"]
    title = "Where the brightest patch lies"
    return f"<h3>{title}</h3>{paragraph(rule)}" + table(["", *names, "a blind guess"], rows, title)


def _answers(views: ModelViews) -> str:
    """Cards of the first wrong and of the first right answers."""
    wrong, right = gallery.wrong_and_right(views.views)
    mistakes, asked = gallery.count_wrong(views.views)
    if not asked:
        return ""
    shown = [("Wrong", wrong), ("Right", right)]
    parts = [f"<h3>{name}</h3>{gallery.cards(found[: gallery.SHOWN], views.scale)}" for name, found in shown if found]
    text = (
        f"{mistakes} of {asked} boxes in {len(views.views)} images are answered wrongly. Up to {gallery.SHOWN} answers "
        "of each kind are shown, the first ones. Bars are the model's probabilities; ✓ marks the right text."
    )
    return section("answers", "What it answered", paragraph(text), *parts)


def _changed(files: RunFiles, after: ModelViews, device: torch.device | str) -> str:
    """Cards of boxes that training has answered otherwise, before and after side by side."""
    start = untrained.model(files)
    if start is None:
        return ""
    before = view(start.to(device), [own.image for own in after.views])
    lost, gained = gallery.disagreements(before, after.views)
    if not lost and not gained:
        return ""
    scales = start.logit_scale_hardneg.exp().item(), after.scale
    parts = [
        f"<h3>{title}</h3>{gallery.pairs(found[: gallery.CHANGED], ('Before training', 'After training'), scales)}"
        for title, found in (("Right, now wrong", lost), ("Wrong, now right", gained))
        if found
    ]
    text = (
        f"About the boxes with negatives in {len(before)} images, training has turned {len(gained)} wrong answers into "
        f"right ones, and {len(lost)} right into wrong. The first of each:"
    )
    return section("changed", "What training changed", paragraph(text), *parts)


@cache
def _asset(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files("fgclip_fast.report").joinpath(name).read_text(encoding="utf-8")


def _kept(coded: Sequence[Mapping[str, Any]]) -> str:
    """A note on runs whose embeddings were reduced to fewer directions."""
    reduced = [c for c in coded if c["width"] < c["of"]]
    if not reduced:
        return ""
    text = "; ".join(
        f"{c['name']}: {c['width']} of {c['of']} directions, {c['kept']:.2%} of the phrases' squared length"
        for c in reduced
    )
    return details("Parts of the embeddings kept in this file", paragraph(f"{text}."))


def _no_images(files: RunFiles) -> str:
    if files.weights is None:
        why = "This run has no checkpoint yet, so there is no model to show images to."
    elif not files.config.data.val:
        why = "This run has no validation images. To give it some, pass --data.val SHARDS."
    else:
        why = f"The validation images could not be read: {files.config.data.val}"
    return section("explore", "Images", paragraph(why, "note"))
