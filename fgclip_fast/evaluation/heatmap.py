"""Heat maps: a rendered sheet with one row a text, the image beside a copy that is bright where the text fits."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

HEIGHT = 240
"""Height of each shown image, pixels."""
GAP = 12
"""Space around images, pixels."""
DARK = (12, 10, 16)
"""RGB of patches that do not fit."""


def heatmap(
    image: Image.Image, similarity: Tensor, texts: Sequence[str], box: Sequence[float] | None = None
) -> Image.Image:
    """Render the similarity of an image's patches to each text.

    A patch at the median cosine of its text is dark, the patch with the highest cosine is fully lit.

    Args:
        image: of any size.
        similarity: Tensor[N, G, G], cosines of texts and patches.
        texts: N texts, written above their rows.
        box: xyxy as fractions, drawn into each image; None draws none.

    Returns:
        The sheet, RGB.
    """
    shown = image.convert("RGB").resize(
        (max(1, round(image.width * HEIGHT / image.height)), HEIGHT), Image.Resampling.BICUBIC
    )
    flat = similarity.flatten(1)
    low, high = (x[:, None, None] for x in (flat.median(dim=1).values, flat.amax(dim=1)))
    light = ((similarity - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    rows = [_row(shown, row, text, box) for row, text in zip(light, texts, strict=True)]
    sheet = Image.new("RGB", (rows[0].width + 2 * GAP, sum(row.height + GAP for row in rows) + GAP), "white")
    for number, row in enumerate(rows):
        sheet.paste(row, (GAP, GAP + number * (row.height + GAP)))
    return sheet


def highlight(image: Image.Image, light: Tensor) -> Image.Image:
    """Darken an image where ``light``, Tensor[G, G] in [0, 1], is low."""
    veil = (200 * (1 - light)).round().to(torch.uint8).numpy()
    mask = Image.fromarray(veil).resize(image.size, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", image.size, DARK), image, mask)


def _row(image: Image.Image, light: Tensor, text: str, box: Sequence[float] | None) -> Image.Image:
    font = ImageFont.load_default(18)
    lines = _wrapped(text, font, 2 * image.width + GAP)
    top = 26 * len(lines)
    row = Image.new("RGB", (2 * image.width + GAP, image.height + top), "white")
    ImageDraw.Draw(row).multiline_text((0, 0), "\n".join(lines), fill="black", font=font)
    for number, shown in enumerate((image.copy(), highlight(image, light))):
        if box is not None:
            _outline(shown, box)
        row.paste(shown, (number * (image.width + GAP), top))
    return row


def _outline(image: Image.Image, box: Sequence[float]) -> None:
    corners = [side * length for side, length in zip(box, image.size * 2, strict=True)]
    draw = ImageDraw.Draw(image)
    draw.rectangle(corners, outline="black", width=4)
    draw.rectangle([c + d for c, d in zip(corners, (1, 1, -1, -1), strict=True)], outline="white", width=2)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a text into lines of up to ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
