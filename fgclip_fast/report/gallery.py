"""Pictures with a box and its texts, ranked by the model: wrong answers beside right ones."""

import math
from collections.abc import Sequence

from fgclip_fast.evaluation.pictures import Picture, View
from fgclip_fast.report.explore import shown
from fgclip_fast.report.html import caption, data_uri, escape, percent

Answer = tuple[View, int]
"""A view, and which of its questions."""
SHOWN = 6
"""Answers of each kind."""


def answers(views: Sequence[View]) -> tuple[list[Answer], list[Answer]]:
    """Wrong and right answers, at most one of each kind a picture."""
    wrong: list[Answer] = []
    right: list[Answer] = []
    for view in views:
        groups = [i for i, question in enumerate(view.picture.asked) if len(question.texts) > 1]
        mistakes = [i for i in groups if view.first(i) != 0]
        hits = [i for i in groups if view.first(i) == 0]
        wrong += [(view, i) for i in mistakes[:1]]
        right += [(view, i) for i in hits[:1]]
    return wrong, right


def wrong_share(views: Sequence[View]) -> tuple[int, int]:
    """Questions answered wrongly, and all."""
    groups = [(v, i) for v in views for i, question in enumerate(v.picture.asked) if len(question.texts) > 1]
    return sum(view.first(i) != 0 for view, i in groups), len(groups)


def cards(found: Sequence[Answer], scale: float) -> str:
    """A list of answers, each with its picture and all texts, the best first."""
    items = "".join(f"<li>{card(view, question, scale)}</li>" for view, question in found)
    return f'<ul class="cards">{items}</ul>'


def card(view: View, question: int, scale: float) -> str:
    """One answer."""
    asked = view.picture.asked[question]
    right = view.first(question) == 0
    unseen = '<span class="tag unseen">never seen in training</span>' if asked.unseen else ""
    verdict = f'<span class="tag {"right" if right else "wrong"}">{"✓ right" if right else "✗ wrong"}</span>'
    return (
        f'<article class="card"><header>{verdict}{unseen}</header>'
        f'<div class="answer">{boxed(view.picture, question)}{ranking(view, question, scale)}</div></article>'
    )


def boxed(picture: Picture, question: int) -> str:
    """A picture with the box that was asked about."""
    encoded, width, height = shown(picture.encoded)
    x0, y0, x1, y1 = picture.asked[question].box
    outline = f'x="{x0 * width:.1f}" y="{y0 * height:.1f}" width="{(x1 - x0) * width:.1f}" '
    outline += f'height="{(y1 - y0) * height:.1f}"'
    text = escape(f"Picture {picture.name} with a box around: {picture.asked[question].texts[0]}")
    return (
        f'<div class="frame"><img src="{data_uri(encoded)}" width="{width}" height="{height}" alt="{text}">'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<rect class="under" {outline}/><rect {outline}/></svg></div>'
    )


def ranking(view: View, question: int, scale: float) -> str:
    """The texts of a question with the model's probabilities, the best first; the right one is marked."""
    scores, texts = view.scores[question], view.picture.asked[question].texts
    shares = softmax([scale * score for score in scores])
    order = sorted(range(len(texts)), key=lambda i: (-scores[i], i))
    return f'<ol class="ranks">{"".join(_line(texts[i], shares[i], i == 0) for i in order)}</ol>'


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    return [power / sum(powers) for power in powers]


def _line(text: str, share: float, right: bool) -> str:
    mark = '<span class="mark" title="the right text">✓<span class="hidden"> the right text: </span></span>'
    return (
        f'<li class="{"truth" if right else "other"}" style="--share:{share:.4f}">'
        f"{mark if right else ''}{caption(text)}<span class='share'>{percent(share, 0)}</span></li>"
    )
