"""Draw the floors of the package from its imports: ``python docs/floors.py`` writes ``docs/floors.svg``.

A room is a folder of the package, or a file in its root; ``csrc/`` is the extension ``fgclip_fast._native``. A room
stands one floor above the highest room that it imports from, so every import points down. The drawing shows each
import that no other path of imports implies.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "fgclip_fast"
DRAWING = ROOT / "docs" / "floors.svg"

WIDTH, FLOOR, MARGIN = 1000, 92, 20  # pixels
ROOM_HEIGHT, LETTER, GAP = 34, 8.2, 16


def rooms() -> dict[str, set[str]]:
    """Each room, and the rooms that its files import from, inside functions too."""
    found: dict[str, set[str]] = {"csrc": set()}
    for file in sorted((ROOT / PACKAGE).rglob("*.py")) + sorted((ROOT / "kernels").rglob("*.py")):
        room = _room(file)
        if room is not None:
            found.setdefault(room, set()).update(_imported_by(file) - {room})
    return {room: {other for other in others if other in found} for room, others in found.items()}


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by floor, the lowest first.

    Raises:
        ValueError: rooms import each other in a circle.
    """
    height: dict[str, int] = {}
    while len(height) < len(imports):
        ready = [room for room in imports if room not in height and imports[room] <= height.keys()]
        if not ready:
            raise ValueError(f"floors: rooms must not import each other, got {sorted(imports.keys() - height.keys())}")
        for room in ready:
            height[room] = max((height[other] + 1 for other in imports[room]), default=0)
    top = max(height.values())
    return [sorted(room for room in height if height[room] == floor) for floor in range(top + 1)]


def direct(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no other path of imports implies."""
    below: dict[str, set[str]] = {}
    for room in (room for floor in floors(imports) for room in floor):
        below[room] = set().union(*(below[other] | {other} for other in imports[room]))
    implied = {room: set().union(*(below[other] for other in imports[room])) for room in imports}
    return sorted((room, other) for room in imports for other in imports[room] - implied[room])


def draw() -> str:
    """The drawing, an SVG."""
    imports = rooms()
    levels = floors(imports)
    boxes = _boxes(_arranged(levels, direct(imports)))
    height = FLOOR * len(levels) + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    lines = sorted(direct(imports), key=_between_folders)  # those of folders lie on top
    parts += [_line(boxes[upper], boxes[lower], _between_folders((upper, lower))) for upper, lower in lines]
    parts += [part for name, box in boxes.items() for part in _shown(name, box)]
    return "\n".join([*parts, "</svg>", ""])


def _room(file: Path) -> str | None:
    """The folder ``ops`` of ``ops/native.py``; ``train`` of ``train.py``; None for files that only hand out names.

    A ``__main__.py`` is a command, which may import from every room.
    """
    if not file.is_relative_to(ROOT / PACKAGE):
        return "kernels"
    parts = file.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return None if parts[0] == "__init__" or parts[-1] == "__main__" else parts[0]


def _imported_by(file: Path) -> set[str]:
    names = (name for name in _names(ast.parse(file.read_text())) if name.startswith(f"{PACKAGE}."))
    return {name.split(".")[1].replace("_native", "csrc") for name in names}


def _names(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that a file imports, ``importlib.import_module("…")`` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def _arranged(levels: list[list[str]], lines: list[tuple[str, str]]) -> list[list[str]]:
    """Each floor's rooms, from left to right as the rooms below that they lead to."""
    place: dict[str, float] = {}
    arranged = []
    for level in levels:
        under = {room: [place[lower] for upper, lower in lines if upper == room] for room in level}
        order = sorted(level, key=lambda room: (sum(under[room]) / len(under[room]) if under[room] else 0.5, room))
        place |= {room: (number + 1) / (len(order) + 1) for number, room in enumerate(order)}
        arranged.append(order)
    return arranged


def _boxes(levels: list[list[str]]) -> dict[str, tuple[float, float, float]]:
    """Left edge, top edge and width of each room, the lowest floor at the bottom."""
    boxes = {}
    for number, level in enumerate(levels):
        widths = [LETTER * len(_label(room)) + 24 for room in level]
        space = (WIDTH - 2 * MARGIN - sum(widths)) / (len(level) + 1)
        left, top = MARGIN + space, MARGIN + FLOOR * (len(levels) - 1 - number) + (FLOOR - ROOM_HEIGHT) / 2
        for room, width in zip(level, widths, strict=True):
            boxes[room] = left, top, width
            left += width + max(space, GAP)
    return boxes


def _label(room: str) -> str:
    return f"{room}/" if (ROOT / room).is_dir() or (ROOT / PACKAGE / room).is_dir() else f"{room}.py"


def _between_folders(line: tuple[str, str]) -> bool:
    return all(_label(room).endswith("/") for room in line)


def _line(upper: tuple[float, float, float], lower: tuple[float, float, float], dark: bool) -> str:
    """A curve from the lower edge of one room to the upper edge of another."""
    x1, y1 = upper[0] + upper[2] / 2, upper[1] + ROOM_HEIGHT
    x2, y2 = lower[0] + lower[2] / 2, lower[1]
    bend = (y2 - y1) / 2
    path = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
    return f'<path d="{path}" fill="none" stroke="{"#5b6b7a" if dark else "#c9d1d9"}" stroke-width="1.4"/>'


def _shown(room: str, box: tuple[float, float, float]) -> list[str]:
    left, top, width = box
    fill = "#dcebfa" if _label(room).endswith("/") else "#fdf1d8"  # a folder, a file
    shape = f'x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{ROOM_HEIGHT}" rx="5"'
    text = f'x="{left + width / 2:.0f}" y="{top + 22:.0f}" text-anchor="middle" font-size="15"'
    return [f'<rect {shape} fill="{fill}" stroke="#5b6b7a"/>', f"<text {text}>{_label(room)}</text>"]


if __name__ == "__main__":
    DRAWING.write_text(draw())
    print(DRAWING)
