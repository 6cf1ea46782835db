"""The whole step with blocks that torch.compile has compiled; apart, since compiling takes a minute."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.case import Case
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.step_speed import OPTIONS, WORKLOADS, case


def cases(sizes: Sizes) -> Iterator[Case]:
    """FineHARD's workload, with a residual stream in fp32 and in bf16."""
    if sizes.rehearsal:  # a C++ compiler would take most of the rehearsal's time
        torch.compile = partial(torch.compile, backend="aot_eager")
    for option in ("eager",) if sizes.rehearsal else ("eager", "residual in bf16"):
        named = "compiled" if option == "eager" else f"compiled, {option}"
        yield case(sizes, sizes.steps[0], next(iter(WORKLOADS)), named, OPTIONS[option] | {"compile": True})
