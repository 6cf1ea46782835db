"""The model as a class of transformers; importing this file lets ``AutoModel`` load it whole, without remote code.

``config.json`` of FG-CLIP is that of a CLIP whose ``architectures`` name an ``FGCLIPModel``. So ``AutoConfig`` reads it
as it is, and this file adds :class:`FGCLIPModel` to the models of that config: folders of other CLIPs go on to give
transformers' ``CLIPModel``.
"""

from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import transformers
    from transformers import AutoModel, CLIPConfig, CLIPModel, PreTrainedModel
    from transformers.models.clip.modeling_clip import CLIPOutput
except ImportError:
    raise ImportError("this integration needs transformers: pip install 'fgclip_fast[transformers]'") from None

from fgclip_fast.integrations import padded_ids
from fgclip_fast.model import boxes, config_json
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.pretrained import PRODUCTS, product_dtype
from fgclip_fast.ops import contrastive_loss

__all__ = ["FGCLIPModel"]
# What from_pretrained calls the dtype of weights.
_DTYPE = "dtype" if tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56) else "torch_dtype"


class FGCLIPModel(PreTrainedModel):
    """FG-CLIP with the calls of its released code and of transformers' ``CLIPModel``.

    Pixels are Tensor[B, 3, S, S], as ``AutoProcessor`` makes them; ids are Tensor[N, L], as ``AutoTokenizer`` makes
    them, with ``max_length=248`` for the long path. The ``get_`` calls return embeddings of any length, fp32, and are
    differentiable wherever gradients are enabled.

    Attributes:
        fgclip: the same weights as a :class:`fgclip_fast.FGCLIP`, which takes files, strings and boxes in pixels.
    """

    config_class = CLIPConfig
    fgclip: FGCLIP

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        whole = FGCLIP(config_json.geometry(config.to_dict(), "config"))
        for name, part in whole.named_children():
            self.add_module(name, part)
        for name, parameter in whole.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        # Two faces of one set of weights: whatever replaces a parameter here replaces it there.
        whole._modules, whole._parameters = self._modules, self._parameters
        object.__setattr__(self, "fgclip", whole)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike | None, *arguments: Any, **options: Any
    ) -> Any:
        """Load a folder or a name on the hub; the options are transformers'.

        ``dtype`` (``torch_dtype``) is that of the products inside the blocks; LayerNorms, the residual stream,
        projections and embeddings are fp32, as by :func:`fgclip_fast.load`.

        Raises:
            ValueError: the weights are not a whole FG-CLIP's.
        """
        path = pretrained_model_name_or_path
        asked = [options.pop(name, None) for name in ("dtype", "torch_dtype")]
        products = product_dtype(next((x for x in asked if x not in (None, "auto")), None))
        options[_DTYPE] = torch.float32
        with_info = options.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(path, *arguments, output_loading_info=True, **options)
        model, info = loaded
        if missing := sorted(info["missing_keys"]):
            hint = "fgclip_fast.load makes an FG-CLIP of a CLIP"
            raise ValueError(f"FGCLIPModel: {path} lacks {len(missing)} tensors, the first: {missing[0]}; {hint}")
        for name, parameter in model.named_parameters():
            if PRODUCTS.search(name):
                parameter.data = parameter.data.to(products)
        return (model, info) if with_info else model

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Embeddings of images, Tensor[B, D]."""
        none = pixel_values.new_empty(0, 4), torch.empty(0, dtype=torch.int64, device=pixel_values.device)
        return self.fgclip.encode_pixels(pixel_values, *none)[0]

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, walk_short_pos: bool = True
    ) -> Tensor:
        """Embeddings of texts, Tensor[N, D].

        Args:
            input_ids: Tensor[N, L], L up to 77 on the short path, 248 on the long one.
            attention_mask: without effect: what stands behind the end of a text cannot change it.
            walk_short_pos: True: the short path, for captions and phrases; False: the long one.

        Raises:
            ValueError: a row without an end of text, or longer than its path.
        """
        return self.fgclip.encode_tokens(padded_ids.packed(input_ids, not walk_short_pos))[not walk_short_pos]

    def get_image_dense_features(self, pixel_values: Tensor) -> Tensor:
        """Embeddings of patches, row by row, Tensor[B, HW, D]."""
        return self.fgclip.encode_patches(pixel_values)

    def get_image_box_roi_features(self, pixel_values: Tensor, box_info: Any) -> Tensor:
        """Embeddings of boxes, those of the first image first, Tensor[R, D].

        Args:
            pixel_values: Tensor[B, 3, S, S].
            box_info: the boxes of each image, [n, 4] xyxy, as fractions of its width and height; n may be 0.

        Raises:
            ValueError: a box without area or outside; the message names it.
        """
        flat, image = boxes.flatten(box_info, [(1, 1)] * len(pixel_values), "fraction")
        return self.fgclip.encode_pixels(pixel_values, flat.to(self.device), image.to(self.device))[1]

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        return_loss: bool = False,
        walk_short_pos: bool = True,
    ) -> CLIPOutput:
        """Embeddings of length 1 and logits of images and texts, as ``CLIPModel`` gives them.

        With ``return_loss`` also the symmetric contrastive loss of N pairs.
        """
        image = F.normalize(self.get_image_features(pixel_values), dim=-1)
        text = F.normalize(self.get_text_features(input_ids, attention_mask, walk_short_pos), dim=-1)
        scale = self.fgclip.logit_scale.exp()
        logits = scale * text @ image.T
        return CLIPOutput(
            loss=contrastive_loss(image, text, scale) if return_loss else None,
            logits_per_image=logits.T,
            logits_per_text=logits,
            text_embeds=text,
            image_embeds=image,
        )

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave what the constructor filled: :meth:`from_pretrained` refuses missing weights."""


# The first is for CLIPs; the one that a folder's `architectures` name goes before it. AutoModel alone: before 5.0 the
# pipelines of other tasks fail on a pair.
AutoModel.register(CLIPConfig, (CLIPModel, FGCLIPModel), exist_ok=True)
