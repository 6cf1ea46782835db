"""The defects of a sample, under the names that logs and counts use."""

from typing import NamedTuple

from fgclip_fast.inputs import boxes

# The whole record is bad, and another sample takes its place.
NO_IMAGE = "no image"
NO_TEXT = "no text"
NOT_UTF8 = "invalid UTF-8"
NOT_JSON = "broken JSON"
NOT_XML = "broken XML"
WRONG_TYPE = "wrong type"
HUGE_RECORD = "record too large"
UNREADABLE = "unreadable sample"
NOT_AN_IMAGE = "not an image"
TRUNCATED_IMAGE = "truncated image"
CORRUPT_IMAGE = "corrupt image"
HUGE_IMAGE = "image too large"
UNKNOWN_RANGE = "pixels of unknown range"
OTHER_SIZE = "annotated size of another image"
BAD_IMAGE = (NOT_AN_IMAGE, TRUNCATED_IMAGE, CORRUPT_IMAGE, HUGE_IMAGE, UNKNOWN_RANGE)
BAD = (NO_IMAGE, NO_TEXT, NOT_UTF8, NOT_JSON, NOT_XML, WRONG_TYPE, HUGE_RECORD, UNREADABLE, OTHER_SIZE, *BAD_IMAGE)
# One region, or one of its negatives, is dropped; a bad box has a reason of its own.
WRONG_REGION = "region of a wrong type"
NO_EXPRESSION = "region without text"
WRONG_NEGATIVE = "negative of a wrong type"
EQUAL_NEGATIVE = "negative equal to its positive"
REPEATED_NEGATIVE = "repeated negative"
DROPPED = (*boxes.REASONS, WRONG_REGION, NO_EXPRESSION, WRONG_NEGATIVE, EQUAL_NEGATIVE, REPEATED_NEGATIVE)
# A missing text is replaced by another of the same image.
SHORT_FROM_LONG = "short caption filled by the long one"
LONG_FROM_SHORT = "long caption filled by the short one"
BOTH_FROM_REGIONS = "captions filled by region texts"
EXPRESSION_FILLED = "region expression filled by the other"
CAPTION_FROM_TEXT = "caption of a wrong type replaced by the text file"
SEVERAL_CAPTIONS = "several captions, one taken at a visit"
FILLED = (
    SHORT_FROM_LONG,
    LONG_FROM_SHORT,
    BOTH_FROM_REGIONS,
    EXPRESSION_FILLED,
    CAPTION_FROM_TEXT,
    SEVERAL_CAPTIONS,
)
# A usable record gives less than it holds.
MORE_REGIONS = "region beyond data.regions"
SHORT_CUT = "short caption cut to 77 tokens"
REGION_CUT = "region text or negative cut to 77 tokens"
LONG_CUT = "long caption cut to 248 tokens"
# A shard ends early, and the samples before that are used.
DAMAGED_SHARD = "damaged shard"


class BadRecord(ValueError):
    """A record that cannot be used; ``cause`` is one of :data:`BAD`."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


class Defect(NamedTuple):
    """A part of a record that was dropped or filled; ``cause`` is one of :data:`DROPPED` or :data:`FILLED`."""

    cause: str
    detail: str = ""
    region: int | None = None
    """Place in ``bbox_info``; None for what is of the whole record."""
