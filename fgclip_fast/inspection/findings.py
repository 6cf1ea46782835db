"""Figures and warnings of a survey."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from fgclip_fast.data.causes import BAD
from fgclip_fast.data.duplicates import groups
from fgclip_fast.inputs import boxes
from fgclip_fast.inspection.survey import Survey
from fgclip_fast.inspection.texts import SIGNS
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH

LIMITS = {"short": SHORT_LENGTH, "long": LONG_LENGTH, "region": SHORT_LENGTH, "negative": SHORT_LENGTH}
"""Tokens of each kind of text at most; longer ones are cut."""
BATCHES = (64, 512, 4096)
"""Global batch sizes for which equal texts are expected."""
_WHOLE = 0.95  # share of an image from which a box is called all of it


class Warning(NamedTuple):
    """A sign that training would go wrong without an error."""

    title: str
    detail: str
    """Counts, an example, and the way out."""


class Duplicates(NamedTuple):
    """Images that are the same file, or the same picture resized or saved again."""

    inside: int
    """Images beyond the first of their group, within their split."""
    across: int
    """Groups with images in several splits."""
    groups: list[list[int]]
    """Of all groups with several images: positions among the usable records; those across splits first."""


def truncated(survey: Survey) -> dict[str, tuple[int, int]]:
    """Of each kind of text: the number that is cut to the model's length, and of all."""
    return {kind: (int((n > LIMITS[kind]).sum()), len(n)) for kind, n in survey.part.lengths.items()}


def equal_texts(texts: Counter[str], batch: int) -> float:
    """Expected share of the texts of a random batch that another text of it equals: each is a false negative."""
    count = np.array(list(texts.values()), float)
    if not len(count):
        return 0.0
    share = count / count.sum()
    return float((share * (1 - (1 - share) ** (batch - 1))).sum())


def duplicates(survey: Survey) -> Duplicates:
    """Find equal and nearly equal images inside splits and across them."""
    part = survey.part
    first = groups(part.digests, part.hashes)
    members: dict[int, list[int]] = {}
    for i, group in enumerate(first.tolist()):
        members.setdefault(group, []).append(i)
    several = [found for found in members.values() if len(found) > 1]
    splits = [{survey.split[part.addresses[i].shard] for i in found} for found in several]
    inside = sum(len(found) - len(own) for found, own in zip(several, splits, strict=True))
    order = sorted(range(len(several)), key=lambda i: (-len(splits[i]), several[i]))
    return Duplicates(inside, sum(len(own) > 1 for own in splits), [several[i] for i in order])


def warnings(survey: Survey, found: Duplicates) -> list[Warning]:
    """All that looks wrong, the gravest first."""
    return [*_box_warnings(survey), *_text_warnings(survey), *_image_warnings(survey, found)]


def _box_warnings(survey: Survey) -> list[Warning]:
    part, signs = survey.part, survey.part.signs
    written, made = signs[SIGNS.boxes], []
    dropped = sum(part.causes[reason] for reason in boxes.REASONS)
    # Corner and size, read as corners, are inverted in half of the boxes or more.
    if written and signs[SIGNS.sizes] > 0.05 * written:
        made.append(
            Warning(
                "Boxes may be corner and size",
                f"{_of(signs[SIGNS.sizes], written, 'boxes')} are inverted as x1, y1, x2, y2 but fit as x, y, width, "
                f"height, such as {part.examples[SIGNS.sizes]}; import with --boxes xywh-fraction",
            )
        )
    for sign, unit in ((SIGNS.thousandths, "pixels or thousandths"), (SIGNS.pixels, "pixels")):
        if written and signs[sign] > 0.01 * written:
            text = f"{_of(signs[sign], written, 'boxes')} reach beyond 2; boxes must be fractions of the image"
            made.append(Warning(f"Boxes may be in {unit}", f"{text}; import the annotations with --boxes"))
            break
    if dropped > 0.05 * max(1, dropped + len(part.boxes)):
        causes = ", ".join(f"{part.causes[reason]} x {reason}" for reason in boxes.REASONS if part.causes[reason])
        made.append(
            Warning("Many regions are dropped", f"{_of(dropped, dropped + len(part.boxes), 'regions')}: {causes}")
        )
    whole = int((part.boxes[:, 2] > _WHOLE).sum())
    if whole > 0.2 * max(1, len(part.boxes)):
        text = f"{_of(whole, len(part.boxes), 'boxes')} cover {_WHOLE:.0%} of their image or more"
        made.append(Warning("Boxes are the whole image", f"{text}; such regions teach nothing about places"))
    tiny = int((part.boxes[:, :2].min(1) < 0.5).sum()) if len(part.boxes) else 0
    if tiny > 0.1 * max(1, len(part.boxes)):
        size = survey.settings.image_size
        text = f"{_of(tiny, len(part.boxes), 'boxes')} are narrower than half a patch at {size} pixels"
        made.append(Warning("Boxes are tiny", f"{text}; a larger image size would show their content"))
    return made


def _text_warnings(survey: Survey) -> list[Warning]:
    part, made = survey.part, []
    ways_out = {
        SIGNS.mojibake: "UTF-8 was read as another encoding; mend the source with ftfy",
        SIGNS.tokens: "remove them: CLIP's own end mark ends a text early, others are read as words",
        SIGNS.equal: "they are left out; nothing could tell them apart",
        SIGNS.contained: "the negative may be true as well",
    }
    for sign, way_out in ways_out.items():
        if part.signs[sign]:
            n = part.signs[sign]
            made.append(
                Warning(sign[0].upper() + sign[1:], f"{n:,} x, such as “{part.examples[sign][:120]}”; {way_out}")
            )
    images = len(part.addresses)
    text, times = part.captions.most_common(1)[0]
    if images >= 10 and times > 0.2 * images:
        made.append(
            Warning(
                "One caption for many images",
                f"{_of(times, images, 'images')} have “{text[:120]}”: equal captions are false negatives of each "
                "other; pass --loss.mask-equal-texts, or write captions that differ",
            )
        )
    for kind, (cut, total) in truncated(survey).items():
        if total and cut > 0.05 * total:
            name = {"short": "short captions", "long": "long captions"}.get(kind, f"{kind} texts")
            made.append(
                Warning(f"Many {name} are cut", f"{_of(cut, total, name)} have more than {LIMITS[kind]} tokens")
            )
    return made


def _image_warnings(survey: Survey, found: Duplicates) -> list[Warning]:
    part, made = survey.part, []
    images = len(part.addresses)
    bad = sum(part.causes[cause] for cause in BAD)
    if bad > 0.01 * (images + bad):
        causes = ", ".join(f"{part.causes[cause]} x {cause}" for cause in BAD if part.causes[cause])
        made.append(Warning("Records are left out", f"{_of(bad, images + bad, 'records')}: {causes}"))
    if found.across:
        text = f"{found.across:,} groups of equal or nearly equal images lie in several splits"
        made.append(Warning("Validation images in training", f"{text}; import with --val, which keeps them together"))
    if part.signs[SIGNS.grey]:
        text = f"{_of(part.signs[SIGNS.grey], images, 'images')} are flat grey in their lower sixth"
        made.append(Warning("Images may be half loaded", f"{text}, as a truncated JPEG is"))
    if part.signs[SIGNS.small] > 0.2 * images:
        size = survey.settings.image_size
        text = f"{_of(part.signs[SIGNS.small], images, 'images')} have a side below the model's {size} pixels"
        made.append(Warning("Images are small", text))
    return made


def _of(n: int, whole: int, things: str) -> str:
    return f"{n:,} of {whole:,} {things} ({n / max(1, whole):.0%})"
