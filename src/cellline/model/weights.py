"""Finding a network's ImageNet weights, and loading them."""

import re
import sys
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from cellline.errors import UserError, first_line

# The folder where Kaggle mounts the datasets attached to a notebook.
KAGGLE_INPUT = Path("/kaggle/input")


def load_backbone_weights(backbone: nn.Module, network: str, weights: str, head: str) -> None:
    """Load `weights` into all of `backbone` except its head, which will be replaced.

    `weights` is `none` (load nothing), `imagenet`, or the path of a state dict of torchvision's
    network `network`. Raises UserError if the weights are not available, can't be read or don't
    fit.
    """
    if weights == "none":
        return
    path = find_imagenet_weights(network) if weights == "imagenet" else Path(weights)
    state = adapt_keys(read_state(path), head)
    outcome = backbone.load_state_dict(
        {key: value for key, value in state.items() if fits(backbone, key, value)}, strict=False
    )
    missing = [key for key in outcome.missing_keys if not key.startswith(f"{head}.")]
    # Checkpoints from before torch 0.4.1 (densenet161-8d451a50.pth is one) have no such counter.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    foreign = [key for key, value in state.items() if not fits(backbone, key, value)]
    if missing or foreign:
        raise UserError(
            f"{path}: not weights of {network}: {len(missing)} of its tensors are missing"
            f"{example(missing)}, {len(foreign)} do not belong to it or have another shape"
            f"{example(foreign)}"
        )


def find_imagenet_weights(network: str) -> Path:
    """Find the file of torchvision's ImageNet weights for `network`.

    It may be among attached Kaggle datasets or in torch's cache; otherwise it is downloaded into
    the cache. Raises UserError that says where it looked.
    """
    if network == "densenet_tiny":
        raise UserError("--network densenet_tiny has no ImageNet weights; add --weights none")
    url: str = torchvision.models.get_model_weights(network).DEFAULT.url
    name = url.rsplit("/", 1)[1]
    attached = sorted(KAGGLE_INPUT.rglob(name))
    if attached:
        return attached[0]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    if path.exists():
        return path
    # torchvision's names end in the first digits of the file's SHA-256, which torch checks.
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Its bar would fill a log with carriage returns.
        bar = sys.stderr.isatty()
        torch.hub.download_url_to_file(url, str(path), digits and digits[1], progress=bar)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"no ImageNet weights for {network}: no {name} under {KAGGLE_INPUT} or in {folder}, "
            f"and the download failed ({first_line(error)}).\n"
            f"  Give --weights PATH (a copy of {url})\n"
            "  or --weights none (train from scratch)."
        ) from error
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, tensors only. Raises UserError if the file can't be read as one."""
    if not path.is_file():
        raise UserError(
            f"--weights {path}: no such file; give imagenet, none or the path of a state dict"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load passes on any error of its unpickler, zip reader or storage on a damaged file.
    except Exception as error:
        raise UserError(
            f"{path}: can't be read as weights ({first_line(error)}); fetch it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: not a state dict of tensors")
    return state


def adapt_keys(state: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """Drop unused entries of a state dict, and rename DenseNets' old keys.

    The published DenseNet files have `denselayer1.norm.1.weight`; the present module, whose names
    can't contain a dot, has `denselayer1.norm1.weight`.
    """
    unused = (f"{head}.", "AuxLogits.", "aux1.", "aux2.")
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): value
        for key, value in state.items()
        if not key.startswith(unused)
    }


def fits(backbone: nn.Module, key: str, value: Tensor) -> bool:
    """True if the network has a tensor of this name and shape."""
    own = backbone.state_dict().get(key)
    return own is not None and own.shape == value.shape


def example(keys: list[str]) -> str:
    """The first of some names, in brackets; empty if there are none."""
    return f" ({keys[0]}{', ...' if len(keys) > 1 else ''})" if keys else ""
