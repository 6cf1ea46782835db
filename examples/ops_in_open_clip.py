"""The losses alone in an open_clip training loop: contrastive over the batch, and hard negatives of each image."""

import open_clip
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fgclip_fast.ops import contrastive_loss, hard_negative_loss, hard_negative_scores

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")


def make_data(size: int) -> tuple[Tensor, list[list[str]]]:
    """One image of each colour and shape, and its texts: the right one, then the same shape in other colours."""
    images, texts = [], []
    for colour in COLOURS:
        for shape in SHAPES:
            image = Image.new("RGB", (size, size), "white")
            draw = ImageDraw.Draw(image)
            corners = (size // 4, size // 4, 3 * size // 4, 3 * size // 4)
            (draw.ellipse if shape == "circle" else draw.rectangle)(corners, fill=colour)
            images.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(size, size, 3))
            wrong = [other for other in COLOURS if other != colour]
            texts.append([f"a {colour} {shape}", *(f"a {other} {shape}" for other in wrong)])
    return torch.stack(images).permute(0, 3, 1, 2).float() / 127.5 - 1, texts


def main(steps: int = 40) -> float:
    """Train a small CLIP; returns the share of images whose right text is the most similar of its group."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=64,
        vision_cfg={"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64},
        text_cfg={"layers": 2, "width": 64, "heads": 2},
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, groups = make_data(size=64)
    token = open_clip.get_tokenizer("ViT-B-32")([text for group in groups for text in group])
    # Group i is texts[offsets[i]:offsets[i + 1]], and its first text is the right one. Groups may differ in size.
    offsets = torch.tensor([0, *map(len, groups)]).cumsum(0)
    for step in range(steps):
        image, text, scale = model.encode_image(images), model.encode_text(token), model.logit_scale.exp()
        loss = contrastive_loss(image, text[offsets[:-1]], scale) + 0.5 * hard_negative_loss(
            image, text, offsets, scale
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    with torch.no_grad():
        right = hard_negative_scores(model.encode_image(images), model.encode_text(token), offsets).correct
    print(f"right text of {len(groups[0])}: {right.float().mean():.0%}")
    return right.float().mean().item()


if __name__ == "__main__":
    main()
