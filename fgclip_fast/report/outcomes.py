"""Right answers of a model, image by image, by which a run is compared with its start and with another run."""

from collections.abc import Sequence

from fgclip_fast import suites
from fgclip_fast.evaluation.figures import Outcomes
from fgclip_fast.evaluation.views import View
from fgclip_fast.figures_file import OUTCOMES, outcomes_of, save_outcomes
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.files import RunFiles, read_json
from fgclip_fast.scenes.locate import Source
from fgclip_fast.suites import Task
from fgclip_fast.training import checkpoint


def of_run(run: RunFiles, model: FGCLIP, source: Source) -> dict[str, Outcomes]:
    """Read a run's outcomes, or ask its model if those saved are of other weights or data.

    Args:
        run: a run with weights.
        model: these weights.
        source: the data; only outcomes on the run's own are saved.

    Returns:
        suite → outcomes.

    Raises:
        OSError: the validation shards do not exist.
    """
    assert run.weights is not None
    step = checkpoint.step_of(run.weights)
    saved = read_json(run.path / OUTCOMES)
    if saved.get("of") == outcomes_of(source, step):
        return saved["outcomes"]
    task = Task(data=source.data, loss=run.config.loss)
    found = suites.evaluate(model, suites.of_run(source), task)
    if source == run.source:
        save_outcomes(run.path, found, source, step)
    return {name: figures.outcomes for name, figures in found.items()}


def of_views(views: Sequence[View]) -> dict[str, tuple[int, int]]:
    """Count a model's right answers to the questions about some images: image → (right answers, questions).

    Boxes without negatives do not count.
    """
    found: dict[str, tuple[int, int]] = {}
    for view in views:
        answers = [view.best(i) == 0 for i, question in enumerate(view.image.questions) if len(question.texts) > 1]
        if answers:
            found[view.image.name] = (sum(answers), len(answers))
    return found
