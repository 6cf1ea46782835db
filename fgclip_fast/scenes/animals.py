"""Drawings of the nouns that are animals."""

from fgclip_fast.scenes.shapes import Part, ellipse, polygon, rounded, spline


def fish() -> list[Part]:
    body = spline(
        (0.0, 0.52), (0.14, 0.32), (0.4, 0.2), (0.66, 0.36), (0.76, 0.5), (0.66, 0.66), (0.4, 0.82), (0.14, 0.7)
    )
    return [
        Part(rounded((0.68, 0.5), (1.0, 0.18), (0.92, 0.5), (1.0, 0.84)), "shade"),
        Part(rounded((0.25, 0.26), (0.42, 0.02), (0.62, 0.34), radius=0.05), "shade"),
        Part(rounded((0.3, 0.76), (0.46, 0.97), (0.56, 0.72), radius=0.05), "shade"),
        Part(body, "body"),
        Part(spline((0.27, 0.34), (0.33, 0.5), (0.27, 0.68), closed=False), "outline", 0.03, outline=False),
        Part(ellipse(0.17, 0.44, 0.07), "pale"),
        Part(ellipse(0.155, 0.44, 0.035), "dark", outline=False),
    ]


def cat() -> list[Part]:
    head = spline(
        (0.5, 0.27), (0.76, 0.3), (0.94, 0.58), (0.8, 0.86), (0.5, 0.95), (0.2, 0.86), (0.06, 0.58), (0.24, 0.3)
    )
    parts = [Part(head, "body")]
    for s in (-1, 1):
        parts.insert(
            0, Part(rounded((0.5 + s * 0.08, 0.34), (0.5 + s * 0.42, 0.0), (0.5 + s * 0.45, 0.6), radius=0.05), "body")
        )
        parts.append(
            Part(
                polygon((0.5 + s * 0.25, 0.29), (0.5 + s * 0.37, 0.13), (0.5 + s * 0.38, 0.38)), "shade", outline=False
            )
        )
        parts.append(Part(ellipse(0.5 + s * 0.2, 0.53, 0.1, 0.11), "pale"))
        parts.append(Part(ellipse(0.5 + s * 0.19, 0.54, 0.04, 0.085), "dark", outline=False))
        parts.append(Part(polygon((0.5 + s * 0.18, 0.74), (0.5 + s * 0.5, 0.68)), "dark", 0.025, outline=False))
        parts.append(Part(polygon((0.5 + s * 0.18, 0.79), (0.5 + s * 0.48, 0.84)), "dark", 0.025, outline=False))
    return [
        *parts,
        Part(ellipse(0.5, 0.77, 0.17, 0.11), "pale", outline=False),
        Part(polygon((0.42, 0.69), (0.58, 0.69), (0.5, 0.78)), "dark", outline=False),
        Part(polygon((0.5, 0.76), (0.5, 0.84)), "dark", 0.025, outline=False),
    ]


def duck() -> list[Part]:
    body = spline(
        (0.14, 0.6),
        (0.34, 0.52),
        (0.62, 0.56),
        (0.8, 0.54),
        (0.99, 0.4),
        (0.96, 0.7),
        (0.76, 0.94),
        (0.42, 0.96),
        (0.16, 0.84),
    )
    return [
        Part(body, "body"),
        Part(ellipse(0.36, 0.3, 0.25, 0.25), "body"),
        Part(spline((0.2, 0.58), (0.4, 0.44), (0.56, 0.5), (0.6, 0.66), (0.4, 0.72)), "body", outline=False),
        Part(spline((0.14, 0.26), (0.0, 0.34), (0.02, 0.43), (0.16, 0.42)), "pale"),
        Part(ellipse(0.3, 0.24, 0.045), "dark", outline=False),
        Part(spline((0.48, 0.66), (0.7, 0.64), (0.86, 0.6), (0.78, 0.8), (0.6, 0.84)), "shade"),
    ]


def butterfly() -> list[Part]:
    parts = []
    for s in (-1, 1):
        upper = spline(
            (0.5, 0.46),
            (0.5 + s * 0.16, 0.2),
            (0.5 + s * 0.4, 0.06),
            (0.5 + s * 0.5, 0.24),
            (0.5 + s * 0.38, 0.5),
            (0.5 + s * 0.16, 0.56),
        )
        lower = spline(
            (0.5, 0.54), (0.5 + s * 0.24, 0.55), (0.5 + s * 0.42, 0.68), (0.5 + s * 0.34, 0.92), (0.5 + s * 0.16, 0.88)
        )
        parts += [Part(lower, "shade"), Part(upper, "body")]
        feeler = spline((0.5, 0.3), (0.5 + s * 0.05, 0.12), (0.5 + s * 0.15, 0.03), closed=False)
        parts.append(Part(feeler, "dark", 0.03, outline=False))
        parts.append(Part(ellipse(0.5 + s * 0.27, 0.74, 0.05), "pale", outline=False))
    return [*parts, Part(ellipse(0.5, 0.54, 0.06, 0.28), "dark")]


def snail() -> list[Part]:
    slug = spline(
        (0.0, 0.9), (0.2, 0.86), (0.6, 0.82), (0.76, 0.6), (0.78, 0.42), (0.92, 0.38), (0.99, 0.5), (0.94, 0.76),
        (0.82, 0.93), (0.4, 0.96), steps=6,
    )  # fmt: skip
    spiral = spline(
        (0.74, 0.66),
        (0.62, 0.28),
        (0.3, 0.26),
        (0.2, 0.52),
        (0.36, 0.68),
        (0.54, 0.58),
        (0.5, 0.42),
        (0.38, 0.44),
        closed=False,
    )
    return [
        Part(polygon((0.84, 0.44), (0.78, 0.2)), "dark", 0.04, outline=False),
        Part(polygon((0.92, 0.44), (0.96, 0.18)), "dark", 0.04, outline=False),
        Part(slug, "pale"),
        Part(ellipse(0.4, 0.47, 0.38, 0.38), "body"),
        Part(spiral, "outline", 0.045, outline=False),
        Part(ellipse(0.9, 0.5, 0.03), "dark", outline=False),
    ]
