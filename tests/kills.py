"""Kills a run at random moments, resumes it each time, and compares its log with that of a run that was left alone.

``python -m tests.kills --shards DIR --output DIR --kills 100`` prints one line of JSON. The parent loads the packages
once; each start is a fork of it that runs the command's own code, so that a hundred starts take minutes. Two of three
kills hit a checkpoint while it is written.
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch._dynamo  # what every optimizer imports when it is made

from fgclip_fast import command_line, train as command
from fgclip_fast.config import Config, Data, Optim, yaml_file
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import checkpoint
from tests.models import MINI

CLOCK = ("images_per_s", "tokens_per_s", "waiting", "memory_gb")


def warm() -> None:
    """Read once what every start would read anew; without a backward pass, after which torch lets nobody fork."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        FGCLIP(MINI).save(Path(folder))


def write_configs(shards: Path, folder: Path, names: Sequence[str], steps: int, **changes: Any) -> None:
    """Write ``NAME.yaml`` for each name: the same short run, whose folder is ``NAME``."""
    data = Data(train=str(shards / "train-*.tar"), val="", workers=0, window=2)
    config = Config(
        model=MINI, data=data, optim=Optim(lr=3e-3, warmup=2, average=0.9), batch_size=4, steps=steps,
        checkpoint_every=2, device="cpu", threads=1,
    )  # fmt: skip
    for name in names:
        yaml_file.save(replace(config, output=str(folder / name), **changes), folder / f"{name}.yaml")


def losses(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's steps, without what the clock and the memory of the process decide."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines if line["kind"] == "train"]


def start(words: list[str], output: Path, environment: Mapping[str, str] = MappingProxyType({})) -> int:
    """Start the command in a fork, its output at the end of a file; return the process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ |= environment
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        command.log.setLevel("INFO")
        with command.command.frame("train"):
            command.train(command_line.parse(words))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def half_written(run: Path) -> dict[int, str]:
    """Half-written folders, by inode."""
    found = {}
    for path in (run / "checkpoints").glob(".*"):
        try:
            found[path.stat().st_ino] = path.name
        except FileNotFoundError:
            continue
    return found


def kill(pid: int, run: Path, chance: random.Random, longest: float) -> bool:
    """Kill a process at a random moment, or in a save; False if it ended before."""
    in_save, begun = chance.random() < 2 / 3, time.monotonic()
    wait = chance.uniform(0, longest)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        waited = time.monotonic() - begun
        if waited >= wait and (not in_save or waited > 3 * longest or half_written(run)):
            time.sleep(chance.uniform(0, 0.1) if in_save else 0.0)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return True
        time.sleep(0.002)
    return False


def main() -> None:
    """Run the kills and print what was found."""
    reader = argparse.ArgumentParser()
    for name in ("shards", "output"):
        reader.add_argument(f"--{name}", type=Path, required=True)
    reader.add_argument("--kills", type=int, default=3)
    reader.add_argument("--steps", type=int, default=12)
    reader.add_argument("--seed", type=int, default=0)
    asked = reader.parse_args()
    chance, folder = random.Random(asked.seed), asked.output
    write_configs(asked.shards, folder, ("whole", "killed"), asked.steps)
    warm()
    begun = time.monotonic()
    whole = start(["--config", str(folder / "whole.yaml")], folder / "whole.txt")
    assert os.waitpid(whole, 0)[1] == 0, (folder / "whole.txt").read_text()
    seconds = time.monotonic() - begun
    run, text = folder / "killed", folder / "killed.txt"
    words = ["--config", str(folder / "killed.yaml"), "--resume", "auto"]
    kills = partials = stale = lost = starts = 0
    left: dict[int, str] = {}
    saved: Path | None = None
    while True:
        text.write_bytes(b"")
        pid = start(words, text)
        starts += 1
        if kills < asked.kills and kill(pid, run, chance, seconds * 0.6):
            kills += 1
        elif kills >= asked.kills:
            assert os.waitpid(pid, 0)[1] == 0, text.read_text()
        # A start that got as far as to say where it goes on has done its clearing.
        if went_on := re.search(r"resuming \S+ after step (\d+)", text.read_text()):
            lost += max(0, (checkpoint.step_of(saved) if saved else 0) - int(went_on[1]))
            stale += len(left.keys() & half_written(run).keys())
        left = half_written(run)
        partials += len(left)
        saved = checkpoint.newest_sound(run) if run.exists() else None
        done = saved is not None and checkpoint.step_of(saved) == asked.steps
        if done and kills >= asked.kills:
            break
        if done:  # more kills are wanted than one run holds
            assert losses(run) == losses(folder / "whole")
            run.rename(folder / f"killed-{starts}")
            saved, left = None, {}
    result = {
        "kills": kills, "starts": starts, "left half-written": partials, "stale after the next start": stale,
        "saved steps lost": lost, "equal": losses(run) == losses(folder / "whole"),
        "names": sorted(path.name for path in (run / "checkpoints").iterdir()), "seconds": time.monotonic() - begun,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
