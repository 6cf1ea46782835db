"""Validate the JSON of one record in FineHARD's format: it becomes a :class:`Record`, or is refused with a cause.

A record needs one text; everything else may be missing. A defect of a region drops that region, a defect of the record
refuses the record; both are counted under the name of their cause. A LAION-style sample (``txt``, or a JSON with only a
caption) is a record too.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fgclip_fast.data.causes import (
    BOTH_FROM_REGIONS,
    CAPTION_FROM_TEXT,
    EXPRESSION_FILLED,
    HUGE_RECORD,
    LONG_FROM_SHORT,
    NO_EXPRESSION,
    NO_IMAGE,
    NO_TEXT,
    NOT_JSON,
    NOT_UTF8,
    SEVERAL_CAPTIONS,
    SHORT_FROM_LONG,
    WRONG_NEGATIVE,
    WRONG_REGION,
    WRONG_TYPE,
    BadRecord,
    Defect,
)
from fgclip_fast.data.negatives import distinct
from fgclip_fast.inputs import boxes

IMAGE_NAMES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "avif", "jp2")
"""Names of a sample's part that is taken as its image; also as the end of a longer name, ``image.jpg``."""
MAX_JSON = 2**24
"""Bytes of a record's JSON at most; ten thousand regions take two million."""
_TEXT_NAMES = ("txt", "text", "caption")
_FIRST = ("image", "img", "picture", "photo", "caption", "text", "record", "meta", "metadata", "annotation")


class Region(NamedTuple):
    """A box (xyxy, fractions) with its texts; ``negatives`` contradict ``short``."""

    box: boxes.Box
    short: str
    long: str
    negatives: tuple[str, ...] = ()


class Record(NamedTuple):
    """The texts of one image; if the source has one caption, it fills the other."""

    short: str
    long: str
    regions: tuple[Region, ...] = ()
    defects: tuple[Defect, ...] = ()
    captions: tuple[str, ...] = ()
    """All captions where the source has several; ``short`` or ``long`` is the first of them, or both are."""


def parse(raw: bytes | Mapping[str, Any], text: bytes | None = None) -> Record:
    """Validate one record.

    Args:
        raw: the JSON of a record, as text or parsed.
        text: short captions from a file beside it, one a line, the ``txt`` of a LAION-style shard.

    Raises:
        BadRecord: the record cannot be used.
    """
    fields = parse_json(raw) if isinstance(raw, bytes) else raw
    if not isinstance(fields, Mapping):
        raise BadRecord(WRONG_TYPE, f"a record must be an object, got {_named(fields)}")
    defects: list[Defect] = []
    regions, expressions = _regions(fields.get("bbox_info"), defects)
    beside = _decoded(text) if text else ""
    longs = _captions(fields, beside, defects)
    shorts = _short_captions(fields, longs, beside)
    several = next((found for found in (longs, shorts) if len(found) > 1), ())
    defects += [Defect(SEVERAL_CAPTIONS)] if several else []
    short, long = (found[0] if found else "" for found in (shorts, longs))
    filled = _filled(short, long, expressions, defects)
    return Record(*filled, tuple(regions), tuple(defects), several)


def parse_sample(parts: Mapping[str, bytes]) -> tuple[bytes, Record]:
    """Find the image file and the record in a shard's sample: an image beside a ``json``, a ``txt`` or both.

    Parts may have longer names, such as ``image.jpg``, ``caption.txt``, ``meta.json``.

    Raises:
        BadRecord: no image, no text, or as :func:`parse`.
    """
    names = (part_name(parts, kinds) for kinds in (IMAGE_NAMES, ("json",), _TEXT_NAMES))
    image, fields, text = (None if name is None else parts[name] for name in names)
    if image is None:
        raise BadRecord(NO_IMAGE, f"the sample holds {', '.join(parts) or 'nothing'}")
    if fields is None and text is None:
        raise BadRecord(NO_TEXT, f"the sample holds {', '.join(parts)}")
    return image, parse(b"{}" if fields is None else fields, text)


def part_name(parts: Mapping[str, bytes], kinds: Sequence[str]) -> str | None:
    """Name the part of some kinds: the first that has a kind's plain name, else a usual name before it, else any.

    Args:
        parts: of a sample, by their names, such as ``json`` or ``meta.json``.
        kinds: ends of names, such as ``json``.
    """
    plain = next((name for name in parts if name in kinds), None)
    if plain is not None:
        return plain
    longer = [name for name in parts if name.rpartition(".")[2] in kinds]
    return min(longer, key=lambda name: _rank(name.rpartition(".")[0]), default=None)


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def parse_json(raw: bytes) -> Any:
    """Parse a JSON text.

    Raises:
        BadRecord: it is not UTF-8 or not JSON, or has more than 16 MiB.
    """
    if len(raw) > MAX_JSON:
        raise BadRecord(HUGE_RECORD, f"must have at most {MAX_JSON} bytes, got {len(raw)}")
    try:
        return json.loads(_decoded(raw))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadRecord):
            raise
        raise BadRecord(NOT_JSON, str(error)) from None


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadRecord(NOT_UTF8, f"byte {error.start}") from None


def _captions(fields: Mapping[str, Any], beside: str, defects: list[Defect]) -> tuple[str, ...]:
    """The long captions: a text, or a list of some; what is of another type counts as missing beside a text file."""
    for name in ("caption", "long_caption", "captions"):
        try:
            found = _texts(fields, name)
        except BadRecord as bad:
            if bad.cause != WRONG_TYPE or not beside:
                raise
            defects.append(Defect(CAPTION_FROM_TEXT))
            continue
        if found:
            return found
    return ()


def _short_captions(fields: Mapping[str, Any], longs: tuple[str, ...], beside: str) -> tuple[str, ...]:
    """The short captions: of the record, else of the text file beside it, else its field ``text``."""
    own = _texts(fields, "short_caption")
    if not own and beside:
        return captions_of_file(beside, longs[0] if longs else "")
    if not own and isinstance(fields.get("text"), str | list):
        return _texts(fields, "text")
    listed = fields.get("captions")
    if own and isinstance(listed, list) and listed[:1] == [own[0]]:  # as an import writes several
        return _texts(fields, "captions")
    return own


def captions_of_file(text: str, caption: object) -> tuple[str, ...]:
    """The captions of a text file beside an image, one a line; a text that ``caption`` repeats is one, as it is."""
    text = text.strip()
    return _distinct([text] if text == caption else map(str.strip, text.splitlines()))


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A text, or a list of some."""
    value = fields.get(name)
    return _distinct(_text({name: one}, name) for one in (value if isinstance(value, list) else [value]))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, texts)))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRecord(WRONG_TYPE, f"{name} must be a string, got {_named(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, written as \ud83d
        raise BadRecord(NOT_UTF8, f"{name}, character {error.start}") from None
    return value.strip()


def _filled(short: str, long: str, expressions: list[str], defects: list[Defect]) -> tuple[str, str]:
    if short and long:
        return short, long
    if short or long:
        defects.append(Defect(LONG_FROM_SHORT if short else SHORT_FROM_LONG))
        return short or long, long or short
    if not expressions:
        raise BadRecord(NO_TEXT, "neither captions nor region texts")
    defects.append(Defect(BOTH_FROM_REGIONS))
    joined = ", ".join(expressions)
    return joined, joined


def _regions(entries: Any, defects: list[Defect]) -> tuple[list[Region], list[str]]:
    """Return the usable regions, and the texts of all regions, those with bad boxes included."""
    if entries is not None and not isinstance(entries, list):
        raise BadRecord(WRONG_TYPE, f"bbox_info must be a list, got {_named(entries)}")
    regions, expressions = [], []
    for i, entry in enumerate(entries or []):
        try:
            texts = _expressions(entry)
            expressions.append(texts[0] or texts[1])
            box = boxes.checked(boxes.numbers(entry.get("bbox")))
        except _Drop as drop:
            defects.append(Defect(drop.args[0], f"region {i}: {drop.args[1]}", i))
            continue
        except boxes.BadBox as bad:
            given = _named(entry.get("bbox"))
            defects.append(Defect(bad.reason, f"region {i}: bbox {bad} (xyxy, fractions), got {given}", i))
            continue
        regions.append(_region(box, *texts, entry, i, defects))
    return regions, expressions


def _region(box: boxes.Box, short: str, long: str, entry: Mapping, i: int, defects: list[Defect]) -> Region:
    if not (short and long):
        defects.append(Defect(EXPRESSION_FILLED, f"region {i}", i))
    if not short:
        return Region(box, long, long)  # negatives contradict the short expression, which is missing
    negatives, dropped = distinct(short, _negatives(entry, i, defects))
    defects += [Defect(cause, f"region {i}: {detail}", i) for cause, detail, _ in dropped]
    return Region(box, short, long or short, negatives)


class _Drop(Exception):
    """Raised with (cause, detail) to drop a region."""


def _expressions(entry: Any) -> tuple[str, str]:
    if not isinstance(entry, Mapping):
        raise _Drop(WRONG_REGION, f"must be an object, got {_named(entry)}")
    try:
        short, long = _text(entry, "short_expr"), _text(entry, "long_expr")
    except BadRecord as bad:
        raise _Drop(WRONG_REGION, str(bad)) from None
    if not (short or long):
        raise _Drop(NO_EXPRESSION, "neither short_expr nor long_expr")
    return short, long


def _negatives(entry: Mapping[str, Any], i: int, defects: list[Defect]) -> tuple[str, ...]:
    """Values of ``short_expr_negs`` (a dict or a list) in file order; none if ``flag_short_neg`` is not 1."""
    given = entry.get("short_expr_negs")
    if not given or entry.get("flag_short_neg", 1) not in (1, "1"):
        return ()
    if not isinstance(given, list | Mapping):
        defects.append(Defect(WRONG_NEGATIVE, f"region {i}: short_expr_negs is {_named(given)}", i))
        return ()
    kept = []
    for name, value in given.items() if isinstance(given, Mapping) else enumerate(given):
        try:
            kept.append(_text({"": value}, ""))
            if not kept[-1]:
                raise BadRecord(NO_TEXT)
        except BadRecord:
            defects.append(Defect(WRONG_NEGATIVE, f"region {i}, negative {name}: {value!r:.80}", i))
    return tuple(filter(None, kept))


def _named(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.80}"
