"""torchvision's classifiers as stages in order: each family's own forward pass, written as a sequence.

A sequence can be cut anywhere into a frozen prefix and the rest; the new head takes the place of the last linear layer.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from alcore.datasets import Preprocessing
from alcore.torchvision_operators import declare_missing_operators


class ImageSizeError(ValueError):
    """Images of a size that this network cannot take."""


class SpatialMean(nn.Module):
    """The mean over height and width."""

    def forward(self, images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, C)
        """Average."""
        return images.mean((2, 3))


class FirstToken(nn.Module):
    """What the class token has become."""

    def forward(self, tokens: Tensor) -> Tensor:  # (n, T, D) -> (n, D)
        """Take it."""
        return tokens[:, 0]


class PatchTokens(nn.Module):
    """A vision transformer's input: projected patches behind a class token, positions added."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_proj: nn.Module = model.conv_proj
        self.class_token: nn.Parameter = model.class_token
        self.pos_embedding: nn.Parameter = model.encoder.pos_embedding

    def forward(self, images: Tensor) -> Tensor:  # (n, 3, H, W) -> (n, T, D)
        """Patches to tokens."""
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embedding


# A family's forward pass, by the name of its class: its parts in order. A star is one of the stages below.
GOOGLE_STEM = ("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3")
GOOGLE_TOP = ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4", "inception5a")
INCEPTION_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
INCEPTION_5_6 = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
RESIDUAL = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "*flatten", "fc")
FAMILIES: dict[str, tuple[str, ...]] = {
    "AlexNet": ("features", "avgpool", "*flatten", "classifier"),
    "ConvNeXt": ("features", "avgpool", "classifier"),
    "DenseNet": ("features", "*relu", "*mean", "classifier"),
    "EfficientNet": ("features", "avgpool", "*flatten", "classifier"),
    "GoogLeNet": (*GOOGLE_STEM, *GOOGLE_TOP, "inception5b", "avgpool", "*flatten", "dropout", "fc"),
    "Inception3": (
        *(*INCEPTION_STEM, "maxpool2", *INCEPTION_5_6, "Mixed_7a", "Mixed_7b", "Mixed_7c"),
        *("avgpool", "dropout", "*flatten", "fc"),
    ),
    "MNASNet": ("layers", "*mean", "classifier"),
    "MaxVit": ("stem", "blocks", "classifier"),
    "MobileNetV2": ("features", "*mean", "classifier"),
    "MobileNetV3": ("features", "avgpool", "*flatten", "classifier"),
    "RegNet": ("stem", "trunk_output", "avgpool", "*flatten", "fc"),
    "ResNet": RESIDUAL,
    "ShuffleNetV2": ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5", "*mean", "fc"),
    # Its classes are channels of a last convolution, averaged: the average goes before a linear head here.
    "SqueezeNet": ("features", "classifier.0", "*mean"),
    "SwinTransformer": ("features", "norm", "permute", "avgpool", "flatten", "head"),
    "VGG": ("features", "avgpool", "*flatten", "classifier"),
    "VisionTransformer": (
        *("*tokens", "encoder.dropout", "encoder.layers", "encoder.ln"),
        *("*first_token", "heads"),
    ),
}
SQUEEZENET_WIDTH = 512
# These were trained on pixels scaled to -1 ... 1, which torchvision does inside the network.
SCALED_INSIDE = ("googlenet", "inception_v3")
OWN_OPTIONS: dict[str, dict[str, object]] = {
    name: {"aux_logits": False, "transform_input": False, "init_weights": True} for name in SCALED_INSIDE
}


def torchvision_models() -> ModuleType:
    """torchvision.models, imported at first use: it takes a second that small_cnn does not need."""
    declare_missing_operators()
    from torchvision import models

    found: ModuleType = models
    return found


@cache
def classifier_names() -> tuple[str, ...]:
    """Every classifier torchvision has a builder for."""
    models = torchvision_models()
    return tuple(sorted(models.list_models(module=models)))


def new_classifier(name: str, *, classes: int, size: int) -> nn.Module:
    """torchvision's own module with random weights and no auxiliary heads. Raises ImageSizeError."""
    options = dict(OWN_OPTIONS.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = size
    if name.startswith("maxvit"):
        options["input_size"] = (size, size)
    try:
        module: nn.Module = torchvision_models().get_model(name, weights=None, num_classes=classes, **options)
    except (ValueError, AssertionError) as error:
        raise ImageSizeError(f"{name} cannot be built for images of {size} pixels: {error}") from error
    return module


def head_of(model: nn.Module) -> tuple[str, nn.Linear | None]:
    """The last linear layer of torchvision's module with its name; SqueezeNet has a convolution in its place."""
    if type(model).__name__ == "SqueezeNet":
        return "classifier.1", None
    name, layer = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1]
    return name, layer


def body_of(model: nn.Module) -> tuple[nn.Sequential, int]:
    """The stages before the head in order, sharing the model's layers, and the width of what the head reads."""
    _, head = head_of(model)
    stages = OrderedDict(
        (name.replace(".", "_"), stage)
        for part in FAMILIES[type(model).__name__]
        for name, stage in _stages_of_part(model, part)
        if stage is not head
    )
    return nn.Sequential(stages), SQUEEZENET_WIDTH if head is None else head.in_features


def _stages_of_part(model: nn.Module, part: str) -> Iterator[tuple[str, nn.Module]]:
    own: dict[str, Callable[[], nn.Module]] = {
        "*flatten": lambda: nn.Flatten(1),
        "*mean": SpatialMean,
        "*relu": nn.ReLU,
        "*first_token": FirstToken,
        "*tokens": lambda: PatchTokens(model),
    }
    if part in own:
        yield part.removeprefix("*"), own[part]()
    else:
        yield from _expanded(part, model.get_submodule(part))


def _expanded(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Plain containers are opened up to their blocks; a block is a stage."""
    if type(module) in (nn.Sequential, nn.ModuleList) or type(module).__name__ == "AnyStage":
        for child_name, child in module.named_children():
            yield from _expanded(f"{name}_{child_name}", child)
    else:
        yield name, module


def default_weights(name: str) -> Any:
    """torchvision's own choice of trained weights: their address, crop and normalisation."""
    return torchvision_models().get_model_weights(name).DEFAULT


def trained_preprocessing(name: str, *, channels: int) -> Preprocessing:
    """The image size and normalisation these weights were trained with; one channel takes the mean of the three."""
    crop = default_weights(name).transforms()
    mean, std = tuple(crop.mean), tuple(crop.std)
    if name in SCALED_INSIDE:
        mean, std = (0.5,) * 3, (0.5,) * 3
    if channels == 1:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    return Preprocessing(size=crop.crop_size[0], channels=channels, mean=mean, std=std)
