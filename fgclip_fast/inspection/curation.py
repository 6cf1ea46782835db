"""The page of a curation: what became of the images, what it took and cost, and records to agree or disagree with."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fgclip_fast.config.yaml_file import validated
from fgclip_fast.curate.folder import OutputFolder, place_of
from fgclip_fast.curate.lexicon.truth import changed_kinds
from fgclip_fast.curate.models.chat_model import Chat
from fgclip_fast.curate.places.place import Place
from fgclip_fast.data import remote
from fgclip_fast.data.shards import expand
from fgclip_fast.inspection import page
from fgclip_fast.inspection.samples import Reader, Shown
from fgclip_fast.inspection.survey import Survey, survey
from fgclip_fast.report.html import caption, duration, escape, facts, paragraph, percent, section, table
from fgclip_fast.report.page import save

SHEETS = 50
"""Records to agree or disagree with."""
_SAMPLED = 2000  # records whose texts are measured
_COPIED = 20  # shards of an object storage that they are taken from, since each is copied whole
_MILLION = 1_000_000
_FUNNEL = ("images", "captions", "phrases", "boxes", "groups")
_LEVELS = {1: "one attribute (hard)", 2: "two (medium)", 3: "three (easy)"}


class StageFigures(NamedTuple):
    """The figures of one stage."""

    place: Place
    name: str
    counts: Counter[str]
    seconds: float
    chat: Chat | None


def stages_in(folder: Path | str | Place) -> list[StageFigures]:
    """The stages whose folders lie in a folder, in the order of their names.

    Raises:
        ValueError: there is none.
    """
    place = place_of(folder)
    numbered = sorted(
        (file.split("/")[:2] for file in place.glob("*/_*/settings.json")), key=lambda parts: _order(parts[0])
    )
    found = []
    for name, state in numbered:
        output = OutputFolder(place.below(name), state.removeprefix("_"))
        settings = output.about()
        chat = settings.get("chat")
        counts, seconds = Counter[str](), 0.0
        for _, outcome in output.outcomes():
            counts.update(outcome["counts"])
            seconds += outcome["seconds"]
        asked = validated(Chat, chat) if chat else None
        found.append(StageFigures(output.place, output.stage, counts, seconds, asked))
    if not found:
        raise ValueError(f"curate report: {folder} must hold the folders of stages, as `fgclip curate run` writes them")
    return found


def _order(name: str) -> tuple[int, str]:
    number = name.partition("-")[0]
    return (int(number) if number.isdigit() else 0), name


def write(folder: Path | str | Place, path: Path, *, workers: int | None = None, seed: int = 0) -> None:
    """Write the page.

    Args:
        folder: holds the folders of stages; a path, or a URL.
        path: the page.
        workers: processes that read records; None: one for each core.
        seed: of the choice of records.

    Raises:
        ValueError: the folder holds no stage, or no usable record.
        OSError: the file cannot be written.
    """
    stages = stages_in(folder)
    shards = expand(str(stages[-1].place))
    if len(remote.among(shards)) > _COPIED:
        shards = sorted(random.Random(seed).sample(shards, _COPIED))
    found = survey(shards, limit=max(1, -(-_SAMPLED // len(shards))), workers=workers)
    reader = Reader(found)
    shown = [
        reader.read(address) for address in random.Random(seed).sample(found.part.addresses, len(found.part.addresses))
    ]
    sheets = [one for one in shown[: 2 * SHEETS] if one is not None][:SHEETS]
    name = place_of(folder).name
    parts = [
        _head(name, stages, found),
        section("funnel", "From images to groups", _funnel(stages), _left_out(stages)),
        section("speed", "Throughput and cost", _speed(stages), paragraph(_SPEED, "quiet")),
        _negatives([one for one in shown if one is not None]),
        page.texts(found),
        page.sizes(found),
        _agreement(sheets),
    ]
    save(path, f"{name}: curation", parts, script=None)


def _head(name: str, stages: Sequence[StageFigures], found: Survey) -> str:
    last = stages[-1].counts
    left = last["records"] - last["records dropped"] - last["records failed"]
    text = f"Texts and boxes are measured on {len(found.part.addresses):,} records of the last stage."
    figures = {name: f"{n:,}" for name, n in funnel(stages).items()}
    return (
        f'<header class="top"><p class="kicker">Curation</p><h1>{escape(name)}: {left:,} records</h1>'
        f"{facts(figures)}{paragraph(text, 'quiet')}</header>\n"
    )


def funnel(stages: Sequence[StageFigures]) -> dict[str, int]:
    """What is left at each step: images, captions, phrases, boxes, groups of a region and its negatives."""
    found: dict[str, int] = {"images": stages[0].counts["records"]}
    for stage in stages:
        counts = stage.counts
        kept = {
            "captions": counts["captions"] + counts["records that kept their caption"],
            "phrases": counts["phrases"],
            "boxes": counts["boxes"],
            "groups": counts["groups"] or counts["regions with new negatives"] + counts["regions that kept their own"],
        }
        if stage.name == "filter":
            kept["boxes"] = counts["regions"] - counts["regions dropped"]
        found |= {name: n for name, n in kept.items() if n}
    return {name: found[name] for name in _FUNNEL if name in found}


def _funnel(stages: Sequence[StageFigures]) -> str:
    found = funnel(stages)
    images = found["images"] or 1
    return table(
        ["", "number", "per image"], [(name, f"{n:,}", f"{n / images:.2f}") for name, n in found.items()], "Funnel"
    )


def _left_out(stages: Sequence[StageFigures]) -> str:
    """What each stage left out, with the cause."""
    words = (" dropped: ", " failed: ", "bad record: ", " without: ")
    rows = [
        (f"{stage.place.name}: {name}", f"{n:,}", percent(n / max(1, stage.counts["records"])))
        for stage in stages
        for name, n in sorted(stage.counts.items(), key=lambda pair: -pair[1])
        if n and any(word in name for word in words)
    ]
    if not rows:
        return paragraph("Nothing was left out.")
    return "<h3>Left out</h3>" + table(["stage and cause", "number", "per record"], rows, "Left out")


_SPEED = "The time is that of finished shards, from the end of the one before; work that a kill has lost is not in it."


def _speed(stages: Sequence[StageFigures]) -> str:
    rows = []
    for stage in stages:
        records, counts = max(1, stage.counts["records"]), stage.counts
        cost = stage.chat.cost(counts) if stage.chat is not None else 0.0
        rows.append(
            (
                stage.place.name,
                f"{counts['records']:,}",
                duration(stage.seconds),
                f"{60 * records / stage.seconds:,.0f}" if stage.seconds else "–",
                duration(_MILLION * stage.seconds / records),
                f"{counts['requests']:,}" if counts["requests"] else "–",
                f"{counts['tokens in'] / records:,.0f} / {counts['tokens out'] / records:,.0f}"
                if counts["tokens in"]
                else "–",
                f"{cost:,.2f} $" if cost else "–",
                f"{_MILLION * cost / records:,.0f} $" if cost else "–",
            )
        )
    head = [
        "stage", "records", "time", "a minute", "time of a million", "requests", "tokens in / out of a record", "cost",
        "of a million",
    ]  # fmt: skip
    return table(head, rows, "Throughput and cost")


def _negatives(shown: Sequence[Shown]) -> str:
    """How many negatives change how many attributes, and of which kind, by the lexicon."""
    levels: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for region in (region for one in shown for region in one.record.regions):
        for negative in region.negatives:
            changed = changed_kinds(region.short, negative)
            if not changed:
                levels["other wording"] += 1
                continue
            levels[_LEVELS.get(len(changed), "more")] += 1
            kinds.update(set(changed))
    total = levels.total()
    if not total:
        return ""
    rows = [(name, f"{n:,}", percent(n / total)) for name, n in levels.most_common()]
    of_kinds = [(name, f"{n:,}", percent(n / total)) for name, n in kinds.most_common()]
    return section(
        "negatives",
        f"Negatives: {total:,}",
        table(["changes", "negatives", "share"], rows, "Negatives by level"),
        "<h3>Changed attributes</h3>",
        table(["kind", "negatives", "share"], of_kinds, "Negatives by attribute"),
    )


def _agreement(shown: Sequence[Shown]) -> str:
    cards = []
    for one in shown:
        regions = "".join(
            f'<li class="truth">{caption(region.short)}</li>'
            + "".join(f"<li>{caption(negative)}</li>" for negative in region.negatives)
            for region in one.record.regions
        )
        picture = page.framed(one.encoded, one.name, [region.box for region in one.record.regions])
        cards.append(
            f'<li><article class="card"><div class="answer">{picture}<ol class="ranks">{regions}</ol></div>'
            f"<p>{caption(one.record.short)}</p><p>{caption(one.record.long)}</p></article></li>"
        )
    rule = (
        "Random records. The captions must fit the image; each marked text must fit a box of the image, and those "
        "that follow it must be false of it."
    )
    title = f"Agree or disagree: {len(cards)} records"
    return section("agreement", title, paragraph(rule), f'<ul class="cards">{"".join(cards)}</ul>')
