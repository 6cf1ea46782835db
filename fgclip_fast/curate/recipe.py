"""A recipe: the stages from images to training shards, in a YAML file."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from fgclip_fast.config.yaml_file import mapping, nearest, validated
from fgclip_fast.curate.captions import Captions
from fgclip_fast.curate.chat_negatives import ChatNegatives
from fgclip_fast.curate.cluster import HERE, Cluster
from fgclip_fast.curate.filters import Filter
from fgclip_fast.curate.finished import Shards
from fgclip_fast.curate.folder import place_of
from fgclip_fast.curate.negatives import Negatives, write_negatives
from fgclip_fast.curate.phrases import Images, Phrases
from fgclip_fast.curate.places.place import Place
from fgclip_fast.curate.regions import Regions
from fgclip_fast.curate.running import run
from fgclip_fast.curate.stage import Stage
from fgclip_fast.curate.units import Unit, images_in, shards_of
from fgclip_fast.data.remote import is_url
from fgclip_fast.data.shards import expand

STAGES: dict[str, type[Stage] | type[Shards]] = {
    "captions": Captions,
    "phrases": Phrases,
    "regions": Regions,
    "negatives": Negatives,
    "filter": Filter,
    "shards": Shards,
}
"""Name → stage; ``negatives`` with ``method: chat`` are :class:`ChatNegatives`."""
_KEYS = ("source", "output", "shard_size", "chat", "ray", "stages")


@dataclass(frozen=True)
class Recipe:
    """The stages from a source to training shards.

    Attributes:
        source: a folder of images, or shards as ``data.train`` names them.
        output: folder of the stages' folders ``0-images``, ``1-captions``, …, or a URL of it.
        stages: in order.
        shard_size: images of a shard, where the source is a folder of images.
        clusters: where each stage runs; empty: all on this machine.
        cluster: where the images of a folder are read.
    """

    source: str
    output: Path | str
    stages: tuple[Stage | Shards, ...]
    shard_size: int = 1000
    clusters: tuple[Cluster, ...] = ()
    cluster: Cluster = HERE

    def folders(self) -> list[tuple[Stage | Shards, Place, Cluster]]:
        """The stages, that of the images first if there is one, with their folders and where they run."""
        output = place_of(self.output)
        first = [(Images(), output.below("0-images"), self.cluster)] if self.has_images else []
        clusters = self.clusters or (HERE,) * len(self.stages)
        return first + [
            (stage, output.below(f"{number}-{stage.name}"), cluster)
            for number, (stage, cluster) in enumerate(zip(self.stages, clusters, strict=True), start=1)
        ]

    @property
    def has_images(self) -> bool:
        """True if the source is a folder of images, and not of shards."""
        folder = Path(self.source).expanduser()
        return folder.is_dir() and not any(folder.glob("*.tar"))


def read(path: Path) -> Recipe:
    """Read a recipe; its paths start from its own folder.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no recipe; the message names the key and the value.
    """
    values = mapping(path)
    try:
        for key in values:
            if key not in _KEYS:
                raise ValueError(f"unknown key {nearest(key, _KEYS)}")
        for key in ("source", "output", "stages"):
            if not values.get(key):
                raise ValueError(f"{key} is missing")
        if not isinstance(values["stages"], list):
            raise ValueError(f"stages must be a list, got {values['stages']!r:.80}")
        entries = [_entry(entry) for entry in values["stages"]]
        ray = values.get("ray") or {}
        clusters = tuple(_cluster(ray, given.pop("ray", None), name) for name, given in entries)
        stages = tuple(_stage(name, given, path.parent, values.get("chat") or {}) for name, given in entries)
        last = [number for number, stage in enumerate(stages, start=1) if isinstance(stage, Shards)]
        if last and last != [len(stages)]:
            raise ValueError("shards must be the last stage")
        source, size = str(values["source"]), values.get("shard_size", 1000)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"shard_size must be a number of images above 0, got {size!r}")
        local = source if is_url(source) else str(path.parent / Path(source).expanduser())
        given = str(values["output"])
        output = given if is_url(given) else path.parent / Path(given).expanduser()
        # Machines that share no file system do not see a folder of images either.
        at = HERE if is_url(given) else _cluster(ray, None, "images")
        return Recipe(local, output, stages, size, clusters, at)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _entry(entry: Any) -> tuple[str, dict[str, Any]]:
    """Name and settings of a list's entry: the name alone, or a mapping of it to its settings."""
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(f"a stage must be a name, or a name with settings, got {entry!r:.80}")
    ((name, values),) = entry.items()
    if name not in STAGES:
        raise ValueError(f"unknown stage {nearest(name, STAGES)}")
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{name} must be a mapping of settings, got {values!r:.80}")
    return name, dict(values)


def _cluster(common: Any, own: Any, name: str) -> Cluster:
    """Where a stage runs: by its own settings, or those of the recipe."""
    if not isinstance(common, dict) or not isinstance(own, dict | None):
        raise ValueError(f"ray and {name}.ray must be mappings of settings, got {common!r:.80} and {own!r:.80}")
    values = {**common, **(own or {})}
    _check_keys(Cluster, values, "ray")
    return validated(Cluster, values)


def _stage(name: str, values: dict[str, Any], home: Path, chat: Any) -> Stage | Shards:
    """A stage of its settings.

    Args:
        name: of the stage.
        values: its settings.
        home: folder that paths start from.
        chat: settings of the chat model that a stage does not give itself.
    """
    if not isinstance(chat, dict):
        raise ValueError(f"chat must be a mapping of settings, got {chat!r:.80}")
    kind = STAGES[name]
    if name == "negatives" and "method" in values:
        method = values.pop("method")
        if method not in ("rules", "chat"):
            raise ValueError(f"negatives.method must be rules or chat, got {method!r}")
        kind = ChatNegatives if method == "chat" else Negatives
    if values.get("prompts"):
        values["prompts"] = str(home / values["prompts"])
    if chat and any(field.name == "chat" for field in fields(kind)):
        values["chat"] = {**chat, **(values.get("chat") or {})}
    _check_keys(kind, values, name)
    try:
        return validated(kind, values)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith("curate") else f"{name}.{message}") from None


def _check_keys(kind: Any, values: Mapping[str, Any], path: str) -> None:
    """Refuse keys that a dataclass does not have, in it and in the dataclasses of its fields."""
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{path}.{key} is unknown: {nearest(key, known)}")
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            _check_keys(hints[key], value, f"{path}.{key}")


def run_recipe(
    recipe: Recipe,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    told: Callable[[str, Place, Counter[str]], None] = lambda name, folder, counts: None,
) -> None:
    """Run the stages in order; what an earlier call has done is not done again.

    Args:
        recipe: the stages.
        workers: processes of stages that ask no model; None: one for each core.
        retry_failed: try the records again that failed, in every stage.
        told: is called after each stage with its name, folder and counts.
    """
    units: Sequence[Unit]
    units = images_in(Path(recipe.source), recipe.shard_size) if recipe.has_images else shards_of(expand(recipe.source))
    for stage, folder, cluster in recipe.folders():
        if isinstance(stage, Shards):
            counts = stage.write([unit.path for unit in units if unit.path is not None], folder, workers)
        elif isinstance(stage, Negatives):
            counts = write_negatives(units, folder, stage, workers, cluster)
        else:
            counts = run(stage, units, folder, workers=workers, retry_failed=retry_failed, cluster=cluster)
        told(stage.name, folder, counts)
        if not isinstance(stage, Shards):
            units = shards_of(folder.shards([unit.name for unit in units]))
