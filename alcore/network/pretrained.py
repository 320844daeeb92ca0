"""Trained weights for torchvision's classifiers: its own download, or a safetensors file. No pickle is ever opened
but torchvision's, and that one by torch's loader for weights only."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from alcore.network.classifiers import default_weights, head_of

Origin = Literal["none", "DEFAULT", "file"]
# Heads that served torchvision's own training only.
AUXILIARY = re.compile(r"^(aux1|aux2|AuxLogits)\.")
# DenseNet's published weights name their layers as Python no longer allows: "norm.1" is "norm1".
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")
NAMED = 5


class DownloadError(RuntimeError):
    """torchvision's weights cannot be had; the message says what to do."""


class WeightsFileError(ValueError):
    """A file that does not hold this network's weights as safetensors; the message names what is missing or wrong."""


def origin_of(weights: str | Path) -> Origin:
    """Say what kind of weights are asked for. Raises WeightsFileError for neither a word nor an existing file."""
    if weights in ("none", "DEFAULT"):
        return "DEFAULT" if weights == "DEFAULT" else "none"
    if not Path(weights).is_file():
        raise WeightsFileError(f'weights are "none", "DEFAULT" or a safetensors file; there is no file {weights}')
    return "file"


def load_weights_(model: nn.Module, name: str, weights: str | Path) -> tuple[Tensor, ...]:
    """Put weights into torchvision's module; return those of its head where its shape fits, else nothing.

    Raises DownloadError, WeightsFileError.
    """
    origin = origin_of(weights)
    if origin == "none":
        return ()
    source = f"torchvision's download of {name}" if origin == "DEFAULT" else Path(weights).name
    state = _download(name) if origin == "DEFAULT" else _read(Path(weights))
    state = {OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items() if not AUXILIARY.match(key)}
    head_name, head = head_of(model)
    old_head = {key: state.pop(key) for key in list(state) if key.startswith(f"{head_name}.")}
    _fill(model, state, source=f"{source} does not fit {name}", without=f"{head_name}.")
    if head is None or not all(
        key in old_head and old_head[key].shape == value.shape
        for key, value in ((f"{head_name}.{part}", value) for part, value in head.named_parameters())
    ):
        return ()
    return tuple(old_head[f"{head_name}.{part}"] for part in ("weight", "bias") if f"{head_name}.{part}" in old_head)


def _download(name: str) -> Mapping[str, Tensor]:
    weights = default_weights(name)
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise DownloadError(
            f"torchvision's weights of {name} could not be downloaded ({error}). Without a network, save them "
            f"elsewhere as a safetensors file (safetensors.torch.save_file of torchvision.models."
            f"{name}(weights='DEFAULT').state_dict()) and give that file, or start without weights."
        ) from error
    return state


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsFileError(
            f"{path.name} is not a readable safetensors file ({error}). Other formats are never opened, since a .pth "
            "or .pt file can run code: convert it with safetensors.torch.save_file."
        ) from error


@torch.no_grad()
def _fill(model: nn.Module, state: Mapping[str, Tensor], *, source: str, without: str) -> None:
    """Copy every tensor but the head's. load_state_dict wants version numbers that safetensors files do not have."""
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(without)}
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = sorted(set(wanted) - set(state) - optional)
    unexpected = sorted(set(state) - set(wanted))
    shapes = [
        f"{name} is {tuple(state[name].shape)}, should be {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    wrong = [
        f"{words}: {', '.join(found[:NAMED])}{f' and {len(found) - NAMED} more' if len(found) > NAMED else ''}"
        for words, found in (("missing", missing), ("unexpected", unexpected), ("wrong shapes", shapes))
        if found
    ]
    if wrong:
        raise WeightsFileError(f"{source}. {'; '.join(wrong)}")
    for name, tensor in wanted.items():
        if name in state:
            if not torch.isfinite(state[name]).all():
                raise WeightsFileError(f"{source}: {name} has values that are not finite numbers")
            tensor.copy_(state[name])
