"""Every setting, with the reason for its default.

The fields' docstrings become the help on the command line. Every verb takes all of these settings,
so that the same arguments fit a sequence of verbs; a setting of one verb is declared in that verb.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from cellline.errors import UserError

# Used if neither the command line, the run nor a tuning decides: the known solution's values.
DEFAULT_LR = 1e-3
DEFAULT_BATCH_SIZE = 64

# Between a run's name and its seed.
SEED = "-seed"

MetricName = Literal[
    "balanced_accuracy",
    "accuracy",
    "macro_f1",
    "log_loss",
    "roc_auc",
    "quadratic_kappa",
    "map5",
]
Output = Literal["label", "probability", "probabilities", "top5"]
Resize = Literal["squash", "crop", "pad"]
Symmetry = Literal["d4", "flips", "mirror", "none"]


@dataclass(frozen=True)
class Reading:
    """Settings for reading the input folder. Anything unset is inferred from the files.

    `oof/folds.json` records the result, so that later verbs need none of these settings.
    """

    labels: str | None = None
    """Table of the training labels, or the folder that holds a folder for each class."""
    id_column: str | None = None
    """Column of ids or file names in the table of labels."""
    label_column: str | None = None
    """Column of the labels."""
    train_images: str | None = None
    """Folder or archive with the training images."""
    test_images: str | None = None
    """Folder or archive with the test images."""
    template: str | None = None
    """Table to fill in: its ids are the test samples, its header is the submission's."""
    template_id_column: str | None = None
    """Column of ids in the template."""
    extra_images: Literal["refuse", "omit"] = "refuse"
    """Images without a row in the table: refuse them as a mistake, or omit them."""
    channels: tuple[str, ...] = ()
    """Endings of the image files' names, in the network's order; "" for one file per sample."""
    resize: Resize = "squash"
    """Method for making images of several sizes square: squash keeps everything but the
    proportions, crop keeps the middle, pad adds a black border."""
    metric: MetricName | None = None
    """The competition's metric."""
    output: Output | None = None
    """Content of the submission: the label, the probability of one class or of each class, or the
    five likeliest labels."""
    positive: str | None = None
    """Class whose probability is submitted, for output probability."""
    group_column: tuple[str, ...] = ()
    """Columns such as patient_id: samples with equal values stay in one fold."""
    folds_column: str | None = None
    """Column of folds to use as they are."""


@dataclass(frozen=True)
class Folders:
    """The folders that are read and written."""

    input_dir: Path = Path("input")
    """The competition's files as downloaded, and competition.toml, if there is one; only read."""
    oof_dir: Path = Path("oof")
    """Folds, runs and tuning."""
    submissions_dir: Path = Path("submissions")
    """CSVs to upload, each with its record."""
    cache_dir: Path = Path(".cache")
    """Decoded images; can be deleted at any time."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, besides flips and quarter turns (`symmetry`)."""

    rotate: float = 0.0
    """Largest rotation in degrees, besides quarter turns; doesn't help in a short training."""
    scale: float = 0.0
    """Largest relative change of width and height; doesn't help in a short training."""
    translate: float = 0.06
    """Largest shift, as a fraction of the side (4 of 64 pixels)."""
    gain: float = 0.2
    """Largest relative change of brightness, drawn for each channel (staining differs)."""
    offset: float = 0.02
    """Largest shift of a channel's values, as a fraction of the full range (5 of 255)."""


@dataclass(frozen=True)
class Training:
    """The settings of a run, the same for all folds; `oof/<run>/config.json` records them."""

    network: str = "densenet161"
    """A classification model of torchvision, one of timm (timm/NAME), or densenet_tiny (for
    tests)."""
    weights: str = "imagenet"
    """imagenet (found locally or downloaded), none (from scratch), or a file of the network's
    weights."""
    image_size: int | None = None
    """Side in pixels that the network sees. Images of several sizes, and large ones, are stored at
    it by `folds`; None: they keep their size."""
    start_size: int | None = None
    """Side in pixels in the first epochs, where small images save time; at most `image_size`."""
    start_share: float = 0.65
    """Share of the epochs at `start_size`: five of eight. Each later epoch takes twice as long."""
    epochs: int = 8
    """Passes over the training rows; eight let DenseNet-161 end within two hours on two cores."""
    lr: float | None = None
    """Peak learning rate; by default the run's own, else the tuned one, else 1e-3."""
    batch_size: int | None = None
    """Samples per step; by default the run's own, else the tuned one, else 64."""
    dropout: float = 0.0
    """Dropout before the linear layer; the known solution's 0.5 costs 2 points in a short one."""
    drop_path: float | None = None
    """Share of the samples that skip a block's branch in the last block, fewer in earlier ones
    (Huang et al. 2016); by default the network's own, which is 0 for timm's."""
    cutmix: float = 0.0
    """Share of the batches in which a part of each image is replaced by that of another image, and
    the label in proportion (Yun et al. 2019)."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """From scratch, muon scores 2.3 points more in the same time; from ImageNet weights, adamw
    scores as much and is faster (docs/levers.md). Matrices over 512 in height and width stay with
    adamw."""
    weight_decay: float = 0.05
    """Weight decay, on matrices and kernels only (ConvNeXt's value, Liu et al. 2022)."""
    warmup: float = 0.1
    """Share of the steps with a linear rise of the learning rate; a cosine to zero follows."""
    averaging: float = 0.1
    """Length of the moving average of the weights, as a share of all steps."""
    class_weights: Literal["auto", "balanced", "none"] = "auto"
    """balanced: every class counts equally in the loss; auto: what suits the metric."""
    symmetry: Symmetry = "d4"
    """Transformations that keep the label, in training and prediction: d4, flips and quarter turns
    (microscopes, telescopes); flips, both ways; mirror, left and right (most photographs); none
    (text, digits, X-rays)."""
    seed: int = 0
    """Seed of the folds and of everything random in training."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    def size_of(self, epoch: int) -> int | None:
        """Side in pixels that the network sees in an epoch (from 0); None: images as they are.

        Small images first, large ones last: "progressive resizing" (Howard 2018, fast.ai's entry to
        DAWNBench). The last epoch always has `image_size`, which the network then predicts at.
        """
        return self.first_size if epoch < self.first_epochs else self.image_size

    @property
    def first_epochs(self) -> int:
        """Number of epochs at `first_size`."""
        return int(self.start_share * self.epochs)

    @property
    def first_size(self) -> int | None:
        """Side in pixels that the network sees in the first epochs; None: images as they are."""
        if self.start_size is None or self.image_size is None:
            return self.start_size or self.image_size
        return min(self.start_size, self.image_size)


# The meaning of `--recipe` for networks that start from given weights. `full` is not measured: no
# GPU was at hand.
_PRETRAINED = Training(optimizer="adamw", dropout=0.2, cutmix=0.5, start_share=0.5)
RECIPES = {
    "quick": replace(_PRETRAINED, epochs=24, image_size=128, start_size=96),
    "full": replace(_PRETRAINED, epochs=30, image_size=192, start_size=128),
}
# The same from scratch (`--weights none`). `quick` trains on the challenge's images at their own
# size, then enlarged, because a DenseNet halves their side twice before its first block
# (docs/levers.md). `full` is not measured either. Its 60 epochs could memorize the images, so it
# has the known solution's dropout and stronger augmentation, but hardly any scaling, since size
# tells cell lines apart.
FROM_SCRATCH = {
    "quick": Training(image_size=96, start_size=64),
    "full": Training(
        epochs=60, image_size=128, dropout=0.5, augmentation=Augmentation(rotate=15, scale=0.07)
    ),
}


@dataclass(frozen=True)
class Machine:
    """The hardware for a run, and how to use it."""

    device: str = "auto"
    """auto (CUDA, else Apple's MPS, else CPU), or a torch device such as cuda:1."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 or float16 on CUDA GPUs, bfloat16 on CPUs that have it, else float32."""
    workers: int | None = None
    """Loader processes that augment images; by default 0 on a CPU, else up to 8."""
    fit_minutes: float | None = None
    """Minutes that `train` may take for all its folds. It measures the speed first, then chooses
    the run's epochs and their sizes, near the recipe's."""
    max_minutes: float | None = None
    """Minutes after which training saves and tuning stops; rerun to resume. No limit by default."""


@dataclass(frozen=True)
class Config:
    """The settings that all verbs share."""

    uses: ClassVar[tuple[str, ...]] = ("folders", "training", "machine", "run", "fold", "recipe")
    """The shared settings that the verb uses, named or by their group: its help shows these."""
    folders: Folders = field(default_factory=Folders)
    training: Training = field(default_factory=Training)
    machine: Machine = field(default_factory=Machine)
    reading: Reading = field(default_factory=Reading)
    run: str = ""
    """Name of the run, and of its folder in the OOF folder; by default made from network, weights,
    recipe and seed. Verbs that open a run take the only one if there is none of that name."""
    fold: int | None = None
    """A single fold; by default every fold in turn."""
    recipe: Literal["quick", "full"] = "quick"
    """Set of defaults: quick, for two cores (five folds of the challenge by MobileNetV2 take about
    two hours with fast bfloat16), or full, for a GPU."""

    @property
    def run_name(self) -> str:
        """`run` or, if it is empty, a name made from the settings: resnet18-scratch-full-seed1."""
        if self.run:
            return self.run
        name = self.training.network.rpartition("/")[2]
        name += "-scratch" * (self.training.weights == "none")
        name += f"-{self.recipe}" * (self.recipe != "quick")
        return name + f"{SEED}{self.training.seed}" * (self.training.seed != 0)


# Of all verbs' settings.
_BELOW_ONE = (
    *("dropout", "drop_path", "warmup", "start_share", "scale", "translate", "gain", "offset"),
)
_POSITIVE = ("lr", "averaging", "fit_minutes", "max_minutes")
_AT_LEAST = {
    "folds": 2,
    "batch_size": 2,  # batch normalization can't average over a single sample
    **dict.fromkeys(("epochs", "demo_epochs", "tune_epochs", "image_size", "start_size"), 1),
    **dict.fromkeys(("trials", "seeds", "gpus"), 1),
    **dict.fromkeys(("seed", "weight_decay", "rotate", "workers", "distill"), 0),
}
# scikit-learn takes no more than 32 bits.
LARGEST_SEED = 2**32 - 1


def check_settings(config: Config) -> None:
    """Raise UserError for a setting out of range."""
    for name, value in flatten(asdict(config)).items():
        if value is not None and (rule := broken_rule(name, value)):
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UserError(f"--{name.replace('_', '-')} {shown}: must be {rule}")


def broken_rule(name: str, value: Any) -> str:
    """The rule that a setting's value breaks, such as 'at least 1'; empty if none."""
    if name in _BELOW_ONE and not 0 <= value < 1:
        return "0 or more and less than 1"
    if name == "cutmix" and not 0 <= value <= 1:
        return "0 to 1"
    if name == "public_share" and not 0 < value < 1:
        return "more than 0 and less than 1"
    if name == "seed" and value > LARGEST_SEED:
        return f"at most {LARGEST_SEED}"
    if name in _AT_LEAST and not _AT_LEAST[name] <= value < float("inf"):
        return f"at least {_AT_LEAST[name]}"
    if name in _POSITIVE and not 0 < value < float("inf"):
        return "more than 0"
    return ""


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as one dictionary by innermost key: the names on the command line."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten(value) if isinstance(value, dict) else {name: value}
    return flat


def list_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name and both values, as text for a message, of each nested setting that differs.

    Weights with the same digest are the same, whatever their paths.
    """
    a, b = flatten(a), flatten(b)
    digest = a.get("weights_digest")
    same = {"weights"} if digest is not None and digest == b.get("weights_digest") else set()
    return [
        (name, abbreviate(a.get(name)), abbreviate(b.get(name)))
        for name in sorted((a.keys() | b.keys()) - same)
        if a.get(name) != b.get(name)
    ]


def describe_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Settings that differ, such as 'epochs was 20 and is 30 now; lr was 0.001 and is 0.01 now'."""
    differences = list_differences(then, now)
    return "; ".join(f"{name} was {old} and is {new} now" for name, old, new in differences)


def abbreviate(value: Any) -> str:
    """A value for a message; of a digest only the beginning."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
