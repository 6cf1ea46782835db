"""A run's model in front of its validation pictures: what the page shows beyond the run's files."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.data.fingerprint import fingerprint
from fgclip_fast.data.loader import examples
from fgclip_fast.evaluation import pictures
from fgclip_fast.evaluation.pictures import Picture, View, spread
from fgclip_fast.inputs.batch import make_batch
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import prefix_tree
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH
from fgclip_fast.report import explore
from fgclip_fast.report.explore import Phrases, Rule
from fgclip_fast.report.files import RunFiles
from fgclip_fast.scenes.locate import EMBEDDED, embedded, locate

log = logging.getLogger("fgclip_fast")
SAMPLED = 240
"""Validation pictures whose answers are looked through for right and wrong ones."""
EXPLORED = 24
"""Those that the page can be asked about."""
SAMPLES = 8
"""Those that are written to the run's ``samples/``."""


@dataclass(frozen=True)
class Sight:
    """What a model makes of the pictures, and of everything that can be asked about them.

    Attributes:
        model: in evaluation mode.
        views: the sampled pictures; ``explored`` is spread evenly over them.
        phrases, texts: what can be asked, and Tensor[P, D], unit rows.
    """

    model: FGCLIP
    views: list[View]
    phrases: Phrases
    texts: Tensor

    @property
    def explored(self) -> list[View]:
        """The pictures that the page carries; not chosen by how well they come out."""
        return [self.views[i] for i in spread(len(self.views), EXPLORED)]

    @property
    def scale(self) -> float:
        """Multiplier of the cosines of a box and its texts."""
        return self.model.logit_scale_hardneg.exp().item()

    def rules(self) -> dict[str, Rule]:
        """How often the hottest patch lies in the right box, by what was asked."""
        found = {"the whole phrase of a box": explore.whole_phrase(self.explored, self.phrases, self.texts)}
        for menu in self.phrases.menus or {}:
            found[f"the {menu} alone"] = explore.word_alone(self.explored, self.phrases, self.texts, menu)
        return {name: rule for name, rule in found.items() if rule.total}


def of_run(run: RunFiles) -> Sight | None:
    """The newest weights before the run's own validation pictures; None without weights or pictures."""
    if run.weights is None:
        return None
    shown = validation_pictures(run)
    return of_pictures(run, shown) if shown else None


def of_pictures(run: RunFiles, shown: Sequence[Picture], phrases: Phrases | None = None) -> Sight:
    """The same before given pictures, asked given phrases or those of the run's data."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = pretrained.load(run.path).to(device).eval()
    views = pictures.look(model, shown)
    if phrases is None:
        phrases = explore.grammar() if run.config.data.val == EMBEDDED else explore.own_phrases(views)
    return Sight(model, views, phrases, explore.embed(model, phrases))


def validation_pictures(run: RunFiles) -> list[Picture]:
    """Pictures of the run's validation set, with what is asked about them; none where it has moved or there is none."""
    val = run.config.data.val
    if val == EMBEDDED:
        return pictures.of_levels(embedded() / "levels", SAMPLED)
    try:
        return pictures.of_shards(val, SAMPLED) if val else []
    except (OSError, ValueError) as error:
        log.warning("report: no pictures: %s", error)
        return []


def another_set(run: RunFiles) -> str:
    """What to say where the validation set is no longer the one that the run began with; else nothing."""
    then = run.about.get("data", {}).get("val", {}).get("fingerprint")
    now = fingerprint(locate(run.config.data).val)["fingerprint"] if then else None
    if then == now:
        return ""
    why = "another version of this package draws it" if run.config.data.val == EMBEDDED else "its shards have changed"
    said = f"The validation set is not the one that this run began with: {why}."
    return f"{said} The run's figures are of the old one, the pictures and answers here of the new."


def write_samples(run: RunFiles, views: Sequence[View]) -> None:
    """Writes some of the pictures to ``samples/``, with their boxes and texts beside them."""
    folder = run.path / "samples"
    folder.mkdir(exist_ok=True)
    notes: dict[str, Any] = {}
    for number, view in enumerate(views[:SAMPLES]):
        (folder / f"{number}.jpg").write_bytes(view.picture.encoded)
        notes[f"{number}.jpg"] = [{"box": asked.box, "texts": asked.texts} for asked in view.picture.asked]
    (folder / "samples.json").write_text(json.dumps(notes, indent=1))


def tokens(run: RunFiles, model: FGCLIP) -> Mapping[str, int]:
    """Text tokens of one batch of validation records: padded, without padding, and as one prefix tree."""
    data = locate(run.config.data)
    try:
        found = examples(data.val, image_size=16, data=data, limit=run.config.batch_size) if data.val else ()
        records = list(found)
    except (OSError, ValueError):
        records = []
    if not records:
        return {}
    batch = make_batch(records, model.tokenizer)
    tree = prefix_tree(batch.token, batch.offsets, batch.shorts)
    return {
        f"padded to {SHORT_LENGTH} and {LONG_LENGTH}": batch.shorts * SHORT_LENGTH + len(records) * LONG_LENGTH,
        "without padding": len(batch.token),
        "as one prefix tree": len(tree.token),
    }
