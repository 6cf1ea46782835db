"""A checkpoint of ViT-B/16 written beside training: the time that the steps lose, against writing it in the loop.

pytest benchmarks/bench_checkpoint.py --benchmark-only -s

Both ways write the same files (weights, and AdamW's two moments: 1.8 GB), hash and sync them. Training goes on for as
many steps as the writing takes, so that all that it costs them is counted.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import by_turns
from benchmarks.workload import stage2
from fgclip_fast.config import Loss, Optim
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.presets import B16
from fgclip_fast.process import heap
from fgclip_fast.training import checkpoint
from fgclip_fast.training.host_copy import snapshot
from fgclip_fast.training.objective import objective
from fgclip_fast.training.optim import adamw, update
from fgclip_fast.training.saver import Saver

STEPS = 8  # four images with four regions and ten negatives each: longer than a checkpoint takes to write
ROUNDS = 3


class Training:
    """Steps of stage 2, after the second of which a checkpoint is due."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder, self.model = folder, FGCLIP(B16)
        self.batch, _ = stage2(B16, [4] * 4, [4] * 4)
        self.optimizer = adamw(self.model, Optim())
        self.step()
        self.saver = Saver(every=1, minutes=0)

    def step(self) -> None:
        objective(self.model(self.batch), Loss()).total.backward()
        update(self.model, self.optimizer, Optim())

    def values(self) -> dict:
        moments = {str(i): {**entry} for i, entry in enumerate(self.optimizer.state.values())}
        return {"model": self.model.state_dict(), "state": {"optimizer": moments}}

    def write(self, values: dict) -> None:
        checkpoint.save(self.folder, 1, partial(self.model.save, state=values["model"]), values["state"], keep=1)

    def run(self, save: Callable[[], object]) -> None:
        for step in range(STEPS):
            self.step()
            if step == 1:
                save()

    def beside(self) -> None:
        copies = snapshot(self.values())
        self.saver.submit(lambda: self.write(copies))


def test_a_checkpoint_beside_training(benchmark, tmp_path):
    heap.keep_freed_memory("cpu")  # as the training command does
    training = Training(tmp_path)
    expected = training.values()
    training.write(expected)
    in_the_loop = (checkpoint.at(tmp_path, 1) / "model/model.safetensors").read_bytes()
    training.beside()
    training.saver.wait()
    assert (checkpoint.at(tmp_path, 1) / "model/model.safetensors").read_bytes() == in_the_loop
    del in_the_loop, expected

    def alone() -> None:
        training.run(lambda: None)

    peers = {"without": alone, "in the loop": lambda: training.run(lambda: training.write(training.values()))}
    ratios = by_turns(benchmark, lambda: training.run(training.beside), peers, ROUNDS)
    training.saver.wait()
    if benchmark.enabled:
        took = benchmark.stats["median"]
        step = ratios["without"] * took / STEPS
        lost = {"beside": took * (1 - ratios["without"]), "loop": took * (ratios["in the loop"] - ratios["without"])}
        benchmark.extra_info.update(peer="the same checkpoint, written in the loop", step=step, lost=lost)
        beside, loop = (f"{seconds:.1f} s ({seconds / step:.2f} steps)" for seconds in lost.values())
        print(f"\na checkpoint of ViT-B/16, steps of {step:.2f} s: {beside} lost beside training, {loop} in the loop")
