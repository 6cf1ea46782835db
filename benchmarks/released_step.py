"""FG-CLIP's stage-2 step as released, in fp32: the peer of bench_train_step.py, with no code of this package.

It follows the released training code stage by stage: the CLIP classes of transformers with eager attention, texts
padded to 77 and 248, four passes through the text tower, regions and hard positives pooled apart by torchvision on the
projected map, each image's slots for boxes padded to four. Two casts of pooled regions to bf16 are left out, since in
fp32 the released code raises there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align
from transformers import CLIPConfig, CLIPModel

from benchmarks.released_inputs import SLOTS, Inputs

EOS = 49407
KEPT = 20  # positions of the long path that come from position_embedding_ori


class Released(CLIPModel):
    """CLIP with FG-CLIP's additions under their released names, spellings included."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        embeddings, width = self.text_model.embeddings, config.text_config.hidden_size
        embeddings.position_embedding_res = nn.Embedding(248, width)
        embeddings.position_embedding_ori = nn.Embedding(248, width)
        self.text_filip_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.logit_scale_finegraind = nn.Parameter(torch.ones([]) * config.logit_scale_init_value)
        self.logit_scale_hardneg = nn.Parameter(torch.ones([]) * config.logit_scale_init_value)
        self.register_buffer("mask1", (torch.arange(248)[:, None] < KEPT).float(), persistent=False)
        self.register_buffer("mask2", 1 - self.mask1, persistent=False)

    def encode_text(self, ids: Tensor, short: bool) -> Tensor:
        """Tensor[N, L] of ids -> Tensor[N, D]; no padding mask is passed."""
        N, L = ids.shape
        embeddings, position = self.text_model.embeddings, torch.arange(L, device=ids.device)
        if short:
            hidden = embeddings.token_embedding(ids) + embeddings.position_embedding(position)
        else:
            ori = embeddings.position_embedding_ori(position) * self.mask1
            hidden = embeddings.token_embedding(ids) + ori + embeddings.position_embedding_res(position) * self.mask2
        causal = hidden.new_full((L, L), torch.finfo(hidden.dtype).min).triu(1).expand(N, 1, L, L)
        hidden = self.text_model.encoder(inputs_embeds=hidden, attention_mask=causal).last_hidden_state
        hidden = self.text_model.final_layer_norm(hidden)
        pooled = hidden[torch.arange(N, device=ids.device), (ids == EOS).int().argmax(-1)]
        return (self.text_projection if short else self.text_filip_projection)(pooled)

    def encode_image(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings Tensor[B, D], and the hidden states that enter the last block, Tensor[B, 1 + GG, width]."""
        vision = self.vision_model
        hidden = vision.pre_layrnorm(vision.embeddings(image))
        for layer in vision.encoder.layers:
            before_last, hidden = hidden, layer(hidden, None)
        return self.visual_projection(vision.post_layernorm(hidden[:, 0])), before_last

    def dense(self, hidden: Tensor) -> Tensor:
        """The last block with attention replaced by its value path; the map Tensor[B, D, G, G]."""
        last, vision = self.vision_model.encoder.layers[-1], self.vision_model
        hidden = hidden + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(hidden)))
        hidden = hidden + last.mlp(last.layer_norm2(hidden))
        tokens = self.visual_projection(vision.post_layernorm(hidden[:, 1:]))
        grid = int(tokens.shape[1] ** 0.5)
        return tokens.view(len(tokens), grid, grid, -1).permute(0, 3, 1, 2)

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:  # type: ignore[override]
        """The four terms and their sum."""
        image, hidden = self.encode_image(inputs.image)
        long = self.encode_text(inputs.text_long, short=False)
        short = self.encode_text(inputs.text_short, short=True)
        scale = self.logit_scale.exp()
        terms = {"short": contrast(image, short, scale), "long": contrast(image, long, scale)}

        dense = self.dense(hidden)
        regions = pool(dense, inputs.boxes, inputs.box_nums)
        texts = self.encode_text(inputs.box_texts, short=True)[_filled(inputs.box_nums)]
        terms["region"] = contrast(regions, texts, self.logit_scale_finegraind.exp())

        regions = unit(pool(dense, inputs.hard_boxes, inputs.hard_nums))
        texts = unit(self.encode_text(inputs.hard_texts, short=True)).view(len(regions), -1, regions.shape[1])
        logits = self.logit_scale_hardneg.exp() * torch.einsum("rd,rkd->rk", regions, texts)
        positive = torch.zeros(len(regions), dtype=torch.long, device=regions.device)
        terms["hard_negative"] = F.cross_entropy(logits, positive)
        total = terms["short"] + terms["long"] + 0.1 * terms["region"] + 0.5 * terms["hard_negative"]
        return {"total": total, **terms}


def unit(x: Tensor) -> Tensor:
    """Rows of length 1."""
    return x / x.norm(p=2, dim=-1, keepdim=True)


def contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over this process's rows."""
    logits = scale * unit(image) @ unit(text).t()
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2


def pool(dense: Tensor, boxes: Tensor, counts: list[int]) -> Tensor:
    """RoIAlign of all slots on the projected map in fp32; of the results only the slots that hold a box."""
    grid = dense.shape[-1]
    pooled = roi_align(dense.float(), list(boxes * grid), (1, 1), 1.0, -1, True).squeeze(-1).squeeze(-1)
    return pooled[_filled(counts)]


def _filled(counts: list[int]) -> Tensor:
    return torch.tensor([SLOTS * image + n for image, count in enumerate(counts) for n in range(count)])
