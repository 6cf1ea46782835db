"""The settings of training: data, loss, optimizer, and the whole of a run.

Each part of the package takes the one dataclass that it needs. ``presets.py`` holds values of :class:`Config`, and the
command line is made from it; the strings under the fields are its help. The rule of a value stands in the type of its
field, ``width: Positive[int]`` (rules.py).
"""

from dataclasses import dataclass, field
from typing import Literal

from fgclip_fast.config.model import Model, Precision
from fgclip_fast.config.rules import (
    BelowOne,
    Device,
    Every,
    FilePath,
    Metric,
    MicroBatch,
    Name,
    NotNegative,
    Positive,
    Rate,
    Seed,
    Share,
    check,
    require,
)

Decoder = Literal["auto", "cpu", "dali"]
Freeze = Literal["text", "vision", "all-but-projections"]
Card = Literal["a10", "rtx4090", "l40s", "a100-40gb", "a100", "h100", "h200", "b200"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """The shards, and the part of each record that training uses."""

    train: str = "scenes"
    """Training shards: path, glob or {000..999} range of .tar files, their folder, a URL of these (s3://bucket/*.tar),
    or "scenes": the embedded set. "a/*.tar@2 b/*.tar@0.5" mixes sets: two passes of a and half of b an epoch."""
    val: str = "auto"
    """Validation shards, likewise; "" for none. auto: the embedded set where that is trained on, else none."""
    workers: NotNegative[int] = 1
    """Decoding processes of each training process; 0 decodes in the training process itself."""
    decoder: Decoder = "auto"
    """Decode and resize in the workers (cpu) or on the GPU (dali); auto: dali if there are a GPU and DALI, else cpu."""
    short_prefix: str = "a photo of "
    """Prefix of every short caption in training, as in the released code."""
    regions: Positive[int] = 4
    """Regions of an image at most in training; evaluation takes all."""
    region_choice: Literal["first", "random"] = "first"
    """Which regions of an image that has more: the first in file order, as released, or others at each visit."""
    negatives: NotNegative[int] = 10
    """Negatives of a region at most; 0: none. Training reads none either if loss.hard_negative is 0."""
    box_margin: NotNegative[float] = 0.0
    """Each side of a training box moves out by a random 0 to this many input pixels, anew at each visit."""
    crop: Share[tuple[float, float]] = (1.0, 1.0)
    """Least and largest share of an image's area that a visit shows, of its aspect, at a random place; boxes are cut to
    it, and a region of which less than half would be left is not used. 1 1: the whole. For decoder cpu."""
    flip: bool = False
    """Mirror every second visit or so, with its boxes. Only for texts that never say left and right."""
    lanes: Positive[int] = 64
    """Number of lanes that the shards are dealt to, each read in sequence; the number of processes must divide it."""
    window: Positive[int] = 4
    """Number of consecutive shards of a lane within which samples are shuffled."""

    def __post_init__(self) -> None:
        check(self, "data.")
        require(self.crop[0] <= self.crop[1], "data.crop must be least and largest, in this order", self.crop)
        views = self.decoder != "dali" or not self.draws_views
        require(views, "data.decoder must be cpu or auto with data.crop or data.flip", self.decoder)

    @property
    def draws_views(self) -> bool:
        """True if a visit may show another view than the whole image as it is."""
        return self.flip or self.crop != (1.0, 1.0)


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
    """Hard-negative term; 0 leaves it out, and training then reads no negatives."""
    mask_equal_texts: bool = False
    """Equal texts of a batch are not negatives of each other. Off in the paper; for small sets with repeated texts."""
    precision: Precision | None = None
    """Embeddings enter the contrastive terms rounded to bf16, for a GPU's tensor cores, or in fp32; statistics and sums
    are fp32 in both. None: bf16 on a GPU where a term has 8,192 pairs or more (over all processes), else fp32."""

    def __post_init__(self) -> None:
        check(self, "loss.")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW with linear warm-up and half a cosine to zero, per step, as in the released trainer."""

    lr: Rate = 1e-6
    """Peak learning rate."""
    text_lr: NotNegative[float | None] = None
    """Peak learning rate of the text tower without its projections; None: as lr. 0 changes none of its weights;
    freeze text does so too, and saves the time and memory of their gradients."""
    layer_decay: Share[float] = 1.0
    """The rate of each block is this times that of the block above; embeddings have the lowest, projections lr."""
    l2_start: NotNegative[float] = 0.0
    """Pull towards the weights that the run started from: each step moves by lr times this times the distance."""
    average: BelowOne[float] = 0.0
    """Decay of a moving average of the weights, such as 0.999, which is evaluated and saved as the model. 0: none."""
    weight_decay: NotNegative[float] = 0.001
    """Decoupled weight decay; never on LayerNorm parameters and biases."""
    decay_scales: bool = True
    """Let the three logit scales decay too, as in the released code."""
    betas: BelowOne[tuple[float, float]] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: Positive[float] = 1e-8
    """Added to the root of the second moment."""
    warmup: NotNegative[float] = 200
    """Steps of linear warm-up; below 1, a share of all steps."""
    clip: NotNegative[float] = 0.0
    """Largest gradient norm; 0 clips nothing."""
    max_scale: Positive[float | None] = None
    """Upper bound of the logit scales' exponentials, 100 in CLIP; None: unbounded, as released."""

    def __post_init__(self) -> None:
        check(self, "optim.")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685) of all linear layers in the blocks, in place of training the weights."""

    rank: NotNegative[int] = 0
    """Rank r of the product BA that is added to each weight; 0: no adapters. Only they and the logit scales train."""
    alpha: Positive[float | None] = None
    """The product counts alpha / rank times. None: once."""
    towers: Literal["both", "text", "vision"] = "both"
    """The towers that get adapters."""

    def __post_init__(self) -> None:
        check(self, "lora.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training run; saved as config.yaml, which alone repeats it."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    init: FilePath[str | None] = None
    """Folder of weights to start from (FG-CLIP, HF CLIP, or a run); its geometry replaces model. None: random."""
    trust_file: bool = False
    """Run what a pickle or TorchScript archive given as init asks for, if its weights cannot be read otherwise."""
    keep_scales: bool = False
    """Go on with the fine terms' logit scales of init; else both start from the global one, as in the released code."""
    freeze: Freeze | None = None
    """Train without a tower and its projections (text, vision), or only the projections. The logit scales train."""
    output: FilePath[str | None] = None
    """Folder of the run; None: runs/<date-time>. runs/last links to the newest."""
    resume: FilePath[str | None] = None
    """"auto": go on with output's (or the last run's) newest checkpoint; or the path of a run or checkpoint."""
    batch_size: Positive[int] = 16
    """Images per process and step; the global batch is this times the number of processes."""
    micro_batch_size: MicroBatch[int | Literal["auto"] | None] = None
    """Images per pass through the network; the gradient is still that of the whole batch. None: one pass; auto: the
    largest even share of the batch that fits the device's free memory, by count. A single process whose step runs out
    of memory goes on with half as many."""
    steps: Positive[int | None] = None
    """Optimizer steps; None: those of epochs."""
    epochs: Positive[float] = 1.0
    """Passes over the training set; ignored if steps is given."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16 runs the towers under autocast; weights and statistics stay fp32. auto: bf16 on a GPU that has it, and on a
    CPU where its products are faster than in fp32. Of the losses, see loss.precision."""
    device: Device = "auto"
    """auto (the first GPU, else the CPU), cpu, cuda or cuda:N."""
    threads: Positive[int | None] = None
    """CPU threads of each process; None: torch's choice."""
    seed: Seed = 0
    """Seed of initialisation, order and augmentation."""
    eval_every: Every[int | Literal["epoch"]] = 0
    """Steps from one validation to the next, or epoch; 0: validate only at the end."""
    keep_best: Metric[str | None] = None
    """A figure of the validation, such as hard_negative_top1: the checkpoint best by it stays in OUTPUT/best."""
    forgetting: FilePath[str | None] = None
    """Folder of public data sets in their published layout. The suites that find some there are evaluated at the end,
    with the trained weights and with those that the run started from; the report shows both. None: no such suites."""
    patience: NotNegative[int] = 0
    """Stop after this many validations without a better keep_best; 0: never."""
    checkpoint_every: NotNegative[int] = 500
    """Steps from one checkpoint to the next, beside the one at the end; 0 counts no steps."""
    checkpoint_minutes: NotNegative[float] = 15.0
    """Minutes after which a checkpoint is due in any case, so that no more is lost; 0 looks at no clock."""
    keep: Positive[int] = 2
    """Number of newest checkpoints to keep."""
    wandb: Name[str | None] = None
    """Project at Weights & Biases that the figures are sent to, too. None: not there."""
    trackio: Name[str | None] = None
    """Project in Trackio that the figures are sent to, too. None: not there."""
    max_skipped: NotNegative[int] = 20
    """Stop after this many steps in a row whose gradient is not finite, which change nothing; 0: never."""
    dry_run: bool = False
    """Print sizes, steps and the first batch, take a few steps to measure time and memory, and stop; with card, count
    instead."""
    card: Card | None = None
    """With dry_run: count whether a step fits this card, and the largest batch that does. None: not counted."""

    def __post_init__(self) -> None:
        check(self)
        require(not self.patience or self.keep_best, "patience needs --keep-best METRIC", self.patience)
        held = self.lora.rank == 0 or self.freeze is None
        require(held, "freeze must be left out with lora.rank; lora.towers says what trains", self.freeze)
        require(self.card is None or self.dry_run, "card must be left out without dry_run", self.card)

    @property
    def images_per_pass(self) -> int:
        """Images of a pass through the network; those of the batch where micro_batch_size is still auto."""
        return self.micro_batch_size if isinstance(self.micro_batch_size, int) else self.batch_size
