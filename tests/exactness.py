"""Compare an op with its reference: outputs and gradients, judged by exact arithmetic, and the same bits each time.

The tolerance is measured, not chosen: against fp64, an op may err at most twice as much as eager PyTorch does in the
dtype of the inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

UPSTREAM = 3.0  # what a scalar is multiplied by, since a gradient of 1 from above would hide a forgotten factor


def with_gradients(
    function: Callable[..., Tensor],
    *arguments: Any,
    dtype: torch.dtype | None = None,
    upstream: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    """Compute ``function(*arguments, **options)`` and its gradients by the floating-point tensors in ``arguments``.

    Args:
        function: The op; a scalar that it returns is multiplied by ``UPSTREAM`` first.
        arguments: Tensors of floats are copied, and differentiated by. All else is passed on as it is.
        dtype: Tensors of floats are converted to this dtype first; None keeps theirs.
        upstream: Gradient of the output; None: normal numbers, the same for each function.
        options: Passed on as they are, tensors of floats included.

    Returns:
        The output, and the gradient of each floating-point tensor in their order.
    """
    copies = [x.detach().to(dtype or x.dtype).clone().requires_grad_() if _is_float_tensor(x) else x for x in arguments]
    out = function(*copies, **options)
    if out.ndim == 0:
        out, upstream = UPSTREAM * out, None
    elif upstream is None:
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    upstream = None if upstream is None else upstream.to(out)
    return out.detach(), *torch.autograd.grad(out, [x for x in copies if _is_float_tensor(x)], upstream)


def _is_float_tensor(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def error(result: Tensor, truth: Tensor) -> float:
    """Largest absolute difference; 0 of empty tensors."""
    return (result.double() - truth.double()).abs().max().item() if truth.numel() else 0.0


def assert_as_exact_as_eager(
    function: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    *arguments: Any,
    floor: float,
    rounding: float = 0.0,
    **options: Any,
) -> None:
    """Assert that ``function`` errs at most twice as much as ``reference`` does in the dtype of the inputs.

    Args:
        function: The op under test.
        reference: The same in eager PyTorch; in fp64 it gives the exact result.
        arguments: As of ``with_gradients``.
        floor: Absolute error that is allowed in any case.
        rounding: Error that is allowed in any case, as a fraction of the largest exact value.
        options: As of ``with_gradients``.
    """
    exact = with_gradients(reference, *arguments, dtype=torch.float64, **options)
    eager = with_gradients(reference, *arguments, **options)
    ours = with_gradients(function, *arguments, **options)
    for mine, peer, truth in zip(ours, eager, exact, strict=True):
        assert mine.dtype == peer.dtype and mine.shape == peer.shape
        largest = truth.abs().max().item() if truth.numel() else 0.0
        assert error(mine, truth) <= 2 * error(peer, truth) + floor + rounding * largest


def assert_same_bits(run: Callable[[], Sequence[Tensor]], threads: Sequence[int] = (1, 2, 3)) -> None:
    """Assert that 20 repeats of ``run`` give the same bits, on each number of ``threads`` in turn."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads[-1])
        first = run()
        for repeat in range(20):
            torch.set_num_threads(threads[repeat % len(threads)])
            assert all(a.equal(b) for a, b in zip(first, run(), strict=True))
    finally:
        torch.set_num_threads(before)
