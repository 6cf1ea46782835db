"""What a Triton kernel would be on a GPU that is not here: registers, spills, shared memory, CTAs an SM and PTX.

    launches = recorded_launches(lambda: kernels_module.forward(*fake_cuda_tensors), kernels_module)
    launches[0].resources(90)   # compiled for sm_90 exactly as this call would have launched it
    launches[0].resources(90).ctas(90)   # how many of its programs (CTAs) an SM holds at a time
    resources(kernel, {"x_ptr": "*bf16", "x_stride": "i32:16", "N": "i32"}, {"BLOCK": 64}, arch=90, num_warps=4)

Compiling needs kernels that were defined without TRITON_INTERPRET, so it happens in one process of its own.
"""

import importlib
import math
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.tools.tensor_descriptor import TensorDescriptor

ARCHITECTURES = (80, 90, 100)


class Multiprocessor(NamedTuple):
    """What the programs on one streaming multiprocessor share, beside its 65,536 registers."""

    warps: int
    ctas: int
    shared: int


# CUDA C++ Programming Guide 13, "Compute Capabilities", table of technical specifications.
MULTIPROCESSORS = {
    80: Multiprocessor(64, 32, 164 * 2**10),
    89: Multiprocessor(48, 24, 100 * 2**10),
    90: Multiprocessor(64, 32, 228 * 2**10),
    100: Multiprocessor(64, 32, 228 * 2**10),
    120: Multiprocessor(48, 24, 100 * 2**10),
}
# By cuda_occupancy.h: a warp's registers are given in units of 256, from one of four parts of the file. Each CTA takes
# 1 KiB of shared memory more than it asks for.
REGISTERS_OF_PART, PARTS, REGISTER_UNIT, RESERVED_SHARED = 65536 // 4, 4, 256, 2**10

_TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
}


class Resources(NamedTuple):
    """What the compiled kernel takes; ``spills`` is the bytes of local memory a thread needs, 0 where all fits."""

    registers: int
    spills: int
    shared: int
    ptx: str
    warps: int
    cubin: bytes

    def opcodes(self) -> list[str]:
        """The kernel's machine instructions (SASS) in order, without operands: ``["LDC", "HGMMA.64x128x16", …]``."""
        import triton

        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            command = [triton.knobs.nvidia.nvdisasm.path, "-c", file.name]
            listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", listing, re.MULTILINE)

    def ctas(self, arch: int) -> int:
        """How many programs an SM of ``sm_<arch>`` holds at a time, by registers, shared memory and warps."""
        limit = MULTIPROCESSORS[arch]
        registers = math.ceil(32 * self.registers / REGISTER_UNIT) * REGISTER_UNIT  # of a warp
        by_registers = REGISTERS_OF_PART // registers * PARTS // self.warps
        by_shared = limit.shared // (self.shared + RESERVED_SHARED)
        return min(by_registers, by_shared, limit.warps // self.warps, limit.ctas)

    def __str__(self) -> str:
        return f"{self.registers} registers, {self.spills} bytes spilled, {self.shared} bytes shared"


def resources(
    kernel: Any,
    signature: dict[str, str],
    constexprs: dict[str, Any],
    arch: int,
    num_warps: int = 4,
    num_stages: int = 3,
) -> Resources:
    """Compiles ``kernel`` for ``sm_<arch>``.

    Args:
        kernel: a ``@triton.jit`` function at the top level of a module (interpreted or not).
        signature: argument -> type: ``"*bf16"``, ``"i32"``, ``"fp32"``; ``"i32:16"`` is known to be a multiple of 16,
            as a launch finds out for strides and sizes. Pointers always are.
        constexprs: argument -> value, for the ``tl.constexpr`` arguments and integers that are 1.
        arch: compute capability, 80, 90, 100 or 120.
        num_warps: as in the launch.
        num_stages: as in the launch.
    """
    missing = [name for name in kernel.arg_names if name not in signature and name not in constexprs]
    if missing:
        raise ValueError(f"resources: {kernel.fn.__name__} needs a type or a value of {missing}")
    options = {"num_warps": num_warps, "num_stages": num_stages}
    job = (kernel.fn.__module__, kernel.fn.__name__, signature, constexprs, arch, options)
    return _compiler().submit(_compile, *job).result()


@dataclass(frozen=True)
class Launch:
    """One ``kernel[grid](…)`` that was asked for."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, int]

    def resources(self, arch: int) -> Resources:
        """The kernel as this launch would compile it."""
        return resources(self.kernel, *self.specialization(), arch, **self.options)

    def specialization(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Types (with divisibility) and constants of the arguments: a launch with others compiles the kernel anew."""
        signature, constexprs = {}, {}
        unspecialized = _unspecialized_names(self.kernel)
        for name, value in self.arguments.items():
            kind = None if name in _constexpr_names(self.kernel) else _kind(value, name in unspecialized)
            if kind is None:
                constexprs[name] = value
            else:
                signature[name] = kind
        return signature, constexprs


def recorded_launches(call: Callable[[], Any], *modules: ModuleType) -> list[Launch]:
    """Runs ``call`` with every kernel of ``modules`` replaced by a recorder; nothing is computed: use `fake_cuda`."""
    launches: list[Launch] = []
    with ExitStack() as patches:
        for module in modules:
            kernels = {name: value for name, value in vars(module).items() if hasattr(value, "arg_names")}
            recorders = {name: _Recorder(kernel, launches) for name, kernel in kernels.items()}
            patches.enter_context(mock.patch.multiple(module, **recorders))
        call()
    return launches


def fake_cuda() -> FakeTensorMode:
    """Inside, ``torch.empty(…, device="cuda")`` is a tensor without values: shapes, strides, dtypes and device only."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class _Recorder:
    def __init__(self, kernel: Any, launches: list[Launch]):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, num_warps: int = 4, num_stages: int = 3, **kwargs: Any) -> None:
            arguments = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs
            assert set(arguments) == set(self.kernel.arg_names), f"{self.kernel.fn.__name__}: got {list(arguments)}"
            blocks = grid(arguments) if callable(grid) else grid
            options = {"num_warps": num_warps, "num_stages": num_stages}
            self.launches.append(Launch(self.kernel, tuple(blocks), arguments, options))

        return launch


def _constexpr_names(kernel: Any) -> list[str]:
    function = kernel.fn
    return [name for name, kind in function.__annotations__.items() if "constexpr" in str(kind)]


def _unspecialized_names(kernel: Any) -> list[str]:
    """Arguments whose value must not compile the kernel anew; an interpreted kernel keeps them among its options."""
    options = vars(kernel).get("kwargs", vars(kernel))
    return options.get("do_not_specialize") or []


def _kind(value: Any, unspecialized: bool = False) -> str | None:
    """Type of a launch's argument, as `resources` takes it; None for what a launch makes a constant."""
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{_TYPES[value.base.dtype]}{list(value.block_shape)}>"
    if isinstance(value, torch.Tensor):
        return "*" + _TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if unspecialized:
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if value is None or isinstance(value, bool) or value == 1:
        return None
    return ("i32" if -(2**31) <= value < 2**31 else "i64") + (":16" if value % 16 == 0 else "")


@cache
def _compiler() -> ProcessPoolExecutor:
    # "spawn", so that the child imports Triton anew, with the environment as it is when the first job is submitted
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with mock.patch.dict(os.environ):
        os.environ.pop("TRITON_INTERPRET", None)
        pool.submit(os.getpid).result()
    return pool


def _compile(
    module: str, name: str, signature: dict[str, str], constexprs: dict[str, Any], arch: int, options: dict[str, int]
) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(module), name)
    types = {key: signature.get(key, "constexpr").removesuffix(":16") for key in kernel.arg_names}
    wide = [i for i, key in enumerate(kernel.arg_names) if re.match(r"\*|.*:16$", signature.get(key, ""))]
    source = ASTSource(kernel, types, constexprs, {(i,): [["tt.divisibility", 16]] for i in wide})
    compiled = triton.compile(source, GPUTarget("cuda", arch, 32), options)
    registers, spills = _usage(compiled.asm["cubin"])
    cubin, shared = compiled.asm["cubin"], compiled.metadata.shared
    return Resources(registers, spills, shared, compiled.asm["ptx"], compiled.metadata.num_warps, cubin)


def _usage(cubin: bytes) -> tuple[int, int]:
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return found["REG"], found["STACK"] + found["LOCAL"]
