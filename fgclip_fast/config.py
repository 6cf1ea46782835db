"""What a run is: frozen values with units, defaults and a reason to refuse.

Every part of the package takes the one dataclass that it needs; ``presets.py`` holds values of :class:`Config`, and
the command line is made from it (the strings under the fields are its help).
"""

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["fp32", "bf16"]
Packing = Literal["none", "padding-free", "prefix-tree"]
Attention = Literal["auto", "sdpa", "triton", "flash", "xformers", "varlen"]
Decoder = Literal["auto", "cpu", "dali"]


@dataclass(frozen=True, kw_only=True)
class Vision:
    """Geometry of the vision tower (spec of CLIP's ViT); the default is ViT-B/16 at 224 pixels."""

    image_size: int = 224
    """Side of the square input, pixels."""
    patch_size: int = 16
    """Side of a patch, pixels."""
    width: int = 768
    """Width of the residual stream."""
    layers: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads."""
    mlp: int = 3072
    """Hidden width of the MLPs."""

    def __post_init__(self) -> None:
        _positive(self, "vision", ("image_size", "patch_size", "width", "layers", "heads", "mlp"))
        _require(
            self.image_size % self.patch_size == 0,
            "vision.image_size must be a multiple of vision.patch_size",
            (self.image_size, self.patch_size),
        )
        _require(
            self.width % self.heads == 0, "vision.width must be a multiple of vision.heads", (self.width, self.heads)
        )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class Text:
    """Geometry of the text tower; the position tables have 77 (short path) and 248 (long path) rows."""

    width: int = 512
    """Width of the residual stream."""
    layers: int = 12
    """Number of blocks."""
    heads: int = 8
    """Attention heads."""
    mlp: int = 2048
    """Hidden width of the MLPs."""
    vocabulary: int = 49408
    """Rows of the token embedding; CLIP's BPE has 49408."""

    def __post_init__(self) -> None:
        _positive(self, "text", ("width", "layers", "heads", "mlp", "vocabulary"))
        _require(self.width % self.heads == 0, "text.width must be a multiple of text.heads", (self.width, self.heads))


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    vision: Vision = field(default_factory=Vision)
    text: Text = field(default_factory=Text)
    projection: int = 512
    """Width D of the joint embedding."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """Activation of the MLPs; CLIP's and FG-CLIP's is quick_gelu."""
    layer_norm_eps: float = 1e-5
    """Epsilon of every LayerNorm."""
    mimetic: bool = False
    """Start attention near local mixing, and vision positions as 2-D sine/cosine: for small models from nothing."""
    packing: Packing = "none"
    """How texts share a step: padded, back to back, or as one prefix tree (docs/packing.md)."""
    attention: Attention = "auto"
    """Attention backend of the packed text tower; auto takes the fastest that runs here."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass."""
    compile: bool = False
    """Compile the blocks with torch.compile."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where samples come from and what is drawn from each."""

    train: str = "scenes"
    """Training shards: path, glob or {000..999} range of .tar files, their folder, or "scenes": the embedded set."""
    val: str = "scenes"
    """Validation shards, likewise; "" for none."""
    workers: int = 1
    """Decoding processes of each training process; 0 decodes in the training process itself."""
    decoder: Decoder = "auto"
    """Who decodes and resizes: workers on the CPU, or DALI on the GPU; auto is dali where a GPU and DALI are."""
    short_prefix: str = "a photo of "
    """Put before every short caption in training, as in the released code."""
    regions: int = 4
    """At most so many regions of an image, the first in file order."""
    negatives: int = 10
    """At most so many negatives of a region; 0: none."""
    box_margin: float = 0.0
    """Each side of a training box moves out by 0 to this many input pixels, drawn anew each visit."""
    lanes: int = 64
    """The set is dealt to so many lanes, each read in sequence; the number of processes must divide it."""
    window: int = 4
    """Samples are shuffled within so many consecutive shards of a lane."""

    def __post_init__(self) -> None:
        _positive(self, "data", ("regions", "lanes", "window"))
        _require(self.negatives >= 0, "data.negatives must be >= 0", self.negatives)
        _require(self.workers >= 0, "data.workers must be >= 0", self.workers)
        _require(self.box_margin >= 0, "data.box_margin must be >= 0", self.box_margin)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weights of FG-CLIP's four terms (arXiv 2505.05071, stage 2)."""

    short: float = 1.0
    """Global image to short caption term."""
    long: float = 1.0
    """Global image to long caption term."""
    region: float = 0.1
    """Region to region text contrastive term."""
    hard_negative: float = 0.5
    """Hard-negative term; 0 leaves it out."""
    mask_equal_texts: bool = False
    """Equal texts of a batch are no negatives of each other. Off in the paper; for small sets with repeated texts."""

    def __post_init__(self) -> None:
        for name in ("short", "long", "region", "hard_negative"):
            _require(getattr(self, name) >= 0, f"loss.{name} must be >= 0", getattr(self, name))  # nan too


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW with linear warm-up and half a cosine to zero, per step (spec of the released trainer)."""

    lr: float = 1e-6
    """Peak learning rate."""
    text_lr: float | None = None
    """Peak learning rate of the text tower without its projections; None: as lr."""
    weight_decay: float = 0.001
    """Decoupled weight decay; never on LayerNorm parameters and biases."""
    decay_scales: bool = True
    """Whether the three logit scales decay too, as in the released code."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    warmup: int = 200
    """Steps of linear warm-up."""
    clip: float = 0.0
    """Largest gradient norm; 0 clips nothing."""
    max_scale: float | None = None
    """Upper bound of the logit scales' exponentials, 100 in CLIP; None: unbounded, as released."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, "optim.lr must be > 0", self.lr)
        for name in ("weight_decay", "warmup", "clip"):
            _require(getattr(self, name) >= 0, f"optim.{name} must be >= 0", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training run; saved as ``config.yaml``, which alone repeats it."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    init: str | None = None
    """Folder of weights to start from (FG-CLIP, HF CLIP, or a run); its geometry replaces ``model``. None: random."""
    output: str | None = None
    """Folder of the run; None: runs/<date-time>. ``runs/last`` links to the newest."""
    resume: str | None = None
    """"auto": go on with ``output``'s (or the last run's) newest checkpoint; or the path of a run or checkpoint."""
    batch_size: int = 16
    """Images per process and step; the global batch is this times the number of processes."""
    micro_batch_size: int | None = None
    """Images per pass through the network; the gradient is still that of the whole batch. None: one pass."""
    steps: int | None = None
    """Optimizer steps; None: as many as ``epochs`` has."""
    epochs: float = 1.0
    """Passes over the training set; ignored where ``steps`` is given."""
    precision: Precision = "fp32"
    """bf16 runs the towers under autocast; weights, losses and statistics stay fp32."""
    device: str = "auto"
    """"cpu", "cuda", or auto."""
    threads: int | None = None
    """CPU threads of each process; None: torch's choice."""
    seed: int = 0
    """Of initialisation, order and every draw."""
    eval_every: int = 0
    """Validate every so many steps; 0: only at the end."""
    checkpoint_every: int = 500
    """Checkpoint every so many steps, and at the end; 0: only at the end."""
    keep: int = 2
    """Checkpoints to keep, the newest."""
    dry_run: bool = False
    """Print sizes, steps, memory and the first batch, and stop."""

    def __post_init__(self) -> None:
        _positive(self, "", ("batch_size", "keep"))
        for name in ("micro_batch_size", "steps", "threads"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be > 0", value)
        _require(self.epochs > 0, "epochs must be > 0", self.epochs)


def _positive(part: object, prefix: str, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(part, name)
        if not value > 0:
            raise ValueError(f"{prefix + '.' if prefix else ''}{name} must be > 0, got {value}")


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {got}")
