"""The things that scenes are made of: each noun is a few vector shapes, to be named at a glance at 40 pixels.

``body`` carries colour and pattern; ``shade`` and ``tint`` are a darker and a lighter tone of the same colour; ``dark``
and ``pale`` are charcoal and ivory, which are no colours of the grammar, so no accent can be taken for the colour of
the thing. All things are about as wide as high: a box should not say what is in it.
"""

from collections.abc import Callable

from fgclip_fast.scenes.shapes import Part, arc, box, ellipse, join, moved, polygon, rounded, spline


def mug() -> list[Part]:
    side = join(arc(0.4, 0.2, 0.32, 0.08, 180, 360), arc(0.4, 0.84, 0.29, 0.1, 0, 180))
    return [
        Part(arc(0.7, 0.53, 0.2, 0.2, -95, 95), "body", 0.1),
        Part(side, "body"),
        Part(ellipse(0.4, 0.2, 0.32, 0.09), "pale"),
        Part(ellipse(0.4, 0.215, 0.25, 0.05), "dark", outline=False),
    ]


def teapot() -> list[Part]:
    spout = spline((0.28, 0.8), (0.12, 0.62), (0.0, 0.34), (0.12, 0.28), (0.2, 0.42), (0.36, 0.5))
    return [
        Part(arc(0.8, 0.56, 0.17, 0.19, -120, 110), "body", 0.075),
        Part(spout, "body"),
        Part(ellipse(0.52, 0.6, 0.34, 0.34), "body"),
        Part(box(0.34, 0.88, 0.7, 0.97, 0.03), "shade"),
        Part(arc(0.52, 0.32, 0.21, 0.13, 180, 360), "shade"),
        Part(ellipse(0.52, 0.13, 0.07), "pale"),
    ]


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


def fish() -> list[Part]:
    body = spline((0.0, 0.52), (0.14, 0.32), (0.4, 0.2), (0.66, 0.36), (0.76, 0.5), (0.66, 0.66), (0.4, 0.82), (0.14, 0.7))
    return [
        Part(rounded((0.68, 0.5), (1.0, 0.18), (0.92, 0.5), (1.0, 0.84)), "shade"),
        Part(rounded((0.25, 0.26), (0.42, 0.02), (0.62, 0.34), radius=0.05), "shade"),
        Part(rounded((0.3, 0.76), (0.46, 0.97), (0.56, 0.72), radius=0.05), "shade"),
        Part(body, "body"),
        Part(spline((0.27, 0.34), (0.33, 0.5), (0.27, 0.68), closed=False), "outline", 0.03, outline=False),
        Part(ellipse(0.17, 0.44, 0.07), "pale"),
        Part(ellipse(0.155, 0.44, 0.035), "dark", outline=False),
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


def umbrella() -> list[Part]:
    scallops = [arc(x, 0.5, 0.12, -0.06, 180, 0)[::-1] for x in (0.88, 0.63, 0.38, 0.12)]
    return [
        Part(polygon((0.5, 0.0), (0.5, 0.1)), "dark", 0.06, outline=False),
        Part(
            join(polygon((0.5, 0.4), (0.5, 0.82)), arc(0.6, 0.85, 0.1, 0.1, 180, 0)),
            "dark",
            0.065,
            outline=False,
        ),
        Part(join(arc(0.5, 0.5, 0.5, 0.44, 180, 360), *scallops), "body"),
        Part(spline((0.5, 0.07), (0.34, 0.26), (0.26, 0.46), closed=False), "outline", 0.022, outline=False),
        Part(spline((0.5, 0.07), (0.66, 0.26), (0.74, 0.46), closed=False), "outline", 0.022, outline=False),
    ]


def mushroom() -> list[Part]:
    stem = spline((0.38, 0.5), (0.37, 0.75), (0.3, 0.95), (0.5, 0.98), (0.7, 0.95), (0.63, 0.75), (0.62, 0.5), steps=6)
    cap = join(arc(0.5, 0.5, 0.49, 0.46, 180, 360), arc(0.5, 0.52, 0.49, 0.1, 0, 180))
    return [Part(stem, "pale"), Part(cap, "body"), Part(ellipse(0.5, 0.57, 0.3, 0.035), "dark", outline=False)]


def flower() -> list[Part]:
    petals = []
    for k in range(5):
        petals += moved([Part(ellipse(0.5, 0.2, 0.17, 0.2), "body")], 72 * k)
    petals = [part._replace(points=part.points * 0.86 + (0.07, -0.06)) for part in petals]
    leaf = spline((0.5, 0.94), (0.62, 0.76), (0.86, 0.78), (0.74, 0.94))
    return [
        Part(polygon((0.5, 0.5), (0.5, 1.0)), "dark", 0.07, outline=False),
        Part(leaf, "dark"),
        *petals,
        Part(ellipse(0.5, 0.37, 0.12), "pale"),
    ]


def cat() -> list[Part]:
    head = spline((0.5, 0.27), (0.76, 0.3), (0.94, 0.58), (0.8, 0.86), (0.5, 0.95), (0.2, 0.86), (0.06, 0.58), (0.24, 0.3))
    parts = [Part(head, "body")]
    for s in (-1, 1):
        parts.insert(0, Part(rounded((0.5 + s * 0.08, 0.34), (0.5 + s * 0.42, 0.0), (0.5 + s * 0.45, 0.6), radius=0.05), "body"))
        parts.append(Part(polygon((0.5 + s * 0.25, 0.29), (0.5 + s * 0.37, 0.13), (0.5 + s * 0.38, 0.38)), "shade", outline=False))
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
    body = spline((0.14, 0.6), (0.34, 0.52), (0.62, 0.56), (0.8, 0.54), (0.99, 0.4), (0.96, 0.7), (0.76, 0.94), (0.42, 0.96), (0.16, 0.84))
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
        upper = spline((0.5, 0.46), (0.5 + s * 0.16, 0.2), (0.5 + s * 0.4, 0.06), (0.5 + s * 0.5, 0.24), (0.5 + s * 0.38, 0.5), (0.5 + s * 0.16, 0.56))
        lower = spline((0.5, 0.54), (0.5 + s * 0.24, 0.55), (0.5 + s * 0.42, 0.68), (0.5 + s * 0.34, 0.92), (0.5 + s * 0.16, 0.88))
        parts += [Part(lower, "shade"), Part(upper, "body")]
        feeler = spline((0.5, 0.3), (0.5 + s * 0.05, 0.12), (0.5 + s * 0.15, 0.03), closed=False)
        parts.append(Part(feeler, "dark", 0.03, outline=False))
        parts.append(Part(ellipse(0.5 + s * 0.27, 0.74, 0.05), "pale", outline=False))
    return [*parts, Part(ellipse(0.5, 0.54, 0.06, 0.28), "dark")]


def hat() -> list[Part]:
    brim = spline((0.0, 0.74), (0.2, 0.7), (0.5, 0.74), (0.8, 0.7), (1.0, 0.74), (0.82, 0.9), (0.5, 0.95), (0.18, 0.9))
    crown = spline((0.22, 0.8), (0.26, 0.4), (0.3, 0.1), (0.5, 0.15), (0.7, 0.1), (0.74, 0.4), (0.78, 0.8), (0.5, 0.86), steps=6)
    band = polygon((0.225, 0.62), (0.775, 0.62), (0.785, 0.77), (0.5, 0.81), (0.215, 0.77))
    return [Part(brim, "body"), Part(crown, "body"), Part(band, "dark", outline=False)]


def boot() -> list[Part]:
    leather = spline(
        (0.26, 0.1), (0.62, 0.1), (0.62, 0.42), (0.68, 0.54), (0.88, 0.6), (0.97, 0.74), (0.96, 0.86),
        (0.6, 0.87), (0.22, 0.87), (0.24, 0.5), steps=5,
    )  # fmt: skip
    return [
        Part(rounded((0.2, 0.84), (0.98, 0.84), (0.98, 0.94), (0.5, 0.94), (0.46, 0.98), (0.2, 0.98), radius=0.03), "dark"),
        Part(leather, "body"),
        Part(box(0.2, 0.03, 0.68, 0.2, 0.05), "tint"),
        Part(polygon((0.62, 0.38), (0.46, 0.42)), "pale", 0.035, outline=False),
        Part(polygon((0.66, 0.5), (0.5, 0.56)), "pale", 0.035, outline=False),
    ]


def shirt() -> list[Part]:
    cloth = rounded(
        (0.32, 0.08), (0.68, 0.08), (1.0, 0.28), (0.88, 0.5), (0.75, 0.43), (0.76, 0.94), (0.24, 0.94), (0.25, 0.43),
        (0.12, 0.5), (0.0, 0.28), radius=0.03,
    )  # fmt: skip
    return [
        Part(cloth, "body"),
        Part(arc(0.5, 0.08, 0.17, 0.15, 0, 180), "pale"),
        Part(arc(0.5, 0.08, 0.11, 0.09, 0, 180), "dark", outline=False),
    ]


def bell() -> list[Part]:
    skirt = spline(
        (0.5, 0.1), (0.68, 0.18), (0.76, 0.4), (0.8, 0.62), (0.94, 0.78), (0.5, 0.82), (0.06, 0.78), (0.2, 0.62),
        (0.24, 0.4), (0.32, 0.18), steps=6,
    )  # fmt: skip
    return [
        Part(ellipse(0.5, 0.87, 0.11, 0.11), "dark"),
        Part(arc(0.5, 0.1, 0.08, 0.08, 0, 360), "dark", 0.055, outline=False),
        Part(skirt, "body"),
        Part(box(0.03, 0.73, 0.97, 0.83, 0.04), "shade"),
    ]


def crown() -> list[Part]:
    gold = polygon((0.08, 0.9), (0.02, 0.28), (0.27, 0.56), (0.5, 0.14), (0.73, 0.56), (0.98, 0.28), (0.92, 0.9))
    gems = [Part(ellipse(x, y, 0.065), "pale") for x, y in ((0.04, 0.24), (0.5, 0.1), (0.96, 0.24))]
    return [
        Part(gold, "body"),
        Part(box(0.06, 0.76, 0.94, 0.94, 0.03), "shade"),
        *gems,
        *(Part(ellipse(x, 0.85, 0.045), "pale", outline=False) for x in (0.24, 0.5, 0.76)),
    ]


def padlock() -> list[Part]:
    shackle = join(polygon((0.27, 0.56), (0.27, 0.34)), arc(0.5, 0.32, 0.23, 0.24, 180, 360), polygon((0.73, 0.34), (0.73, 0.56)))
    return [
        Part(shackle, "dark", 0.11),
        Part(box(0.1, 0.43, 0.9, 0.97, 0.1), "body"),
        Part(ellipse(0.5, 0.64, 0.085), "dark", outline=False),
        Part(polygon((0.47, 0.66), (0.53, 0.66), (0.57, 0.84), (0.43, 0.84)), "dark", outline=False),
    ]


def guitar() -> list[Part]:
    wood = spline(
        (0.5, 0.4), (0.7, 0.43), (0.74, 0.56), (0.71, 0.66), (0.88, 0.8), (0.88, 1.02), (0.7, 1.15), (0.5, 1.17),
        (0.3, 1.15), (0.12, 1.02), (0.12, 0.8), (0.29, 0.66), (0.26, 0.56), (0.3, 0.43), steps=6,
    )  # fmt: skip
    parts = [
        Part(box(0.4, -0.12, 0.6, 0.1, 0.03), "dark"),
        Part(wood, "body"),
        Part(box(0.45, 0.05, 0.55, 0.64, 0.01), "dark"),
        Part(ellipse(0.5, 0.73, 0.11), "dark", outline=False),
        Part(box(0.36, 0.95, 0.64, 1.01, 0.01), "dark", outline=False),
    ]
    return moved(parts, 45)


def chair() -> list[Part]:
    legs = [((0.2, 0.66), (0.16, 0.98)), ((0.82, 0.66), (0.86, 0.98)), ((0.34, 0.6), (0.33, 0.86)), ((0.68, 0.6), (0.69, 0.86))]
    return [
        *(Part(polygon(*leg), "dark", 0.065, outline=False) for leg in reversed(legs)),
        Part(rounded((0.2, 0.02), (0.8, 0.02), (0.76, 0.58), (0.24, 0.58), radius=0.1), "body"),
        Part(rounded((0.24, 0.5), (0.76, 0.5), (0.94, 0.72), (0.06, 0.72), radius=0.06), "tint"),
        Part(box(0.06, 0.68, 0.94, 0.77, 0.03), "shade"),
    ]


def rocket() -> list[Part]:
    hull = spline((0.5, -0.16), (0.66, 0.06), (0.72, 0.34), (0.68, 0.62), (0.62, 0.8), (0.38, 0.8), (0.32, 0.62), (0.28, 0.34), (0.34, 0.06))
    parts = [
        Part(spline((0.38, 0.82), (0.36, 1.0), (0.5, 1.18), (0.64, 1.0), (0.62, 0.82)), "pale"),
        Part(spline((0.34, 0.5), (0.12, 0.68), (0.1, 0.92), (0.38, 0.78), steps=5), "shade"),
        Part(spline((0.66, 0.5), (0.88, 0.68), (0.9, 0.92), (0.62, 0.78), steps=5), "shade"),
        Part(hull, "body"),
        Part(spline((0.5, -0.17), (0.62, -0.02), (0.64, 0.06), (0.5, 0.09), (0.36, 0.06), (0.38, -0.02), steps=5), "shade"),
        Part(ellipse(0.5, 0.34, 0.13), "pale"),
        Part(ellipse(0.5, 0.34, 0.075), "dark", outline=False),
    ]
    return moved(parts, 40)


def snail() -> list[Part]:
    slug = spline(
        (0.0, 0.9), (0.2, 0.86), (0.6, 0.82), (0.76, 0.6), (0.78, 0.42), (0.92, 0.38), (0.99, 0.5), (0.94, 0.76),
        (0.82, 0.93), (0.4, 0.96), steps=6,
    )  # fmt: skip
    spiral = spline((0.74, 0.66), (0.62, 0.28), (0.3, 0.26), (0.2, 0.52), (0.36, 0.68), (0.54, 0.58), (0.5, 0.42), (0.38, 0.44), closed=False)
    return [
        Part(polygon((0.84, 0.44), (0.78, 0.2)), "dark", 0.04, outline=False),
        Part(polygon((0.92, 0.44), (0.96, 0.18)), "dark", 0.04, outline=False),
        Part(slug, "pale"),
        Part(ellipse(0.4, 0.47, 0.38, 0.38), "body"),
        Part(spiral, "outline", 0.045, outline=False),
        Part(ellipse(0.9, 0.5, 0.03), "dark", outline=False),
    ]


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


NOUNS: dict[str, Callable[[], list[Part]]] = {
    f.__name__: f
    for f in (
        mug, teapot, house, tree, fish, boat, car, umbrella, mushroom, flower, cat, duck,
        butterfly, hat, boot, shirt, bell, crown, padlock, guitar, chair, rocket, snail, apple,
    )  # fmt: skip
}
