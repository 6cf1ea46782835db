"""A run's model on its validation images: what the page shows beyond the run's files."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fgclip_fast.data.file_order import examples
from fgclip_fast.data.fingerprint import fingerprint
from fgclip_fast.evaluation import views
from fgclip_fast.evaluation.views import ValidationImage, View, spread_evenly
from fgclip_fast.files.whole_file import write_json, write_whole
from fgclip_fast.inputs.batch import make_batch
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH
from fgclip_fast.report import explore
from fgclip_fast.report.explore import Phrases, PointingGame
from fgclip_fast.report.files import RunFiles

log = logging.getLogger("fgclip_fast")
SAMPLED = 240
"""Validation images in which right and wrong answers are looked for."""
EXPLORED = 24
"""Images that a reader of the page can search."""
SAMPLES = 8
"""Images that are written to the run's ``samples/``."""


@dataclass(frozen=True)
class ModelViews:
    """A model, its views of validation images, and embeddings of the phrases that a reader can choose.

    Attributes:
        model: in evaluation mode, on its device.
        views: one for each sampled image.
        phrases: the phrases.
        texts: Tensor[P, D], fp32, unit rows, embeddings of the phrases.
    """

    model: FGCLIP
    views: list[View]
    phrases: Phrases
    texts: Tensor

    @property
    def explored(self) -> list[View]:
        """The views that the page carries; spread evenly over all, not chosen by their results."""
        return [self.views[i] for i in spread_evenly(len(self.views), EXPLORED)]

    @property
    def scale(self) -> float:
        """Multiplier of the cosines of a box and its texts."""
        return self.model.logit_scale_hardneg.exp().item()

    def pointing_games(self) -> dict[str, PointingGame]:
        """Results of the pointing game, by what was asked for; without those that no image takes part in."""
        games = {"the whole phrase of a box": explore.point_at_phrases(self.explored, self.phrases, self.texts)}
        for menu in self.phrases.menus or {}:
            games[f"the {menu} alone"] = explore.point_at_words(self.explored, self.phrases, self.texts, menu)
        return {name: game for name, game in games.items() if game.total}


def of_run(run: RunFiles, device: torch.device | str) -> ModelViews | None:
    """Show a run's newest weights its own validation images; None without weights or images."""
    if run.weights is None:
        return None
    images = validation_images(run)
    return of_images(run, images, device) if images else None


def of_images(
    run: RunFiles, images: Sequence[ValidationImage], device: torch.device | str, phrases: Phrases | None = None
) -> ModelViews:
    """Show a run's newest weights some images.

    Args:
        run: a run with weights.
        images: the images.
        device: where the model runs.
        phrases: the phrases to embed; None takes those of the run's validation data.
    """
    model = pretrained.load(run.path).to(device).eval()
    found = views.view(model, images)
    if phrases is None:
        phrases = explore.own_phrases(found) if run.source.levels is None else explore.grammar_phrases()
    return ModelViews(model, found, phrases, explore.embed(model, phrases))


def validation_images(run: RunFiles) -> list[ValidationImage]:
    """Images of a run's validation set, with their questions; empty if there is no set or its shards are gone."""
    val, levels = run.source.data.val, run.source.levels
    if levels is not None:
        return views.images_of_levels(levels, SAMPLED)
    try:
        return views.images_of_shards(val, SAMPLED) if val else []
    except (OSError, ValueError) as error:
        log.warning("report: no validation images: %s", error)
        return []


def changed_validation_set_note(run: RunFiles) -> str:
    """A note for the page if the validation set has changed since the run began; else empty."""
    then = run.provenance.get("data", {}).get("val", {}).get("fingerprint")
    now = fingerprint(run.source.data.val)["fingerprint"] if then else None
    if then == now:
        return ""
    own = run.source.levels is None
    why = "its shards have changed" if own else "another version of this package drew it"
    return (
        f"The validation set is not the one that this run began with: {why}. The figures of the run are those of the "
        "old set; the images and answers here are those of the new one."
    )


def write_samples(run: RunFiles, chosen: Sequence[View]) -> None:
    """Write some images to the run's ``samples/``, with their boxes and texts in ``samples.json``."""
    folder = run.path / "samples"
    folder.mkdir(exist_ok=True)
    notes = {}
    for number, view in enumerate(chosen[:SAMPLES]):
        write_whole(folder / f"{number}.jpg", view.image.encoded)
        notes[f"{number}.jpg"] = [{"box": question.box, "texts": question.texts} for question in view.image.questions]
    write_json(folder / "samples.json", notes)


def count_tokens(run: RunFiles, model: FGCLIP) -> Mapping[str, int]:
    """Count the text tokens of one batch of validation records: padded, without padding, and as one prefix tree.

    Empty if the records cannot be read.
    """
    data = run.source.data
    try:
        found = examples(data.val, image_size=16, data=data, limit=run.config.batch_size) if data.val else ()
        records = list(found)
    except (OSError, ValueError):
        records = []
    if not records:
        return {}
    texts = make_batch(records, model.tokenizer, "prefix-tree").texts
    return {
        f"padded to {SHORT_LENGTH} and {LONG_LENGTH}": texts.shorts * SHORT_LENGTH + len(records) * LONG_LENGTH,
        "without padding": len(texts.token),
        "as one prefix tree": texts.processed_tokens,
    }
