"""Triton runs in its interpreter where there is no GPU; this must be set before anything imports Triton."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def device() -> torch.device:
    """Where ops are tested: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
