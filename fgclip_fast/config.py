"""What a run is: frozen values with units, defaults and a reason to refuse.

Every part of the package takes the one dataclass that it needs; ``presets.py`` holds values of :class:`Config`, and
the command line is made from it (the strings under the fields are its help). What a value may be stands in its
field's type, ``width: Positive[int]``, and :func:`check` holds it there.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_type_hints


class Rule(NamedTuple):
    """What a value may be: in the words of a message, and as a test."""

    words: str
    holds: Callable[[Any], bool]


T = TypeVar("T")
Positive = Annotated[T, Rule("> 0", lambda x: x > 0)]
NotNegative = Annotated[T, Rule(">= 0", lambda x: x >= 0)]
BelowOne = Annotated[T, Rule("in [0, 1)", lambda x: 0 <= x < 1)]
Seed = Annotated[int, Rule("in [-2^63, 2^63)", lambda x: -(2**63) <= x < 2**63)]  # torch takes no more
Device = Annotated[str, Rule("auto, cpu, cuda or cuda:0", lambda x: re.fullmatch(r"auto|cpu|cuda(:\d+)?", x))]
Place = Annotated[T, Rule("a path, not an empty word", bool)]  # Path("") is the folder that one stands in

Precision = Literal["fp32", "bf16"]
Packing = Literal["none", "padding-free", "prefix-tree"]
Attention = Literal["auto", "sdpa", "triton", "flash", "xformers", "varlen"]
Decoder = Literal["auto", "cpu", "dali"]
Card = Literal["a10", "rtx4090", "l40s", "a100-40gb", "a100", "h100", "h200", "b200"]


@dataclass(frozen=True, kw_only=True)
class Vision:
    """Geometry of the vision tower, CLIP's ViT; the default is ViT-B/16 at 224 pixels."""

    image_size: Positive[int] = 224
    """Side of the square input, pixels."""
    patch_size: Positive[int] = 16
    """Side of a patch, pixels."""
    width: Positive[int] = 768
    """Width of the residual stream."""
    layers: Positive[int] = 12
    """Number of blocks."""
    heads: Positive[int] = 12
    """Attention heads."""
    mlp: Positive[int] = 3072
    """Hidden width of the MLPs."""

    def __post_init__(self) -> None:
        check(self, "model.vision.")
        _divides(self, "model.vision.", "image_size", "patch_size")
        _divides(self, "model.vision.", "width", "heads")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class Text:
    """Geometry of the text tower; the position tables have 77 (short path) and 248 (long path) rows."""

    width: Positive[int] = 512
    """Width of the residual stream."""
    layers: Positive[int] = 12
    """Number of blocks."""
    heads: Positive[int] = 8
    """Attention heads."""
    mlp: Positive[int] = 2048
    """Hidden width of the MLPs."""
    vocabulary: Positive[int] = 49408
    """Rows of the token embedding; CLIP's BPE has 49408."""

    def __post_init__(self) -> None:
        check(self, "model.text.")
        _divides(self, "model.text.", "width", "heads")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    vision: Vision = field(default_factory=Vision)
    text: Text = field(default_factory=Text)
    projection: Positive[int] = 512
    """Width D of the joint embedding."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """Activation of the MLPs; CLIP's and FG-CLIP's is quick_gelu."""
    layer_norm_eps: Positive[float] = 1e-5
    """Epsilon of every LayerNorm."""
    mimetic: bool = False
    """Start attention near local mixing, and vision positions as 2-D sine/cosine: for small models from nothing."""
    packing: Packing = "none"
    """How texts share a step: padded, back to back, or as one prefix tree (docs/packing.md)."""
    attention: Attention = "auto"
    """Attention backend of the packed text tower; auto takes the fastest that runs here."""
    residual: Precision = "fp32"
    """Residual stream where products run in bf16: fp32, or bf16, which moves and keeps less and rounds each sum."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass."""
    compile: bool = False
    """Compile the blocks with torch.compile."""

    def __post_init__(self) -> None:
        check(self, "model.")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where samples come from and what is drawn from each."""

    train: str = "scenes"
    """Training shards: path, glob or {000..999} range of .tar files, their folder, or "scenes": the embedded set."""
    val: str = "scenes"
    """Validation shards, likewise; "" for none."""
    workers: NotNegative[int] = 1
    """Decoding processes of each training process; 0 decodes in the training process itself."""
    decoder: Decoder = "auto"
    """Who decodes and resizes: workers on the CPU, or DALI on the GPU; auto is dali where a GPU and DALI are."""
    short_prefix: str = "a photo of "
    """Put before every short caption in training, as in the released code."""
    regions: Positive[int] = 4
    """At most so many regions of an image, the first in file order."""
    negatives: NotNegative[int] = 10
    """At most so many negatives of a region; 0: none."""
    box_margin: NotNegative[float] = 0.0
    """Each side of a training box moves out by 0 to this many input pixels, drawn anew each visit."""
    lanes: Positive[int] = 64
    """The set is dealt to so many lanes, each read in sequence; the number of processes must divide it."""
    window: Positive[int] = 4
    """Samples are shuffled within so many consecutive shards of a lane."""

    def __post_init__(self) -> None:
        check(self, "data.")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weights of FG-CLIP's four terms (arXiv 2505.05071, stage 2)."""

    short: NotNegative[float] = 1.0
    """Global image to short caption term."""
    long: NotNegative[float] = 1.0
    """Global image to long caption term."""
    region: NotNegative[float] = 0.1
    """Region to region text contrastive term."""
    hard_negative: NotNegative[float] = 0.5
    """Hard-negative term; 0 leaves it out."""
    mask_equal_texts: bool = False
    """Equal texts of a batch are no negatives of each other. Off in the paper; for small sets with repeated texts."""

    def __post_init__(self) -> None:
        check(self, "loss.")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW with linear warm-up and half a cosine to zero, per step, as in the released trainer."""

    lr: Positive[float] = 1e-6
    """Peak learning rate."""
    text_lr: NotNegative[float | None] = None
    """Peak learning rate of the text tower without its projections; None: as lr. 0 holds it still."""
    weight_decay: NotNegative[float] = 0.001
    """Decoupled weight decay; never on LayerNorm parameters and biases."""
    decay_scales: bool = True
    """Whether the three logit scales decay too, as in the released code."""
    betas: BelowOne[tuple[float, float]] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: Positive[float] = 1e-8
    """Added to the root of the second moment."""
    warmup: NotNegative[int] = 200
    """Steps of linear warm-up."""
    clip: NotNegative[float] = 0.0
    """Largest gradient norm; 0 clips nothing."""
    max_scale: Positive[float | None] = None
    """Upper bound of the logit scales' exponentials, 100 in CLIP; None: unbounded, as released."""

    def __post_init__(self) -> None:
        check(self, "optim.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training run; saved as ``config.yaml``, which alone repeats it."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    init: Place[str | None] = None
    """Folder of weights to start from (FG-CLIP, HF CLIP, or a run); its geometry replaces ``model``. None: random."""
    output: Place[str | None] = None
    """Folder of the run; None: runs/<date-time>. ``runs/last`` links to the newest."""
    resume: Place[str | None] = None
    """"auto": go on with ``output``'s (or the last run's) newest checkpoint; or the path of a run or checkpoint."""
    batch_size: Positive[int] = 16
    """Images per process and step; the global batch is this times the number of processes."""
    micro_batch_size: Positive[int | None] = None
    """Images per pass through the network; the gradient is still that of the whole batch. None: one pass."""
    steps: Positive[int | None] = None
    """Optimizer steps; None: as many as ``epochs`` has."""
    epochs: Positive[float] = 1.0
    """Passes over the training set; ignored where ``steps`` is given."""
    precision: Precision = "fp32"
    """bf16 runs the towers under autocast; weights, losses and statistics stay fp32."""
    device: Device = "auto"
    """"cpu", "cuda", or auto."""
    threads: Positive[int | None] = None
    """CPU threads of each process; None: torch's choice."""
    seed: Seed = 0
    """Of initialisation, order and every draw."""
    eval_every: NotNegative[int] = 0
    """Validate every so many steps; 0: only at the end."""
    checkpoint_every: NotNegative[int] = 500
    """Checkpoint every so many steps, and at the end; 0: only at the end."""
    keep: Positive[int] = 2
    """Checkpoints to keep, the newest."""
    dry_run: bool = False
    """Print sizes, steps, memory and the first batch, and stop."""
    card: Card | None = None
    """With dry_run: tell whether a step fits this card, by count, and how many images do. None: not counted."""

    def __post_init__(self) -> None:
        check(self)
        _require(self.card is None or self.dry_run, "card must be left out without dry_run", self.card)


def check(part: object, prefix: str = "") -> None:
    """Holds each field of a dataclass to the rule in its type; None, where it is a default, is held to nothing.

    Raises:
        ValueError: a value that its rule or finiteness forbids; the message names ``prefix`` and the field.
    """
    for name, hint in get_type_hints(type(part), include_extras=True).items():
        rules = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Rule)]
        value = getattr(part, name)
        for one in value if isinstance(value, tuple) else (value,):
            for rule in rules if one is not None else ():
                _require(rule.holds(one), f"{prefix}{name} must be {rule.words}", value)
            finite = not isinstance(one, float) or math.isfinite(one)
            _require(finite, f"{prefix}{name} must be finite", value)


def _divides(part: object, prefix: str, name: str, divisor: str) -> None:
    whole, size = getattr(part, name), getattr(part, divisor)
    _require(whole % size == 0, f"{prefix}{name} must be a multiple of {prefix}{divisor}", (whole, size))


def _require(holds: object, rule: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {got if got != '' else repr(got)}")
