"""The region embedding's CUDA kernels, run on the CPU, against the reference."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fgclip_fast.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def run(program: Path, folder: Path, vector: int, hidden: Tensor, skip: int, boxes, image_index, grid, grad_out):
    """Output and gradient of ``hidden[:, skip:]``, computed by the kernels; ``vector`` channels are read at a time."""
    B, N, C = hidden.shape
    H, W = grid
    header = [DTYPES.index(hidden.dtype), vector, B, len(boxes), H, W, C, N * C, C, skip * C, hidden.numel()]
    parts = [np.array(header, np.int64).tobytes(), *map(bytes_of, (hidden, boxes, image_index, grad_out))]
    (folder / "problem").write_bytes(b"".join(parts))
    done = subprocess.run([program, folder / "problem", folder / "result"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = torch.frombuffer(bytearray((folder / "result").read_bytes()), dtype=hidden.dtype)
    return result[: len(boxes) * C].view(-1, C), result[len(boxes) * C :].view(B, H * W, C)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("sizes", "grid", "C", "skip", "vector"),
    [
        ([1], (1, 1), 1, 0, 1),  # sizes: boxes of each image
        ([2, 0, 3], (3, 5), 33, 1, 1),
        ([40, 1], (4, 3), 40, 1, 16),  # more boxes than lanes; 16: bytes read at a time
        ([0, 300], (2, 2), 8, 0, 16),  # more boxes than threads
        ([1, 3], (20, 17), 264, 1, 16),  # more cells than threads; a last slice that is not full
    ],
    ids=str,
)
def test_kernels_equal_the_reference(program, tmp_path, sizes, grid, C, skip, vector, dtype):
    torch.manual_seed(0)
    B, R, (H, W) = len(sizes), sum(sizes), grid
    hidden = torch.randn(B, skip + H * W, C).to(dtype).requires_grad_()
    image_index = torch.arange(B).repeat_interleave(torch.tensor(sizes))[torch.randperm(R)]
    corners = (torch.rand(R, 2, 2) * 1.6 - 0.3).sort(1).values  # inside, across and beyond the border
    boxes = corners.reshape(R, 4)
    boxes[R // 2] = boxes[R // 2].flip(0)  # inverted
    grad_out = torch.randn(R, C).to(dtype)
    width = vector if vector == 1 else 16 // hidden.element_size()
    out, grad = run(program("region_embedding"), tmp_path, width, hidden, skip, boxes, image_index, grid, grad_out)
    expected = reference.region_embedding(hidden[:, skip:], boxes, image_index, grid)
    (expected_grad,) = torch.autograd.grad(expected, hidden, grad_out)
    rounding = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 8 * torch.finfo(dtype).eps}
    torch.testing.assert_close(out, expected, **rounding)
    torch.testing.assert_close(grad, expected_grad[:, skip:], **rounding)
