"""The sections of the command, in order: each is a module whose ``cases(sizes)`` yields cases."""

from typing import NamedTuple


class Section(NamedTuple):
    """A part of the command with a process and a deadline of its own.

    Attributes:
        name: Of its files, and its key in the JSON.
        module: Where its ``cases`` are.
        title: Its heading.
        seconds: Its share of ten minutes.
    """

    name: str
    module: str
    title: str
    seconds: int


SECTIONS = (
    Section("machine", "benchmarks.gpu.machine", "Machine", 20),
    Section("ceilings", "benchmarks.gpu.ceilings", "Ceilings: what the card attains", 15),
    Section("tests", "benchmarks.gpu.suite", "Tests of the ops", 140),
    Section("sanitizer", "benchmarks.gpu.sanitizer", "compute-sanitizer on one small call of each kernel", 60),
    Section("correctness", "benchmarks.gpu.correctness", "Correctness at the size of a step, against fp64", 60),
    Section("repeats", "benchmarks.gpu.repeats", "Same bits every time, and nothing waits", 40),
    Section("ops", "benchmarks.gpu.op_speed", "Each op against its peers, forward and backward", 110),
    Section("step", "benchmarks.gpu.step_speed", "The whole step", 75),
    Section("compiled", "benchmarks.gpu.compiled_step", "The whole step, compiled", 45),
    Section("peers", "benchmarks.gpu.peer_steps", "The released step and open_clip's", 35),
)
