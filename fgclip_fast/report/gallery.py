"""Cards with an image, a box and its texts as the model ranks them: wrong answers and right ones."""

import math
from collections.abc import Sequence

from fgclip_fast.evaluation.views import ValidationImage, View
from fgclip_fast.report.explore import thumbnail
from fgclip_fast.report.html import caption, data_uri, escape, percent

CHANGED = 3
"""Pairs of cards of boxes answered otherwise after training, at most, each way."""
Answer = tuple[View, int]
"""A view, and the index of one of its questions."""
Two = tuple[View, View, int]
"""Views of one image by two models, and the index of one of its questions."""
SHOWN = 6
"""Cards of wrong answers, and of right ones, at most."""


def wrong_and_right(views: Sequence[View]) -> tuple[list[Answer], list[Answer]]:
    """The first wrong and the first right answer of each image."""
    wrong: list[Answer] = []
    right: list[Answer] = []
    for view in views:
        answers = _answers(view)
        wrong += [(view, i) for i in answers if view.best(i) != 0][:1]
        right += [(view, i) for i in answers if view.best(i) == 0][:1]
    return wrong, right


def count_wrong(views: Sequence[View]) -> tuple[int, int]:
    """Number of wrong answers, and of all."""
    right = [view.best(i) == 0 for view in views for i in _answers(view)]
    return right.count(False), len(right)


def disagreements(first: Sequence[View], second: Sequence[View]) -> tuple[list[Two], list[Two]]:
    """Questions that only one of two models answers rightly: those of the first model, and those of the second."""
    found = [
        (a, b, i)
        for a, b in zip(first, second, strict=True)
        for i in _answers(a)
        if (a.best(i) == 0) != (b.best(i) == 0)
    ]
    return [f for f in found if f[0].best(f[2]) == 0], [f for f in found if f[0].best(f[2]) != 0]


def pairs(answers: Sequence[Two], names: tuple[str, str], scales: tuple[float, float]) -> str:
    """A list with two cards for each question, one a model; names and scales are those of the models."""
    items = (
        f'<li class="both"><h3>{escape(name)}</h3>{card(view, question, scale)}</li>'
        for first, second, question in answers
        for name, view, scale in zip(names, (first, second), scales, strict=True)
    )
    return f'<ul class="cards">{"".join(items)}</ul>'


def cards(answers: Sequence[Answer], scale: float) -> str:
    """A list of cards; ``scale`` multiplies the cosines before the softmax."""
    items = "".join(f"<li>{card(view, question, scale)}</li>" for view, question in answers)
    return f'<ul class="cards">{items}</ul>'


def card(view: View, question: int, scale: float) -> str:
    """One answer: the image with the box, and all texts, the best first."""
    right = view.best(question) == 0
    unseen = '<span class="tag unseen">never seen in training</span>' if view.image.questions[question].unseen else ""
    verdict = f'<span class="tag {"right" if right else "wrong"}">{"✓ right" if right else "✗ wrong"}</span>'
    return (
        f'<article class="card"><header>{verdict}{unseen}</header>'
        f'<div class="answer">{_image_with_box(view.image, question)}{_ranking(view, question, scale)}</div></article>'
    )


def _answers(view: View) -> list[int]:
    """Indices of the questions that have negatives."""
    return [i for i, question in enumerate(view.image.questions) if len(question.texts) > 1]


def _image_with_box(image: ValidationImage, question: int) -> str:
    encoded, width, height = thumbnail(image.encoded)
    x0, y0, x1, y1 = image.questions[question].box
    outline = f'x="{x0 * width:.1f}" y="{y0 * height:.1f}" width="{(x1 - x0) * width:.1f}" '
    outline += f'height="{(y1 - y0) * height:.1f}"'
    text = escape(f"Image {image.name} with a box around: {image.questions[question].texts[0]}")
    return (
        f'<div class="frame"><img src="{data_uri(encoded)}" width="{width}" height="{height}" alt="{text}">'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<rect class="under" {outline}/><rect {outline}/></svg></div>'
    )


def _ranking(view: View, question: int, scale: float) -> str:
    """The texts of a question with the model's probabilities, the best first; the right one is marked."""
    scores, texts = view.scores[question], view.image.questions[question].texts
    highest = max(scores)
    powers = [math.exp(scale * (score - highest)) for score in scores]
    order = sorted(range(len(texts)), key=lambda i: (-scores[i], i))
    lines = (_rank_line(texts[i], powers[i] / sum(powers), i == 0) for i in order)
    return f'<ol class="ranks">{"".join(lines)}</ol>'


def _rank_line(text: str, share: float, right: bool) -> str:
    mark = '<span class="mark" title="the right text">✓<span class="hidden"> the right text: </span></span>'
    return (
        f'<li class="{"truth" if right else "other"}" style="--share:{share:.4f}">'
        f"{mark if right else ''}{caption(text)}<span class='share'>{percent(share, 0)}</span></li>"
    )
