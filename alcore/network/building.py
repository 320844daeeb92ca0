"""Networks by name: small_cnn, and every torchvision classifier with random, downloaded or given weights."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from alcore.datasets import Preprocessing
from alcore.network.classifiers import (
    ImageSizeError,
    body_of,
    classifier_names,
    new_classifier,
    trained_preprocessing,
)
from alcore.network.image_network import Freeze, ImageNetwork, NetworkSpec, Normalization
from alcore.network.pretrained import WeightsFileError, load_weights_, origin_of

SMALL_CNN = "small_cnn"
SMALL_CNN_SIZE = 32


class UnknownNetworkError(ValueError):
    """A network name nobody has written; the message lists those that exist."""


def network_names() -> tuple[str, ...]:
    """Every name build_network takes."""
    return (SMALL_CNN, *classifier_names())


def default_preprocessing(name: str, *, size: int | None = None, channels: int = 3) -> Preprocessing:
    """What a network's images should look like: the size its trained weights are for, unless `size` is given.

    Raises UnknownNetworkError.
    """
    _check_name(name)
    if name == SMALL_CNN:
        return Preprocessing.plain(size=size or SMALL_CNN_SIZE, channels=channels)
    preprocessing = trained_preprocessing(name, channels=channels)
    return preprocessing if size is None else replace(preprocessing, size=size)


def build_network(
    name: str,
    *,
    classes: int,
    preprocessing: Preprocessing,
    seed: int,
    weights: str | Path = "none",
    freeze: Freeze = "none",
) -> ImageNetwork:
    """A new network in eval mode with a new head for the classes; the global random state is left as it was.

    `weights`: "none" draws all from the seed; "DEFAULT" has torchvision download its own; a path is a safetensors file
    of a torchvision state dict, whose head is left out where its shape is another. With trained weights the
    normalisation is theirs. One channel is repeated to the three torchvision's networks take. Raises
    UnknownNetworkError, ImageSizeError, FreezeError, DownloadError, WeightsFileError, and ValueError for no class.
    """
    if classes < 1:
        raise ValueError(f"a network needs at least one class, got {classes}")
    _check_name(name)
    origin = origin_of(weights)
    if origin != "none" and name == SMALL_CNN:
        raise WeightsFileError("there are no trained weights of small_cnn: choose a torchvision network or no weights")
    if origin != "none":
        trained = trained_preprocessing(name, channels=preprocessing.channels)
        preprocessing = replace(preprocessing, mean=trained.mean, std=trained.std)
    spec = NetworkSpec(name, classes, preprocessing, weights=origin, freeze=freeze)
    return bare_network(spec, seed=seed, weights=weights)


def bare_network(spec: NetworkSpec, *, seed: int, weights: str | Path = "none") -> ImageNetwork:
    """The module of a spec with weights from the seed, or with what `weights` names loaded into it."""
    _check_name(spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.name == SMALL_CNN:
            return _small_cnn(spec).eval()
        return _classifier(spec, weights).eval()


def _check_name(name: str) -> None:
    if name != SMALL_CNN and name not in classifier_names():
        raise UnknownNetworkError(f"there is no network called {name!r}; there are: {', '.join(network_names())}")


def _block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """GroupNorm needs no statistics of a batch: one image's output never depends on its neighbours."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(outputs // 8, outputs), nn.ReLU()]


def _small_cnn(spec: NetworkSpec) -> ImageNetwork:
    """Three strided convolutions, 2 x 2 average pooling, a linear head: some 26,000 parameters for ten classes."""
    layers = _block(spec.preprocessing.channels, 16, 5) + _block(16, 32, 3) + _block(32, 64, 3)
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return ImageNetwork(spec, body, width=256)


def _classifier(spec: NetworkSpec, weights: str | Path) -> ImageNetwork:
    """A torchvision classifier; an image of the spec's size goes through it once, to see that it can."""
    scaling = spec.preprocessing
    model = new_classifier(spec.name, classes=spec.classes, size=scaling.size)
    head = load_weights_(model, spec.name, weights)
    mean, std = (values * 3 if scaling.channels == 1 else values for values in (scaling.mean, scaling.std))
    body, width = body_of(model)
    module = ImageNetwork(spec, body, width, normalization=Normalization(mean, std))
    if head:
        module.head.weight.data.copy_(head[0])
        module.head.bias.data.copy_(head[1] if len(head) > 1 else torch.zeros(spec.classes))
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, scaling.channels, scaling.size, scaling.size))
    except RuntimeError as error:
        raise ImageSizeError(f"{spec.name} cannot take images of {scaling.size} pixels: {error}") from error
    return module
