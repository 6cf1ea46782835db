"""What ``fgclip evaluate`` warns of: figures that would say something else than their reader thinks."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fgclip_fast.data.index import extents
from fgclip_fast.data.shards import expand
from fgclip_fast.evaluation import caveats
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.leakage import leak
from fgclip_fast.evaluation.share import Share
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.suites import SUITES

log = logging.getLogger("fgclip_fast")

COMPARED = 50_000
"""Images of training and validation together that are compared, at most; reading them takes a minute or two."""
SHARDS = 1000
"""Shards whose images are counted for that, at most."""


def of_model(name: str, where: Path, model: FGCLIP, suites: Sequence[str]) -> None:
    """Warn of inputs that are not the model's, and of suites about regions for a model that was not trained for them.

    Args:
        name: of the model, as the user gave it.
        where: folder or file of its weights.
        model: it.
        suites: that are asked.
    """
    for difference in caveats.unlike_files(where, model):
        log.warning("evaluate: %s was made for %s", name, difference)
    asking = [suite for suite in suites if suite in SUITES and SUITES[suite].dense]
    if asking and caveats.dense_untrained(model):
        log.warning(
            "evaluate: %s holds a CLIP without a trained dense path, so figures of %s say little about it",
            name, ", ".join(asking),
        )  # fmt: skip


def of_two(model: FGCLIP, other: FGCLIP) -> None:
    """Warn of two models that are asked in two ways."""
    for difference in caveats.unlike(model, other):
        log.warning("evaluate: the two models differ in more than weights: %s", difference)


def of_long_texts(name: str, model: FGCLIP, found: Mapping[str, Figures]) -> None:
    """Warn of the long text path of a model that was trained for 77 tokens."""
    long = [suite for suite, figures in found.items() if "long text path" in figures.protocol]
    if long and caveats.long_untrained(model):
        log.warning(
            "evaluate: %s was trained for texts of 77 tokens; %s asked its stretched, untrained table of 248 "
            "(--text short is the model's own)", name, ", ".join(long),
        )  # fmt: skip


def of_leak(training: str, validation: str, share: Share) -> None:
    """Warn of validation images that training has too; of sets larger than :data:`COMPARED` tell that none looked.

    Args:
        training, validation: shards, as :func:`~fgclip_fast.data.shards.expand` takes them.
        share: the processes.
    """
    try:
        trained, held_out = expand(training), expand(validation)
    except OSError:  # training shards that have moved since
        return
    if "://" in training + validation or _too_many([*trained, *held_out]):
        if share.first:
            log.info("images of training and validation are not compared here; `fgclip data inspect` finds duplicates")
        return
    found = leak(trained, held_out, share)
    if found.seen and share.first:
        log.warning(
            "evaluate: %d of %d validation images are also in training, equal or nearly so (%s): figures of records "
            "are too good", found.seen, found.images, found.example,
        )  # fmt: skip


def _too_many(shards: Sequence[Path]) -> bool:
    return len(shards) > SHARDS or sum(one.samples for one in extents(shards)) > COMPARED
