"""A small model with nothing at zero, and one export of it for each format."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fgclip_fast.export import __main__ as export
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model."""
    torch.manual_seed(0)
    model = FGCLIP(MINI)
    with torch.no_grad():
        for parameter in model.parameters():  # biases too, which start at zero
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.fixture(scope="session")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export the model once: format and further words → folder."""
    known: dict[tuple[str, ...], Path] = {}

    def call(*words: str) -> Path:
        if words not in known:
            known[words] = tmp_path_factory.mktemp("exported") / words[0]
            export.main([str(folder), "--format", *words, "--output", str(known[words])])
        return known[words]

    return call
