"""Count what a batch leaves out of its records: regions beyond those it takes, and ends of texts that are too long."""

from collections import Counter
from collections.abc import Iterable, Sequence

from fgclip_fast.data.causes import LONG_CUT, MORE_REGIONS, REGION_CUT, SHORT_CUT
from fgclip_fast.inputs.batch import Example, Tokenize
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH


def count_regions(found: int, taken: int, counts: Counter[str]) -> None:
    """Count the regions of a record that a visit leaves out."""
    if found > taken:
        counts[MORE_REGIONS] += found - taken


def count_texts(examples: Sequence[Example], texts: Texts, tokenizer: Tokenize, counts: Counter[str]) -> None:
    """Count the texts of a batch that lost their end, by kind.

    Args:
        examples: of the batch, in order.
        texts: their texts as :func:`~fgclip_fast.inputs.batch.make_batch` lays them.
        tokenizer: the one that encoded them.
        counts: gains the numbers.
    """
    # Only a text of full length can have lost its end, and few have it: only those are encoded once more.
    full = texts.offsets.diff()
    full[: texts.shorts] -= SHORT_LENGTH
    full[texts.shorts :] -= LONG_LENGTH
    rows = (full == 0).nonzero().flatten().tolist()
    if not rows:
        return
    regions = [text for example in examples for text in example.region_texts]
    groups = [group for example in examples for group in example.hard_texts if group]
    regions += [text for group in groups for text in ("", *group[1:])]  # a positive is counted as its region's text
    kinds = (
        (SHORT_CUT, [example.short for example in examples], SHORT_LENGTH),
        (REGION_CUT, regions, SHORT_LENGTH),
        (LONG_CUT, [example.long for example in examples], LONG_LENGTH),
    )
    start = 0
    for cause, of_kind, length in kinds:
        suspects = [of_kind[row - start] for row in rows if 0 <= row - start < len(of_kind)]
        count_cut(suspects, cause, length, tokenizer, counts)
        start += len(of_kind)


def count_cut(texts: Iterable[str], cause: str, length: int, tokenizer: Tokenize, counts: Counter[str]) -> None:
    """Count the texts of more than ``length`` tokens under a cause."""
    cut = int((tokenizer(list(texts), length + 1).offsets.diff() > length).sum())
    if cut:
        counts[cause] += cut
