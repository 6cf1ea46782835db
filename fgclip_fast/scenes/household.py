"""Drawings of the nouns that belong to a house."""

from fgclip_fast.scenes.shapes import Part, arc, box, ellipse, join, polygon, rounded, spline, turned


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


def chair() -> list[Part]:
    legs = [
        ((0.2, 0.66), (0.16, 0.98)),
        ((0.82, 0.66), (0.86, 0.98)),
        ((0.34, 0.6), (0.33, 0.86)),
        ((0.68, 0.6), (0.69, 0.86)),
    ]
    return [
        *(Part(polygon(*leg), "dark", 0.065, outline=False) for leg in reversed(legs)),
        Part(rounded((0.2, 0.02), (0.8, 0.02), (0.76, 0.58), (0.24, 0.58), radius=0.1), "body"),
        Part(rounded((0.24, 0.5), (0.76, 0.5), (0.94, 0.72), (0.06, 0.72), radius=0.06), "tint"),
        Part(box(0.06, 0.68, 0.94, 0.77, 0.03), "shade"),
    ]


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


def hat() -> list[Part]:
    brim = spline((0.0, 0.74), (0.2, 0.7), (0.5, 0.74), (0.8, 0.7), (1.0, 0.74), (0.82, 0.9), (0.5, 0.95), (0.18, 0.9))
    crown = spline(
        (0.22, 0.8), (0.26, 0.4), (0.3, 0.1), (0.5, 0.15), (0.7, 0.1), (0.74, 0.4), (0.78, 0.8), (0.5, 0.86), steps=6
    )
    band = polygon((0.225, 0.62), (0.775, 0.62), (0.785, 0.77), (0.5, 0.81), (0.215, 0.77))
    return [Part(brim, "body"), Part(crown, "body"), Part(band, "dark", outline=False)]


def boot() -> list[Part]:
    leather = spline(
        (0.26, 0.1), (0.62, 0.1), (0.62, 0.42), (0.68, 0.54), (0.88, 0.6), (0.97, 0.74), (0.96, 0.86),
        (0.6, 0.87), (0.22, 0.87), (0.24, 0.5), steps=5,
    )  # fmt: skip
    return [
        Part(
            rounded((0.2, 0.84), (0.98, 0.84), (0.98, 0.94), (0.5, 0.94), (0.46, 0.98), (0.2, 0.98), radius=0.03),
            "dark",
        ),
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


def crown() -> list[Part]:
    gold = polygon((0.08, 0.9), (0.02, 0.28), (0.27, 0.56), (0.5, 0.14), (0.73, 0.56), (0.98, 0.28), (0.92, 0.9))
    gems = [Part(ellipse(x, y, 0.065), "pale") for x, y in ((0.04, 0.24), (0.5, 0.1), (0.96, 0.24))]
    return [
        Part(gold, "body"),
        Part(box(0.06, 0.76, 0.94, 0.94, 0.03), "shade"),
        *gems,
        *(Part(ellipse(x, 0.85, 0.045), "pale", outline=False) for x in (0.24, 0.5, 0.76)),
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


def padlock() -> list[Part]:
    shackle = join(
        polygon((0.27, 0.56), (0.27, 0.34)), arc(0.5, 0.32, 0.23, 0.24, 180, 360), polygon((0.73, 0.34), (0.73, 0.56))
    )
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
    return turned(parts, 45)
