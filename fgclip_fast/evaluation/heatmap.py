"""Pictures of where texts fit: one row a text, the picture beside its lit twin."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

HEIGHT = 240
"""Height of each picture, pixels."""
GAP = 12
DARK = (12, 10, 16)


def heatmap(
    image: Image.Image, similarity: Tensor, texts: Sequence[str], box: Sequence[float] | None = None
) -> Image.Image:
    """Lights the patches that fit each text, from none at its median cosine to all at its highest.

    Args:
        image: any size.
        similarity: Tensor[N, G, G], cosines of texts and patches.
        texts: N, written above their rows.
        box: xyxy as fractions, drawn into each picture.
    """
    picture = image.convert("RGB").resize(
        (max(1, round(image.width * HEIGHT / image.height)), HEIGHT), Image.Resampling.BICUBIC
    )
    flat = similarity.flatten(1)
    low, high = (x[:, None, None] for x in (flat.median(dim=1).values, flat.amax(dim=1)))
    light = ((similarity - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    rows = [_row(picture, row, text, box) for row, text in zip(light, texts, strict=True)]
    sheet = Image.new("RGB", (rows[0].width + 2 * GAP, sum(row.height + GAP for row in rows) + GAP), "white")
    for number, row in enumerate(rows):
        sheet.paste(row, (GAP, GAP + number * (row.height + GAP)))
    return sheet


def lit(picture: Image.Image, light: Tensor) -> Image.Image:
    """Darkens a picture where ``light``, Tensor[G, G] in [0, 1], is low."""
    veil = (200 * (1 - light)).round().to(torch.uint8).numpy()
    mask = Image.fromarray(veil).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", picture.size, DARK), picture, mask)


def _row(picture: Image.Image, light: Tensor, text: str, box: Sequence[float] | None) -> Image.Image:
    font = ImageFont.load_default(18)
    lines = _wrapped(text, font, 2 * picture.width + GAP)
    top = 26 * len(lines)
    row = Image.new("RGB", (2 * picture.width + GAP, picture.height + top), "white")
    ImageDraw.Draw(row).multiline_text((0, 0), "\n".join(lines), fill="black", font=font)
    for number, shown in enumerate((picture.copy(), lit(picture, light))):
        if box is not None:
            _outline(shown, box)
        row.paste(shown, (number * (picture.width + GAP), top))
    return row


def _outline(picture: Image.Image, box: Sequence[float]) -> None:
    corners = [side * length for side, length in zip(box, picture.size * 2, strict=True)]
    draw = ImageDraw.Draw(picture)
    draw.rectangle(corners, outline="black", width=4)
    draw.rectangle([c + d for c, d in zip(corners, (1, 1, -1, -1), strict=True)], outline="white", width=2)


def _wrapped(text: str, font, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
