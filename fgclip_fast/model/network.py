"""FG-CLIP: two towers, three projections, three scales; parameter names are those of the released state dict."""

import torch
from torch import Tensor, nn

from fgclip_fast.config.model import Model
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.model.config_json import LOGIT_SCALE
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.mimetic import start_local
from fgclip_fast.model.text import TextTower
from fgclip_fast.model.vision import VisionTower
from fgclip_fast.ops import region_embedding


class Network(nn.Module):
    """The parameters and passes of FG-CLIP; :class:`fgclip_fast.FGCLIP` adds the calls for images and strings.

    Embeddings leave it in fp32 and of any length; under bf16 autocast the towers' matrix products are bf16, while
    LayerNorm, the residual stream and the projections stay fp32.
    """

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTower(config)
        self.vision_model = VisionTower(config)
        self.visual_projection = nn.Linear(config.vision.width, config.projection, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.projection, bias=False)
        self.text_filip_projection = nn.Linear(config.text.width, config.projection, bias=False)  # of the long path
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_scale_finegraind = nn.Parameter(torch.empty(()))  # of the region term; spelt as released
        self.logit_scale_hardneg = nn.Parameter(torch.empty(()))
        if not self.logit_scale.is_meta:  # what has no values waits for those of a file
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill every parameter as CLIP does, from torch's global generator; with local attention if the config says so.

        LayerNorms keep the ones and zeros of their constructor. The order of the calls is part of what a seed means.
        """
        config = self.config
        self.text_model.embeddings.reset_parameters()
        self.vision_model.embeddings.reset_parameters()
        self.text_model.encoder.reset_parameters(config.text.width)
        self.vision_model.encoder.reset_parameters(config.vision.width)
        for projection in (self.visual_projection, self.text_projection, self.text_filip_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        for scale in (self.logit_scale, self.logit_scale_finegraind, self.logit_scale_hardneg):
            nn.init.constant_(scale, LOGIT_SCALE)
        if config.mimetic:
            start_local(self.vision_model, config.vision)

    def forward(self, batch: Batch, known: Embeddings | None = None) -> Embeddings:
        """Embeddings of all that a batch holds; the vision tower runs once, each path of the text tower once.

        Args:
            batch: images, boxes and texts.
            known: embeddings of the same batch by the same weights. Those of a tower that is held still, with its
                projections, are taken from there, and it does not run.
        """
        B, R = len(batch.image), len(batch.boxes)
        rows = [B, R, batch.texts.shorts - B - R]
        if known is None or _trains(self.text_model, self.text_projection, self.text_filip_projection):
            short_path, long = self.encode_tokens(batch.texts)
            short, region_texts, hard_texts = short_path.split(rows)
        else:
            short, region_texts, hard_texts, long = known.short, known.region_texts, known.hard_texts, known.long
        if known is None or _trains(self.vision_model, self.visual_projection):
            image, regions = self.encode_pixels(batch.image, batch.boxes, batch.image_index)
        else:
            image, regions = known.image, known.regions
        short_ids, region_ids, _, long_ids = batch.text_ids.split([*rows, B])
        return Embeddings(
            image=image,
            short=short,
            long=long,
            regions=regions,
            region_texts=region_texts,
            hard_texts=hard_texts,
            hard_region=batch.hard_region,
            hard_offsets=batch.hard_offsets,
            short_ids=short_ids,
            long_ids=long_ids,
            region_ids=region_ids,
            scale=self.logit_scale.exp(),
            region_scale=self.logit_scale_finegraind.exp(),
            hard_scale=self.logit_scale_hardneg.exp(),
        )

    def encode_pixels(self, image: Tensor, boxes: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of whole images and of boxes in them, in one pass.

        Args:
            image: Tensor[B, 3, S, S], uint8; floating point pixels are taken as normalised already.
            boxes: Tensor[R, 4], fp32, xyxy as fractions of the image.
            image_index: Tensor[R], int64: the image of each box.

        Returns:
            Tensor[B, D] and Tensor[R, D], fp32.
        """
        self._check(image)
        whole, patches = self.vision_model(image, dense=boxes.shape[0] > 0)
        embeddings = _project(self.visual_projection, whole)
        if patches is None:
            return embeddings, embeddings[:0]
        grid = (self.config.vision.grid,) * 2
        # The projection has no bias, so it commutes with the mean over a box: R rows are projected, not B · HW.
        regions = region_embedding(patches, boxes, image_index, grid)
        return embeddings, _project(self.visual_projection, regions)

    def encode_patches(self, image: Tensor) -> Tensor:
        """Dense embeddings, Tensor[B, HW, D], row by row, of Tensor[B, 3, S, S] as :meth:`encode_pixels` takes it."""
        self._check(image)
        _, patches = self.vision_model(image, dense=True)
        return _project(self.visual_projection, patches)

    def encode_tokens(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Embeddings of texts of both paths, on the model's device.

        Returns:
            Tensor[shorts, D] and Tensor[M - shorts, D], fp32.
        """
        short, long = self.text_model(texts)
        return _project(self.text_projection, short), _project(self.text_filip_projection, long)

    def _check(self, image: Tensor) -> None:
        size = self.config.vision.image_size
        if image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"model: image must be [B, 3, {size}, {size}], got {list(image.shape)}")


def _trains(*modules: nn.Module) -> bool:
    return any(parameter.requires_grad for module in modules for parameter in module.parameters())


def _project(projection: nn.Linear, features: Tensor) -> Tensor:
    """The joint embedding in fp32, also under autocast: few rows, whose cosines are multiplied by up to 100."""
    with torch.autocast(features.device.type, enabled=False):
        return projection(features.float())
