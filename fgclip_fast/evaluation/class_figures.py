"""Figures of choices among classes: top-1 and top-5 over all items, and their mean over classes."""

import math
from collections import Counter
from collections.abc import Sequence

from fgclip_fast.evaluation.figures import Figures, by_image, counted
from fgclip_fast.evaluation.metrics import interval, mean_of_known


def class_figures(
    names: Sequence[str], images: Sequence[str], labels: Sequence[int], ranks: Sequence[int], skipped: Counter[str]
) -> Figures:
    """Make the figures of a suite of classes.

    Args:
        names: of the classes.
        images: of each item, its image.
        labels: of each item, its class.
        ranks: of each item, the number of classes before the right one.
        skipped: cause → items that could not be asked.

    Returns:
        Figures; a class without items has None, and is left out of the mean over classes.
    """
    asked = len(ranks)
    of_class = Counter(labels)
    causes = counted(skipped)
    values: dict[str, object] = {}
    outcomes: dict[str, dict[str, tuple[int, int]]] = {}
    for k in (1, 5):
        hits = [rank < k for rank in ranks]
        right = Counter(label for label, hit in zip(labels, hits, strict=True) if hit)
        shares = [right[c] / of_class[c] for c in sorted(of_class)]
        values[f"top{k}"] = sum(hits) / asked if asked else math.nan
        values[f"top{k}_mean_of_classes"] = mean_of_known(shares)
        outcomes[f"top{k}"] = by_image(images, hits, [1] * asked)
        if k == 1:
            values["interval"] = list(interval(sum(hits), asked))
            by_class = {c: right[c] / of_class[c] for c in of_class}
    values |= {
        "chance": 1 / len(names) if names else math.nan,
        "questions": asked,
        "classes": len(names),
        "classes_with_items": len(of_class),
        "skipped": causes,
        "by_class": {f"{c} {name}": by_class.get(c) for c, name in enumerate(names)},
    }
    return Figures(values=values, asked=asked, skipped=causes, outcomes=outcomes)
