"""Presets: configs with a name, of which a config file or a flag can override any field."""

from dataclasses import replace

from fgclip_fast.config import Config, Data, Loss, Optim
from fgclip_fast.config.model import Model, Text, Vision

B16 = Model(packing="prefix-tree")
L14 = Model(
    vision=Vision(image_size=336, patch_size=14, width=1024, layers=24, heads=16, mlp=4096),
    text=Text(width=768, heads=12, mlp=3072),
    projection=768,
    packing="prefix-tree",
)

# A network of 6 M parameters that learns the embedded set from random weights on two CPU cores. Since no stage 1 comes
# before it, the global terms weigh a tenth: with more, shape, pattern and size would not be learned.
TINY = Config(
    model=Model(
        vision=Vision(image_size=96, patch_size=8, width=128, layers=3, heads=4, mlp=512),
        text=Text(width=96, layers=1, heads=4, mlp=384),
        projection=96,
        mimetic=True,
        packing="prefix-tree",
    ),
    data=Data(train="scenes", box_margin=3.0),
    loss=Loss(short=0.1, long=0.1, region=0.1, hard_negative=0.5),
    optim=Optim(lr=1e-3, weight_decay=0.05, decay_scales=False, betas=(0.9, 0.98), warmup=100, clip=1.0),
    batch_size=16,
    steps=2750,
    eval_every=550,
)

# Stage 1 as the paper describes it, stage 2 as the released scripts run it (docs/fgclip.md).
_STAGE1 = Config(
    loss=Loss(region=0.0, hard_negative=0.0),
    optim=Optim(lr=1e-4, weight_decay=0.05, betas=(0.9, 0.98)),
    batch_size=384,
    precision="bf16",
)
_STAGE2 = Config(optim=Optim(lr=1e-6, weight_decay=0.001), batch_size=512, precision="bf16")
# For a user's own small data set: every region in its turn, a low learning rate, a small batch, equal captions not
# taken for negatives, and the scales that FG-CLIP has learned.
_FINETUNE = Config(
    data=Data(region_choice="random"),
    loss=Loss(mask_equal_texts=True),
    optim=Optim(lr=2e-6, weight_decay=0.001, warmup=0.1, clip=1.0),
    keep_scales=True,
    batch_size=64,
    epochs=10,
    eval_every="epoch",
    precision="auto",
)

# By count, a pass of 128 images with four hard regions each takes 68 GB of a card's 80, and one of 512 takes 218
# (python -m benchmarks.roofline_step --preset stage2-vit-l14); ViT-B/16 at 512 takes 65.
_L14_PASS = 128


def _sized(run: Config, model: Model, workers: int = 8) -> Config:
    """A run for a model of another size, without shards: these the user must name."""
    return replace(run, model=model, data=replace(run.data, train="", val="", workers=workers))


PRESETS: dict[str, Config] = {
    "tiny": TINY,
    "stage1-vit-b16": _sized(_STAGE1, B16),
    "stage1-vit-l14": _sized(replace(_STAGE1, micro_batch_size=_L14_PASS), L14),
    "stage2-vit-b16": _sized(_STAGE2, B16),
    "stage2-vit-l14": _sized(replace(_STAGE2, micro_batch_size=_L14_PASS), L14),
    "finetune-vit-b16": _sized(_FINETUNE, B16, workers=2),
    "finetune-vit-l14-336": _sized(_FINETUNE, L14, workers=2),
}
