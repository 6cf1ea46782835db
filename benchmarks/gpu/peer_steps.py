"""The step of the released code and of open_clip beside ours."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.gpu import step_speed
from benchmarks.gpu.case import Case, Figures
from benchmarks.gpu.peers import clip_loss
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.step_speed import measured
from benchmarks.workload import stage2
from fgclip_fast.model.config_json import write

TEXT_LENGTH = 77


def cases(sizes: Sizes) -> Iterator[Case]:
    """Ours and the released step on equally many images; then CLIP's plain step, which has one text an image."""
    yield step_speed.case(sizes, sizes.peer_images, "FineHARD", "ours", {})
    for precision in ("bf16 autocast", "fp32"):
        name = f"{sizes.peer_images} images, FineHARD, released step in {precision}"
        yield Case(name, partial(_released, sizes, precision == "fp32"))
    yield Case(f"{sizes.steps[0]} images, one text each, open_clip's CLIP", lambda: _open_clip(sizes))


def _released(sizes: Sizes, single: bool) -> Figures:
    from transformers import CLIPConfig

    from benchmarks.released_inputs import Inputs
    from benchmarks.released_step import EOS, Released

    B = sizes.peer_images
    hard = [int((i + 1) * step_speed.FINEHARD) - int(i * step_speed.FINEHARD) for i in range(B)]
    _, inputs = stage2(sizes.model, [4] * B, hard)
    inputs = Inputs(*(x.to(sizes.device) if isinstance(x, Tensor) else x for x in inputs))
    with TemporaryDirectory() as folder:
        write(Path(folder) / "config.json", sizes.model)
        stored = json.loads((Path(folder) / "config.json").read_text())
    stored["text_config"]["eos_token_id"] = EOS
    model = Released(CLIPConfig(**stored, attn_implementation="eager")).to(sizes.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.001)

    def step() -> None:
        with torch.autocast(sizes.device.type, torch.bfloat16, enabled=not single):
            total = model(inputs)["total"]
        _update(total, optimizer)

    return measured(step, sizes, B)


def _open_clip(sizes: Sizes) -> Figures:
    import open_clip

    vision, text, B = sizes.model.vision, sizes.model.text, sizes.steps[0]
    model: nn.Module = open_clip.CLIP(
        embed_dim=sizes.model.projection,
        vision_cfg=open_clip.CLIPVisionCfg(layers=vision.layers, width=vision.width, patch_size=vision.patch_size,
                                           image_size=vision.image_size, head_width=vision.width // vision.heads,
                                           mlp_ratio=vision.mlp / vision.width),
        text_cfg=open_clip.CLIPTextCfg(width=text.width, layers=text.layers, heads=text.heads,
                                       mlp_ratio=text.mlp / text.width),
        quick_gelu=True,
    ).to(sizes.device)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.001, fused=True)
    image = torch.randn(B, 3, vision.image_size, vision.image_size, device=sizes.device)
    token = torch.randint(1, 49000, (B, TEXT_LENGTH), device=sizes.device)

    def step() -> None:
        with torch.autocast(sizes.device.type, torch.bfloat16):
            loss = clip_loss(*model(image, token)[:3])
        _update(loss, optimizer)

    return measured(step, sizes, B)


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
