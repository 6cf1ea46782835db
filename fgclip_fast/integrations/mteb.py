"""The model as an encoder of mteb, for its tasks of images and texts.

For example: ``mteb.evaluate(FGCLIPEncoder("runs/mine"), mteb.get_tasks(["Winoground"]))``.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
except ImportError:
    raise ImportError("this integration needs mteb 2 or newer: pip install 'fgclip_fast[mteb]'") from None

from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP, Kind
from fgclip_fast.model.fingerprint import weights_hash
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH

__all__ = ["FGCLIPEncoder"]


class FGCLIPEncoder(AbsEncoder):
    """An encoder of mteb's: texts, images, or both, whose unit embeddings are then added, as mteb's own CLIPs do it.

    mteb keeps results by the model's name and revision: the revision is a hash of the weights.

    Args:
        model: a model, or what :func:`fgclip_fast.load` takes.
        kind: path of texts: "short", up to 77 tokens, or "long", up to 248; longer ones are cut.
        device: where the model goes; None leaves it where it is.
        name: for mteb's results, ``organisation/model``; None is ``fgclip_fast/`` and the name of the folder.
    """

    def __init__(
        self,
        model: FGCLIP | str | Path,
        kind: Kind = "short",
        device: str | torch.device | None = None,
        name: str | None = None,
    ) -> None:
        if kind not in ("short", "long"):
            raise ValueError(f"FGCLIPEncoder: kind must be 'short' or 'long', got {kind!r}")
        self.model = model if isinstance(model, FGCLIP) else pretrained.load(model)
        self.model.to(device or self.model.device).eval()
        self.kind = kind
        folder = "model" if isinstance(model, FGCLIP) else Path(model).resolve().name
        self.mteb_model_meta = _meta(self.model, name or f"fgclip_fast/{folder}", kind)

    def encode(self, inputs: Any, *, show_progress_bar: bool = False, **options: Any) -> Tensor:
        """Embed the inputs of a task.

        Args:
            inputs: mteb's loader of batches, each with ``text``, ``image`` (PIL) or both.
            show_progress_bar: not used: mteb shows the progress of its tasks.
            options: what mteb tells of the task; no prompt is added to a text.

        Returns:
            Tensor[N, D], fp32 unit rows on the CPU.

        Raises:
            ValueError: a batch without texts and images.
        """
        found = [self._encode_batch(batch) for batch in inputs]
        return torch.cat(found) if found else torch.empty(0, self.model.config.projection)

    def _encode_batch(self, batch: dict[str, Any]) -> Tensor:
        parts = []
        if batch.get("text") is not None:
            parts.append(self.model.encode_text(list(batch["text"]), kind=self.kind))
        if batch.get("image") is not None:
            parts.append(self.model.encode_image(list(batch["image"])))
        if not parts:
            raise ValueError(f"FGCLIPEncoder: a batch must hold text or image, got {', '.join(batch) or 'nothing'}")
        return F.normalize(sum(parts[1:], parts[0]).float(), dim=-1).cpu()


def _meta(model: FGCLIP, name: str, kind: Kind) -> ModelMeta:
    return ModelMeta(
        loader=None,
        name=name,
        revision=weights_hash(model),
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        memory_usage_mb=None,
        max_tokens=LONG_LENGTH if kind == "long" else SHORT_LENGTH,
        embed_dim=model.config.projection,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        training_datasets=None,
        modalities=["image", "text"],
    )
