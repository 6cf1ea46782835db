"""What ``fgclip evaluate`` is asked: its options, which of them a suite reads, and the task that they make."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from fgclip_fast import preflight, suites
from fgclip_fast.config import Config, Data, yaml_file
from fgclip_fast.config.rules import BelowOne, Device, Positive, check
from fgclip_fast.scenes import locate
from fgclip_fast.suites import SUITES, Task

if TYPE_CHECKING:
    SuiteName = str
else:
    SuiteName = Literal[("auto", *SUITES)]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The model, and the questions to ask it."""

    run: Positional[str]
    """A run, or a folder of weights."""
    suite: tuple[SuiteName, ...] = ("auto",)
    """Suites to evaluate by; auto: those by which the run is evaluated at its end."""
    data: str | None = None
    """records: shards; fg-ovd: a .jsonl file or a folder of them; other suites: a file of questions, or a folder of
    data sets in their published layout. None: the run's own validation shards."""
    images: str = ""
    """Folder of the images that the questions name; "": for fg-ovd the current one, else the one of the questions."""
    classes: str = ""
    """File of class names: one a line in the order of the sorted folders, or folder and name. For zero-shot also a
    list of which folders name classes: imagenet, coco, lvis, or annotations in COCO's layout. "": the data set's."""
    templates: str = ""
    """File of templates for class names, with {} in the place of the name. "": OpenAI's 80 for ImageNet."""
    text: Literal["auto", "short", "long"] = "auto"
    """Path of captions: short (77 tokens), long (248), or auto, that of each protocol."""
    proposals: str = ""
    """ov-coco: JSON file of boxes in COCO's layout of results. "": the annotated boxes themselves."""
    background: BelowOne[float | None] = None
    """segmentation: a pixel is of the first class if no class has this share of the softmax of 40 cosines; 0: no
    threshold. None: 0.1 for VOC's 21 and Context's 60 classes, as SCLIP, and 0 elsewhere."""
    against: str | None = None
    """Weights to compare with on the same questions: a run, a folder or file of weights, or init, the weights that the
    run started from."""
    curve: bool = False
    """With --against: evaluate the weights between the two as well, at shares of 0.25, 0.5 and 0.75 of the model."""
    output: str | None = None
    """JSON file for the figures. None: the run's evaluation.json; with a limit or other data than there a file in
    RUN/evaluations/; for a folder of weights none. Rows for Markdown (.md) and LaTeX (.tex) are written beside it."""
    limit: Positive[int | None] = None
    """Questions or records at most, for each file; None: all."""
    batch_size: Positive[int] = 32
    """Images a forward pass; more than 32 are passed in parts of 32, so that figures do not depend on it."""
    trust_file: bool = False
    """Run what a pickle or TorchScript archive asks for, if its weights cannot be read otherwise."""
    allow_partial: bool = False
    """End with status 0 although fewer than half of a suite's questions could be asked."""
    text_cache: str = "auto"
    """Folder that keeps embeddings of texts, so that no command embeds a text anew with the same weights; auto: in
    ~/.cache; off: none."""
    device: Device = "auto"
    """auto (the first GPU, else the CPU), cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check(self)
        if not self.suite or ("auto" in self.suite and len(self.suite) > 1):
            raise ValueError(f"suite must be auto alone, or other suites, got {' '.join(self.suite) or 'nothing'}")
        if self.curve and self.against is None:
            raise ValueError("curve is of the weights between two models, so name the other by --against")

    @property
    def automatic(self) -> bool:
        """True for the suites by which the run is evaluated at its end."""
        return self.suite == ("auto",)


DESCRIPTION = "\n".join(
    [
        "Measure what a model can do: print the figures as tables and write them as JSON.\n",
        "Suites:",
        *(f"{name}: {suite.purpose}." for name, suite in SUITES.items()),
    ]
)


def refuse_unused(request: Request) -> None:
    """Refuse an option that the suite does not read: its user would believe that the figures are of something else."""
    used = {option for name in request.suite if name in SUITES for option in SUITES[name].options}
    for option in ("data", "images", "classes", "templates", "text", "proposals", "background"):
        if getattr(request, option) not in ("", None, "auto") and option not in used:
            readers = ", ".join(name for name, suite in SUITES.items() if option in suite.options)
            raise ValueError(f"{option} is for --suite {readers}, got it with --suite {' '.join(request.suite)}")


def task_of(request: Request) -> tuple[list[str], Task]:
    """The suites to evaluate by, and what they need."""
    saved = Path(request.run) / "config.yaml"
    config = yaml_file.load(saved) if saved.exists() else Config(data=Data(train="", val=""))
    if request.automatic and not config.data.val:
        has = "has no validation shards" if saved.exists() else "is not a run with a config.yaml"
        raise ValueError(f"suite: {request.run} {has}, so give one: --suite {', '.join(SUITES)}")
    alone = len(request.suite) == 1
    if request.suite == ("records",) and request.data:
        preflight.list_shards("data", request.data)
    # Only the shards that the suite reads: resolving the word "scenes" may write the embedded set.
    shards = request.data if alone and request.data else config.data.val
    val = config.data.val if request.automatic else shards if "records" in request.suite else ""
    source = locate.resolve(replace(config.data, train="", val=val))
    task = Task(
        data=source.data,
        loss=config.loss,
        questions=Path(request.data) if request.data else None,
        images=Path(request.images) if request.images else None,
        classes=Path(request.classes) if request.classes else None,
        templates=Path(request.templates) if request.templates else None,
        proposals=Path(request.proposals) if request.proposals else None,
        background=request.background,
        kind=None if request.text == "auto" else request.text,
        several=not alone,
        batch_size=request.batch_size,
        limit=request.limit,
    )
    return suites.of_run(source) if request.automatic else list(dict.fromkeys(request.suite)), task


def may_replace(request: Request) -> bool:
    """True for figures that may stand in the run's own file, if they are not of other data than those there."""
    if request.limit is not None:
        return False
    if request.suite != ("records",) or request.data is None:
        return True
    return request.data == yaml_file.load(Path(request.run) / "config.yaml").data.val
