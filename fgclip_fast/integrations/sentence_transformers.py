"""The model as a module of sentence-transformers: texts and images in, one embedding each out, and training through it.

For example: ``SentenceTransformer(modules=[FGCLIPModule("runs/mine")])``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    from sentence_transformers.base.modality import infer_batch_modality, raise_unsupported_modality_error
    from sentence_transformers.base.modules import InputModule
    from sentence_transformers.util import load_dir_path
except ImportError:
    needs = "this integration needs sentence-transformers 5.4 or newer"
    raise ImportError(f"{needs}: pip install 'fgclip_fast[sentence-transformers]'") from None

from fgclip_fast.integrations import padded_ids
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP, Kind
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH

__all__ = ["FGCLIPModule"]


class FGCLIPModule(InputModule):
    """The first and only module of a ``SentenceTransformer``; what it saves is a folder of the released layout.

    A batch holds texts, or images (PIL images, or paths that end as image files do). ``encode(texts, kind="long")``
    takes the long path for one call. ``encode(…, normalize_embeddings=True)`` scales to unit length.

    Args:
        model: a model, or what :func:`fgclip_fast.load` takes.
        kind: path of texts: "short", up to 77 tokens, or "long", up to 248; longer ones are cut.
    """

    config_file_name = "sentence_fgclip_config.json"
    config_keys = ["kind"]  # noqa: RUF012
    forward_kwargs = {"kind"}  # noqa: RUF012

    def __init__(self, model: FGCLIP | str | Path, kind: Kind = "short") -> None:
        super().__init__()
        self.model = model if isinstance(model, FGCLIP) else pretrained.load(model)
        self.tokenizer = self.model.tokenizer  # type: ignore[assignment]  # ours
        self.kind = _checked(kind)

    @property
    def modalities(self) -> list[Any]:
        """What a batch may hold."""
        return ["text", "image"]

    @property
    def max_seq_length(self) -> int:
        """Most tokens of a text."""
        return _most(self.kind)

    def get_embedding_dimension(self) -> int:
        """Width D of an embedding."""
        return self.model.config.projection

    get_sentence_embedding_dimension = get_embedding_dimension

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        kind: Kind | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Make tensors of texts or images.

        Args:
            inputs: texts, or images.
            prompt: put before each text.
            kind: path of the texts; None: the module's.
            max_length: most tokens of a text, below the path's own limit.
            options: of other modules, without effect.

        Returns:
            ``input_ids``, Tensor[N, L], int64, padded with EOS, or ``pixel_values``, uint8 Tensor[N, 3, S, S].

        Raises:
            ValueError: texts and images in one batch, or something else.
        """
        modality = infer_batch_modality(inputs, supported_modalities=self.modalities)
        if modality == "image":
            pictures = [entry["image"] if isinstance(entry, dict) else entry for entry in inputs]
            return {"pixel_values": torch.stack([self.model.transform(picture) for picture in pictures])}
        if modality != "text":
            raise_unsupported_modality_error(list(inputs), modality, self.modalities, type(self).__name__)
        most = min(_most(_checked(kind or self.kind)), max_length or LONG_LENGTH)
        texts = [(prompt or "") + (entry["text"] if isinstance(entry, dict) else entry) for entry in inputs]
        return {"input_ids": padded_ids.padded(self.model.tokenizer(texts, most))}

    def forward(self, features: dict[str, Any], kind: Kind | None = None, **options: Any) -> dict[str, Any]:
        """Add ``sentence_embedding`` to what :meth:`preprocess` made: Tensor[N, D], of any length, differentiable."""
        if "pixel_values" in features:
            pixels = features["pixel_values"]
            none = torch.empty(0, 4), torch.empty(0, dtype=torch.int64)
            embedding = self.model.encode_pixels(pixels, *(x.to(pixels.device) for x in none))[0]
        else:
            long = _checked(kind or self.kind) == "long"
            embedding = self.model.encode_tokens(padded_ids.packed(features["input_ids"], long))[long]
        return {**features, "sentence_embedding": embedding}

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """Write a folder that :func:`fgclip_fast.load` reads too."""
        self.model.save(output_path)
        self.save_config(output_path)

    @classmethod
    def load(  # type: ignore[override]  # the names of the source go through, as in its own modules
        cls, model_name_or_path: str, subfolder: str = "", model_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> "FGCLIPModule":
        """Read such a folder; ``model_kwargs={"dtype": "bfloat16"}`` is the ``dtype`` of :func:`fgclip_fast.load`."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        source = {name: options[name] for name in names if name in options}
        settings = cls.load_config(model_name_or_path, subfolder=subfolder, **source)
        folder = load_dir_path(model_name_or_path, subfolder=subfolder, **source)
        if folder is None:
            raise FileNotFoundError(f"FGCLIPModule: {model_name_or_path} holds no {subfolder or 'model'}")
        return cls(pretrained.load(folder, dtype=(model_kwargs or {}).get("dtype")), **settings)


def _checked(kind: Kind) -> Kind:
    if kind not in ("short", "long"):
        raise ValueError(f"FGCLIPModule: kind must be 'short' or 'long', got {kind!r}")
    return kind


def _most(kind: Kind) -> int:
    return SHORT_LENGTH if kind == "short" else LONG_LENGTH
