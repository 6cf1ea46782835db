"""The model in CLIP_benchmark: its loader entries, and its command with them.

``python -m fgclip_fast.integrations.clip_benchmark eval --model_type fgclip --model runs/mine …`` is CLIP_benchmark's
own command, which knows the types ``fgclip`` and ``fgclip-long`` then; the latter takes texts by the long path.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgclip_fast.inputs.image import Transform
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.integrations import padded_ids
from fgclip_fast.model.fgclip import FGCLIP, Kind
from fgclip_fast.model.pretrained import load as load_model
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH

__all__ = ["Benchmarked", "PaddedTokenizer", "load", "register"]


class PaddedTokenizer:
    """Turns texts into padded rows of ids, as CLIP_benchmark passes them: int64 Tensor[N, 77], or [N, 248] if long.

    Args:
        tokenizer: the model's.
        kind: the path of the texts.
    """

    def __init__(self, tokenizer: Tokenizer, kind: Kind = "short") -> None:
        self._tokenizer, self._length = tokenizer, LONG_LENGTH if kind == "long" else SHORT_LENGTH

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Encode one text or several."""
        tokens = self._tokenizer([texts] if isinstance(texts, str) else texts, self._length)
        return padded_ids.padded(tokens, self._length)


class Benchmarked(nn.Module):
    """The model as CLIP_benchmark calls it. Embeddings are not normalised.

    Args:
        model: the model.
        kind: the path of the texts.
    """

    def __init__(self, model: FGCLIP, kind: Kind = "short") -> None:
        super().__init__()
        self.model, self._long = model, kind == "long"

    def encode_image(self, images: Tensor) -> Tensor:
        """Tensor[B, D] of the uint8 Tensor[B, 3, S, S] that the transform gives."""
        return self.model.encode_image(images, normalize=False)

    @torch.no_grad()
    def encode_text(self, ids: Tensor) -> Tensor:
        """Tensor[N, D] of what :class:`PaddedTokenizer` gives."""
        found = self.model.encode_tokens(padded_ids.packed(ids, self._long).to(self.model.device))
        return found[1] if self._long else found[0]


def load(
    model_name: str,
    pretrained: str = "",
    cache_dir: str | None = None,
    device: str | torch.device = "cpu",
    *,
    kind: Kind = "short",
) -> tuple[Benchmarked, Transform, PaddedTokenizer]:
    """Load a model as CLIP_benchmark's loaders do: ``(model, transform, tokenizer)``.

    Args:
        model_name: what :func:`fgclip_fast.load` takes: a run, a folder of weights, or a name on a hub.
        pretrained: a name for the table of results; the weights are those of ``model_name``.
        cache_dir: not used.
        device: where the model goes.
        kind: the path of the texts.

    Raises:
        FileNotFoundError, ValueError: as of :func:`fgclip_fast.load`.
    """
    model = load_model(model_name, device=device).eval()
    return Benchmarked(model, kind).eval(), model.transform, PaddedTokenizer(model.tokenizer, kind)


def register() -> None:
    """Add the types ``fgclip`` and ``fgclip-long`` to CLIP_benchmark's table of loaders.

    Raises:
        ImportError: CLIP_benchmark is not installed.
    """
    models = _imported("clip_benchmark.models")
    kinds: dict[str, Kind] = {"fgclip": "short", "fgclip-long": "long"}
    for name, kind in kinds.items():
        models.TYPE2FUNC[name] = partial(load, kind=kind)
        if name not in models.MODEL_TYPES:
            models.MODEL_TYPES.append(name)


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        needs = f"this integration needs CLIP_benchmark ({error})"
        raise ImportError(f"{needs}: pip install 'fgclip_fast[clip-benchmark]'") from None


if __name__ == "__main__":
    register()
    sys.exit(_imported("clip_benchmark.cli").main())
