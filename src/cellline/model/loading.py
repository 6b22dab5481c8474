"""Loading a file of weights into a network."""

import re
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from cellline.data.problems import brief
from cellline.errors import UserError
from cellline.host.progress import say
from cellline.model.weights import TIMM

Head = tuple[str, ...]
"""Dotted names of a network's classifier; a few networks have two."""

# Kinds of tensors in a state dict: the ends of their names.
KINDS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def load_backbone_weights(backbone: nn.Module, network: str, path: Path, head: Head) -> None:
    """Load a file of weights into all of `backbone` except its head, which will be replaced.

    The file holds the network's state dict, or one with other names but tensors of the same kinds
    and shapes in the same order. Raises UserError if it can't be read or doesn't fit.
    """
    state = adapt_keys(read_state(path), backbone, network, head)
    own = {key: value for key, value in backbone.state_dict().items() if not is_head(key, head)}
    if paired := pair_in_order(own, state):
        say(f"{path}: weights under other names, paired with {network}'s in order; shapes agree")
        state = paired
    foreign = [key for key, value in state.items() if not fits(own, key, value)]
    # Checkpoints from before torch 0.4.1 (densenet161-8d451a50.pth is one) have no such counter.
    missing = [key for key in own if not (key in state or key.endswith("num_batches_tracked"))]
    if missing or foreign:
        raise UserError(
            f"{path}: not weights of {network}: {len(missing)} of its tensors are missing"
            f"{example(missing)}, {len(foreign)} do not belong to it or have another shape"
            f"{example(foreign)}"
        )
    backbone.load_state_dict(state, strict=False)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, tensors only. Raises UserError if the file can't be read as one."""
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path))
    # The readers pass on any error of their unpickler, zip reader or storage on a damaged file.
    # torch's is not quoted: it advises to load objects, which may run code.
    except Exception as error:
        raise UserError(
            f"{path}: can't be read as weights: it is damaged, or not a state dict of tensors "
            f"alone. If it was downloaded, remove {path.resolve()} and fetch it again"
        ) from error
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, Tensor) and is_dense(value)):
            raise UserError(
                f"{path}: not a state dict: {brief(repr(key))} is not the name of a dense tensor"
            )
    return state


def is_dense(value: Tensor) -> bool:
    """True for an ordinary tensor of real numbers, in memory."""
    plain = value.layout == torch.strided and value.device.type == "cpu"
    return plain and not (value.is_quantized or value.is_complex() or value.is_nested)


def adapt_keys(
    state: dict[str, Tensor], backbone: nn.Module, network: str, head: Head
) -> dict[str, Tensor]:
    """Drop unused entries of a state dict, and rename those of older forms of the network.

    The published DenseNet files have `denselayer1.norm.1.weight`; the present module, whose names
    can't contain a dot, has `denselayer1.norm1.weight`. timm's modules know their own old names.
    """
    if network.startswith(TIMM):
        from timm.models import model_entrypoint

        # timm's usual name for it.
        module = sys.modules[model_entrypoint(network.removeprefix(TIMM)).__module__]
        convert = getattr(module, "checkpoint_filter_fn", None)
        if convert and state.keys() - backbone.state_dict().keys():
            # It may fail in any way on the file of another network, which is refused below.
            with suppress(Exception):
                state = convert(state, backbone)
    unused = ("AuxLogits.", "aux1.", "aux2.")
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): value
        for key, value in state.items()
        if not (is_head(key, head) or key.startswith(unused))
    }


def pair_in_order(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """`state` under the names of `own`; None if it has them already, or if the tensors differ.

    A weight and a bias at the end, the classifier's, may be left over.
    """
    left = [value.ndim for value in [*state.values()][len(own) :]]
    pairs = list(zip(own.items(), state.items(), strict=False))
    if own.keys() == state.keys() or len(pairs) < len(own) or left not in ([], [2, 1]):
        return None
    for (name, tensor), (other, value) in pairs:
        kinds = {key.rpartition(".")[2] for key in (name, other)} & KINDS
        if tensor.shape != value.shape or len(kinds) > 1:
            return None
    return {name: value for (name, _), (_, value) in pairs}


def is_head(key: str, head: Head) -> bool:
    """True for a tensor of the head."""
    return key.startswith(tuple(f"{name}." for name in head))


def fits(own: dict[str, Tensor], key: str, value: Tensor) -> bool:
    """True if the network has a tensor of this name and shape."""
    return key in own and own[key].shape == value.shape


def example(keys: list[str]) -> str:
    """The first of some names, in brackets; empty if there are none."""
    return f" ({brief(keys[0])}{', ...' if len(keys) > 1 else ''})" if keys else ""
