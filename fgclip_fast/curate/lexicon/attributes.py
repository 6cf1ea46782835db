"""Attribute words by kind, and what each may truthfully be said of: crimson is red, steel is metal.

A value stands for a set of *shades*. Two values of one dimension contradict each other if they share no shade; only
then may one replace the other in a negative.
"""

from typing import NamedTuple

KINDS = ("color", "material", "pattern", "transparency", "finish", "size", "count", "state", "action", "spatial")
"""Kinds of attributes, in the order of reports; the first four are those of FG-OVD."""


class Value(NamedTuple):
    """A word, or several, that names a value of an attribute."""

    words: str
    kind: str
    dimension: str
    """Values exclude each other within a dimension: size has size, height, length, width, thickness."""
    form: str
    """Values replace each other in one form: ``adjective``, ``noun`` ("of wood"), ``sits``, ``sitting`` or ``sit``."""
    shades: frozenset[str]
    drawn: bool
    """True if a negative may name it; other values are only recognised."""


def values() -> dict[str, tuple[Value, ...]]:
    """All values by their words, in lower case; "wood" has the forms adjective ("wood chair") and noun ("of wood")."""
    found: dict[str, list[Value]] = {}
    for value in (*_colors(), *_adjectives(), *_materials_after_of(), *_actions(), *_spatial()):
        found.setdefault(value.words, []).append(value)
    return {words: tuple(each) for words, each in found.items()}


BASIC_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white")
"""The basic colours; all but black and white have a light and a dark shade."""

# Name: the shades that it may be, for eyes that judge a photograph. A basic colour is all of its own shades.
_OTHER_COLORS = {
    "light": {
        "beige": "brown white yellow", "cream": "white yellow", "ivory": "white yellow", "tan": "brown orange",
        "khaki": "brown green yellow", "turquoise": "blue green", "aqua": "blue green", "cyan": "blue green",
        "teal": "blue green", "mint": "green", "lime": "green yellow", "lavender": "purple pink", "lilac": "purple",
        "peach": "orange pink", "coral": "orange pink red", "salmon": "pink orange", "silver": "grey white",
        "golden": "yellow brown orange", "gold": "yellow brown orange", "blond": "yellow brown",
        "blonde": "yellow brown",
    },
    "dark": {
        "crimson": "red", "scarlet": "red", "maroon": "red brown purple", "burgundy": "red purple brown",
        "navy": "blue black", "navy blue": "blue black", "indigo": "blue purple", "violet": "purple",
        "magenta": "pink purple red", "teal": "blue green", "olive": "green brown yellow", "bronze": "brown orange",
        "copper": "brown orange", "rust": "brown orange red", "charcoal": "grey black", "amber": "orange yellow",
        "mustard": "yellow brown", "emerald": "green", "sky blue": "blue", "royal blue": "blue",
    },
}  # fmt: skip
# Shades of two basic colours that look alike.
_ALIKE = {"light red": "pink", "dark orange": "brown", "light brown": "orange", "light grey": "white"}


def _colors() -> list[Value]:
    every = {color: {f"light {color}", color, f"dark {color}"} for color in BASIC_COLORS}
    shades: dict[str, set[str]] = {}
    for color in BASIC_COLORS:
        shades[color] = set(every[color])
        if color not in ("black", "white"):
            shades |= {f"{tone} {color}": {f"{tone} {color}"} for tone in ("light", "dark")}
    for one, other in _ALIKE.items():
        shades[one] |= every[other]
    drawn = set(shades)
    for tone, colors in _OTHER_COLORS.items():
        for name, basics in colors.items():
            near = {shade for basic in basics.split() for shade in (*every[basic], f"{tone} {basic}")}
            shades[name] = shades.get(name, set()) | near
    shades |= {name.replace("grey", "gray"): found for name, found in shades.items() if "grey" in name}
    for tone, others in (("pale", "light"), ("bright", "light"), ("deep", "dark")):
        shades |= {f"{tone} {color}": every[color] | shades[f"{others} {color}"] for color in BASIC_COLORS[:8]}
    drawn |= {name.replace("grey", "gray") for name in drawn}
    anything = {shade for found in every.values() for shade in found}
    shades |= {name: anything for name in ("colorful", "colourful", "multicolored", "multicoloured", "rainbow")}
    return [
        Value(name, "color", "color", "adjective", frozenset(found), name in drawn) for name, found in shades.items()
    ]


# Kind and dimension: lines of words that may be said of the same thing. Behind "|" are words that are recognised but
# never drawn. A line that names the first word of another line as "=word" shares its shade.
_ADJECTIVES = {
    ("material", "material"): """
        wooden | wood, bamboo, oak, plywood, timber
        metal | metallic, steel, iron, brass, aluminum, aluminium, chrome, tin, stainless steel, wrought iron
        plastic | vinyl, acrylic, =rubber
        glass | crystal
        leather | suede
        ceramic | porcelain, clay, terracotta, earthenware
        stone | marble, granite, concrete, cement
        paper | cardboard
        fabric | cotton, wool, woolen, woollen, silk, denim, velvet, linen, cloth, canvas, satin, lace, felt, knitted
        rubber | latex, =plastic
        wicker | rattan, straw, =wooden
        brick | =stone, =ceramic
    """,
    ("pattern", "pattern"): """
        plain | solid, unpatterned
        striped | pinstriped, stripy
        dotted | polka dot, polka dotted, spotted, speckled
        checkered | checked, plaid, tartan, gingham, chequered
        floral | flowered, flowery, =printed
        camouflage | camo, =printed
        paisley | =printed
        zigzag | chevron, herringbone
        patterned | printed, =striped, =dotted, =checkered, =floral, =camouflage, =paisley, =zigzag
    """,
    ("transparency", "transparency"): """
        opaque
        translucent | frosted, semi transparent
        transparent | see through, clear
    """,
    ("finish", "finish"): """
        matte | matt, dull
        glossy, shiny | polished, gleaming, lustrous, lacquered, varnished
        glowing | luminous, illuminated
        snowy | snow covered, frosty
        dusty
        muddy
        rusty | rusted
    """,
    ("size", "size"): """
        small, tiny | little, miniature, mini
        large, huge | big, giant, enormous, massive, oversized, gigantic
        medium sized
    """,
    ("size", "height"): "tall\nshort | low",
    ("size", "length"): "long\nshort",
    ("size", "width"): "wide | broad\nnarrow",
    ("size", "thickness"): "thick | chunky\nthin | slim, slender",
    ("count", "count"): """
        two\nthree\nfour\nfive\nsix\nseven | =many, =several\neight | =many, =several
        | several, =three, =four, =five, =six
        | many, =six
    """,
    ("state", "opening"): "open | opened\nclosed | shut",
    ("state", "filling"): "empty\nfull",
    ("state", "wetness"): "wet | soaked, damp\ndry",
    ("state", "cleanness"): "clean\ndirty | filthy, stained, grimy",
    ("state", "age"): "old | elderly, aged, ancient, worn\nnew | young, brand new\n",
    ("state", "wholeness"): "broken | cracked, shattered, chipped\nintact",
    ("state", "ripeness"): "ripe\nunripe",
    ("state", "folding"): "folded\nunfolded",
    ("state", "cooking"): "cooked | fried, baked, grilled, roasted\nraw | uncooked",
    ("state", "shape"): "round | circular, oval\nsquare | =rectangular\nrectangular\ntriangular",
    ("state", "curl"): "curly | wavy\nstraight",
}


def _adjectives() -> list[Value]:
    found = []
    for (kind, dimension), lines in _ADJECTIVES.items():
        for line in filter(None, map(str.strip, lines.splitlines())):
            drawn, _, others = (part.strip() for part in line.partition("|"))
            words = [word.strip() for word in f"{drawn},{others}".split(",") if word.strip()]
            names = [word for word in words if not word.startswith("=")]
            shades = frozenset([names[0], *(word[1:] for word in words if word.startswith("="))])
            targets = {word.strip() for word in drawn.split(",")}
            found += [Value(word, kind, dimension, "adjective", shades, word in targets) for word in names]
    return found


_AFTER_OF = {"wooden": "wood", "woolen": "wool", "woollen": "wool", "metallic": "metal"}
_NO_NOUN = {"knitted", "wool"}  # "wool" comes from "woolen"


def _materials_after_of() -> list[Value]:
    materials = [value for value in _adjectives() if value.kind == "material" and value.words not in _NO_NOUN]
    nouns = {_AFTER_OF.get(value.words, value.words): value for value in reversed(materials)}
    return [value._replace(words=words, form="noun") for words, value in nouns.items()]


# Dimension: lines of verbs, in the forms "sits", "sitting" and "sit", that may be said of one and the same moment.
_VERBS = {
    "posture": "sit stand lie kneel crouch hang lean",
    "movement": "walk run jump swim fly dance climb sleep",
    "face": "smile cry yawn",
    "hands": "push pull",
    "mouth": "eat drink",
}
_ENDINGS = {
    "sits": {"lie": "lies", "fly": "flies", "cry": "cries", "push": "pushes", "crouch": "crouches"},
    "sitting": {
        "lie": "lying", "sit": "sitting", "run": "running", "swim": "swimming", "dance": "dancing", "smile": "smiling",
    },
}  # fmt: skip


def _actions() -> list[Value]:
    found = []
    for dimension, verbs in _VERBS.items():
        for verb in verbs.split():
            forms = {"sits": _ENDINGS["sits"].get(verb, f"{verb}s"), "sit": verb}
            forms["sitting"] = _ENDINGS["sitting"].get(verb, f"{verb}ing")
            for form, words in forms.items():
                found.append(Value(words, "action", dimension, form, frozenset([verb]), verb not in ("hang", "lean")))
    return found


_SPATIAL = {
    "side": ("left", "right"),
    "level": ("upper", "lower"),
    "end": ("top", "bottom"),
    "depth": ("foreground", "background"),
    "height": ("above", "below"),
    "front": ("in front of", "behind"),
    "inside": ("inside", "outside"),
}


def _spatial() -> list[Value]:
    return [
        Value(word, "spatial", dimension, "spatial", frozenset([word]), True)
        for dimension, pair in _SPATIAL.items()
        for word in pair
    ]
