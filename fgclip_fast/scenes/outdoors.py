"""Drawings of the nouns that belong outdoors."""

from fgclip_fast.scenes.shapes import Part, arc, box, ellipse, join, polygon, rounded, spline, turned


def house() -> list[Part]:
    return [
        Part(box(0.68, 0.06, 0.82, 0.4, 0.01), "dark"),
        Part(box(0.1, 0.36, 0.9, 0.97, 0.02), "body"),
        Part(rounded((0.0, 0.46), (0.5, 0.02), (1.0, 0.46), radius=0.04), "shade"),
        Part(box(0.6, 0.62, 0.77, 0.97, 0.02), "dark"),
        Part(box(0.22, 0.58, 0.44, 0.76, 0.01), "pale"),
        Part(polygon((0.33, 0.58), (0.33, 0.76)), "outline", 0.02, outline=False),
    ]


def tree() -> list[Part]:
    crown = spline(
        (0.5, 0.02), (0.72, 0.08), (0.82, 0.22), (0.97, 0.38), (0.9, 0.58), (0.7, 0.68),
        (0.5, 0.65), (0.3, 0.68), (0.1, 0.58), (0.03, 0.38), (0.18, 0.22), (0.28, 0.08),
    )  # fmt: skip
    trunk = spline((0.42, 0.6), (0.42, 0.8), (0.32, 0.97), (0.68, 0.97), (0.58, 0.8), (0.58, 0.6), steps=5)
    return [
        Part(trunk, "dark"),
        Part(crown, "body"),
        Part(spline((0.5, 0.78), (0.5, 0.6), (0.62, 0.46), closed=False), "dark", 0.05, outline=False),
        Part(spline((0.5, 0.66), (0.42, 0.54), (0.36, 0.48), closed=False), "dark", 0.04, outline=False),
    ]


def flower() -> list[Part]:
    petals = []
    for k in range(5):
        petals += turned([Part(ellipse(0.5, 0.2, 0.17, 0.2), "body")], 72 * k)
    petals = [part._replace(points=part.points * 0.86 + (0.07, -0.06)) for part in petals]
    leaf = spline((0.5, 0.94), (0.62, 0.76), (0.86, 0.78), (0.74, 0.94))
    return [
        Part(polygon((0.5, 0.5), (0.5, 1.0)), "dark", 0.07, outline=False),
        Part(leaf, "dark"),
        *petals,
        Part(ellipse(0.5, 0.37, 0.12), "pale"),
    ]


def mushroom() -> list[Part]:
    stem = spline((0.38, 0.5), (0.37, 0.75), (0.3, 0.95), (0.5, 0.98), (0.7, 0.95), (0.63, 0.75), (0.62, 0.5), steps=6)
    cap = join(arc(0.5, 0.5, 0.49, 0.46, 180, 360), arc(0.5, 0.52, 0.49, 0.1, 0, 180))
    return [Part(stem, "pale"), Part(cap, "body"), Part(ellipse(0.5, 0.57, 0.3, 0.035), "dark", outline=False)]


def apple() -> list[Part]:
    fruit = spline(
        (0.5, 0.3), (0.68, 0.22), (0.9, 0.3), (0.97, 0.52), (0.86, 0.82), (0.66, 0.97), (0.5, 0.93), (0.34, 0.97),
        (0.14, 0.82), (0.03, 0.52), (0.1, 0.3), (0.32, 0.22), steps=6,
    )  # fmt: skip
    return [
        Part(fruit, "body"),
        Part(spline((0.5, 0.36), (0.48, 0.2), (0.42, 0.04), closed=False), "dark", 0.06, outline=False),
        Part(spline((0.5, 0.2), (0.62, 0.06), (0.86, 0.02), (0.74, 0.2)), "pale"),
    ]


def boat() -> list[Part]:
    return [
        Part(polygon((0.5, 0.02), (0.5, 0.8)), "dark", 0.05, outline=False),
        Part(spline((0.46, 0.08), (0.3, 0.34), (0.06, 0.64), (0.28, 0.67), (0.46, 0.66), steps=6), "body"),
        Part(spline((0.55, 0.04), (0.8, 0.3), (0.92, 0.66), (0.72, 0.68), (0.55, 0.66), steps=6), "body"),
        Part(rounded((0.02, 0.73), (0.98, 0.73), (0.82, 0.96), (0.2, 0.96), radius=0.05), "shade"),
        Part(polygon((0.1, 0.79), (0.9, 0.79)), "pale", 0.035, outline=False),
    ]


def car() -> list[Part]:
    shell = spline(
        (0.0, 0.62), (0.06, 0.5), (0.2, 0.46), (0.28, 0.24), (0.4, 0.16), (0.62, 0.16), (0.74, 0.24),
        (0.84, 0.46), (0.96, 0.52), (1.0, 0.64), (0.97, 0.78), (0.5, 0.79), (0.03, 0.78), steps=6,
    )  # fmt: skip
    parts = [
        Part(shell, "body"),
        Part(rounded((0.3, 0.44), (0.36, 0.25), (0.49, 0.24), (0.49, 0.44), radius=0.04), "pale"),
        Part(rounded((0.55, 0.44), (0.55, 0.24), (0.67, 0.26), (0.75, 0.44), radius=0.04), "pale"),
        Part(ellipse(0.95, 0.6, 0.035, 0.05), "pale"),
    ]
    for x in (0.24, 0.76):
        parts += [Part(ellipse(x, 0.78, 0.14), "dark"), Part(ellipse(x, 0.78, 0.065), "pale", outline=False)]
    return parts


def rocket() -> list[Part]:
    hull = spline(
        (0.5, -0.16),
        (0.66, 0.06),
        (0.72, 0.34),
        (0.68, 0.62),
        (0.62, 0.8),
        (0.38, 0.8),
        (0.32, 0.62),
        (0.28, 0.34),
        (0.34, 0.06),
    )
    parts = [
        Part(spline((0.38, 0.82), (0.36, 1.0), (0.5, 1.18), (0.64, 1.0), (0.62, 0.82)), "pale"),
        Part(spline((0.34, 0.5), (0.12, 0.68), (0.1, 0.92), (0.38, 0.78), steps=5), "shade"),
        Part(spline((0.66, 0.5), (0.88, 0.68), (0.9, 0.92), (0.62, 0.78), steps=5), "shade"),
        Part(hull, "body"),
        Part(
            spline((0.5, -0.17), (0.62, -0.02), (0.64, 0.06), (0.5, 0.09), (0.36, 0.06), (0.38, -0.02), steps=5),
            "shade",
        ),
        Part(ellipse(0.5, 0.34, 0.13), "pale"),
        Part(ellipse(0.5, 0.34, 0.075), "dark", outline=False),
    ]
    return turned(parts, 40)
