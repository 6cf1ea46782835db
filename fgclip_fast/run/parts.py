"""The parts that a run is made of, from its config: the data, the model, the loader and the number of steps."""

import logging
import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fgclip_fast import preflight
from fgclip_fast.config import Config
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.shards import expand
from fgclip_fast.files.whole_file import write_whole
from fgclip_fast.inputs.tokenizer import Tokenizer, installed_merges, read_merges
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.tree import EOS
from fgclip_fast.process import heap
from fgclip_fast.scenes import locate
from fgclip_fast.scenes.locate import Source
from fgclip_fast.training import distributed, freezing, lora, start
from fgclip_fast.training.distributed import Processes

log = logging.getLogger("fgclip_fast")


@dataclass(frozen=True)
class Parts:
    """The parts of a run.

    Attributes:
        config: as it is saved: with the geometry of the loaded weights, and the folder.
        processes: that take part.
        source: the data.
        shards: "train" and "val" → the tar files.
        model: on its device, with adapters and what is held still.
        loader: of the training shards.
        steps: optimizer steps of the whole run.
    """

    config: Config
    processes: Processes
    source: Source
    shards: dict[str, list[Path]]
    model: FGCLIP
    loader: Loader
    steps: int

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return Path(str(self.config.output))


def make_parts(config: Config, processes: Processes, saved: Path | None) -> Parts:
    """Make the parts of a run whose folder is chosen, from the checkpoint ``saved`` where there is one."""
    config = replace(config, data=locate.decided(config.data))
    source, shards = find_data(config, processes)
    heap.keep_freed_memory(processes.device.type)
    seed_everything(config.seed, config.threads)
    made = model(config, saved).to(processes.device)
    config = replace(config, model=made.config)
    freezing.freeze(made, config.freeze)
    lora.add(made, config.lora, saved)
    batches = loader(config, source, shards["train"], made, processes)
    if config.micro_batch_size == "auto":
        config = replace(config, micro_batch_size=fitting(config, batches, processes))
    return Parts(config, processes, source, shards, made, batches, steps(config, batches))


def seed_everything(seed: int, threads: int | None) -> None:
    """Seed the global generators of Python, NumPy and torch; data order and augmentation have their own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)


def find_data(config: Config, processes: Processes) -> tuple[Source, dict[str, list[Path]]]:
    """Find the data and list the shards, once; the first process writes the embedded set if it is missing.

    The user's own shards come first, so that a typing error in their names does not cost the time of writing that set.
    """
    own = locate.own_patterns(config.data)
    shards = {name: preflight.list_shards(f"data.{name}", pattern) for name, pattern in own.items()}
    source = distributed.first_before_others(processes, partial(locate.resolve, config.data))
    patterns = {"train": source.data.train} | ({"val": source.data.val} if source.data.val else {})
    if not source.data.val and processes.first:
        log.info("data.val names no shards, so the run has no validation; name some by --data.val 'val-*.tar'")
    return source, {name: shards.get(name) or expand(pattern) for name, pattern in patterns.items()}


def model(config: Config, saved: Path | None) -> FGCLIP:
    """Make the model of a run, from the checkpoint ``saved`` where there is one.

    Raises:
        ValueError: CLIP's tokens have no rows in its token embedding.
    """
    if saved is None:
        found = start.model(config)
    else:
        found = pretrained.load(saved / "model", like=config.model)
        start.tell_geometry("resume", config.model, found.config)
        found.tokenizer = _lasting(found.tokenizer, Path(str(config.output)))
    if (rows := found.config.text.vocabulary) <= EOS:
        raise ValueError(f"model.text.vocabulary must be >= {EOS + 1}, as many as CLIP's tokens, got {rows}")
    return found


def _lasting(tokenizer: Tokenizer, run: Path) -> Tokenizer:
    """A tokenizer that outlives the checkpoint whose merges it reads: by open_clip's if equal, or by a copy."""
    if tokenizer.merges is None or not run.is_dir():  # a new run removes no checkpoint of another
        return tokenizer
    try:
        if read_merges(tokenizer.merges) == read_merges(installed_merges()):
            return Tokenizer()
    except FileNotFoundError:
        pass  # open_clip_torch is not there
    write_whole(run / "merges.txt", tokenizer.merges.read_bytes())
    return Tokenizer(run / "merges.txt")


def loader(config: Config, source: Source, shards: list[Path], model: FGCLIP, processes: Processes) -> Loader:
    """Make the loader of the training shards; a loss without hard negatives reads none, and auto is one micro-batch."""
    data = source.data
    if config.loss.hard_negative == 0 and data.negatives:
        data = replace(data, negatives=0)
        log.info("loss.hard_negative is 0, so training reads no negatives; data.negatives holds for validation alone")
    return Loader(
        data,
        image_size=config.model.vision.image_size,
        batch_size=config.batch_size,
        micro_batch_size=None if config.micro_batch_size == "auto" else config.micro_batch_size,
        seed=config.seed,
        tokenizer=model.tokenizer,
        rank=processes.rank,
        world_size=processes.world_size,
        packing=config.model.packing,
        device=processes.device,
        shards=shards,
    )


def fitting(config: Config, loader: Loader, processes: Processes) -> int | None:
    """Return the micro-batch that fits the first process's device, by count; None: the whole batch fits.

    The batches of ``loader``, whole until now, come in such micro-batches from now on.
    """

    def count() -> int | None:
        from fgclip_fast.cost import here  # here, since other runs count nothing

        whole = next(loader.batches())
        found = here.micro_batch_size(config, whole, processes.device)
        log.info("micro_batch_size auto: %s", f"{found} images fit, by count" if found else "the whole batch fits")
        return found

    agreed = distributed.of_first(processes, count)
    if agreed:
        loader.set_micro_batch_size(agreed)
    return agreed


def steps(config: Config, loader: Loader) -> int:
    """Return the number of optimizer steps of the whole run.

    Raises:
        ValueError: the epochs are fewer than one step.
    """
    found = config.steps or round(config.epochs * loader.steps_per_epoch)
    if found == 0:
        raise ValueError(
            f"epochs must make a step or more, at {loader.steps_per_epoch} steps each, got {config.epochs}"
        )
    return found
