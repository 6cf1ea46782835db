"""Right answers of a model, image by image, by which two runs are compared."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.evaluation.views import View
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.files import RunFiles, read_json
from fgclip_fast.scenes.locate import embedded
from fgclip_fast.whole_file import write_json

CACHE = "outcomes.json"
"""File in a run's folder that keeps its outcomes."""

Outcomes = dict[str, dict[str, tuple[int, int]]]
"""suite → image → (right answers, questions)."""


def of_levels(model: FGCLIP, folder: Path) -> Outcomes:
    """Ask a model the questions of all levels of the embedded set; ``folder`` holds the levels."""
    found: Outcomes = {}
    for path in sorted(folder.glob("*seen/*.jsonl")):
        answers = fg_ovd.answer(model, path, folder / "images")
        pairs = ((line.image.name, rank == 0) for line, rank in zip(answers.lines, answers.ranks, strict=True))
        found[f"{path.parent.name}/{path.stem}"] = _by_image(pairs)
    return found


def cached(run: RunFiles, ask: Callable[[], Outcomes]) -> Outcomes:
    """Call ``ask``, or read its result of an earlier report on the same weights and the same embedded set."""
    path, key = run.path / CACHE, f"{run.weights and run.weights.name} {embedded().name}"
    saved = read_json(path)
    if saved.get("of") == key:
        return saved["outcomes"]
    found = ask()
    write_json(path, {"of": key, "outcomes": found}, indent=None)
    return found


def of_views(views: Sequence[View]) -> Outcomes:
    """Count a model's right answers to the questions about some images; boxes without negatives do not count."""
    pairs = [
        (view.image.name, view.best(i) == 0)
        for view in views
        for i, question in enumerate(view.image.questions)
        if len(question.texts) > 1
    ]
    return {"boxes with negatives": _by_image(pairs)} if pairs else {}


def _by_image(pairs: Iterable[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for image, right in pairs:
        before = found.get(image, (0, 0))
        found[image] = (before[0] + int(right), before[1] + 1)
    return found
