"""What every network here is: normalisation, a body of stages in order, and a linear head."""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from alcore.datasets import ImageRows, Preprocessing, batch_rows

Freeze = Literal["none", "all_but_last_block", "all_but_head"]
FREEZES: tuple[Freeze, ...] = get_args(Freeze)
# Layers that keep statistics of the images they saw.
RUNNING_NORMS = (nn.modules.batchnorm._BatchNorm,)


class FreezeError(ValueError):
    """A depth of freezing nobody has written; the message lists those that exist."""


class NetworkOutputError(ValueError):
    """Outputs that are no finite number for every class."""


@dataclass(frozen=True)
class NetworkSpec:
    """What is needed to build the same module again, weights aside.

    `weights` says where the first weights came from ("none", "DEFAULT" or "file"); `freeze`, how much of the body is
    never trained. Raises FreezeError.
    """

    name: str
    classes: int
    preprocessing: Preprocessing
    weights: str = "none"
    freeze: Freeze = "none"

    def __post_init__(self) -> None:
        if self.freeze not in FREEZES:
            raise FreezeError(f"freeze must be one of {', '.join(FREEZES)}, got {self.freeze!r}")


class Normalization(nn.Module):
    """(x - mean) / std by channel, kept with the weights as buffers; one channel becomes as many as there are means."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, C, H, W)
        """Normalise images with values in [0, 1]."""
        return (images - self.mean) / self.std


class Activations(nn.Module):
    """Stands where the normalisation was when a network begins behind its frozen prefix: passes activations on.

    The sha256 of that prefix is a buffer, so that the hash of the rest still covers all weights.
    """

    prefix: Tensor

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.register_buffer("prefix", torch.tensor(list(bytes.fromhex(prefix)), dtype=torch.uint8))

    def forward(self, activations: Tensor) -> Tensor:
        """Return them as they are."""
        return activations


class ImageNetwork(nn.Module):
    """Images in [0, 1] -> normalisation -> body -> penultimate features -> `head`, a linear layer with K outputs.

    The spec's `freeze` takes the gradient from the first stages of the body. Statistics of batch norms are never
    updated by training: with few labels they would be poor (alcore.network.estimate_norm_statistics_ sets them).
    """

    def __init__(
        self, spec: NetworkSpec, body: nn.Sequential, width: int, *, normalization: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.normalization = normalization or Normalization(spec.preprocessing.mean, spec.preprocessing.std)
        self.body = body
        self.head = nn.Linear(width, spec.classes)
        for stage in self.frozen_stages:
            stage.requires_grad_(False)

    @property
    def reads_images(self) -> bool:
        """False behind a frozen prefix, where activations come in."""
        return not isinstance(self.normalization, Activations)

    @property
    def frozen_stages(self) -> list[nn.Module]:
        """The stages of the body that are never trained; none of them is left behind a frozen prefix."""
        return list(self.body)[: self.frozen_count] if self.reads_images else []

    @property
    def frozen_count(self) -> int:
        """How many stages from the front are frozen: all, or those before the last one with weights of two axes."""
        if self.spec.freeze == "none":
            return 0
        if self.spec.freeze == "all_but_head":
            return len(self.body)
        weighted = [place for place, stage in enumerate(self.body) if any(p.ndim > 1 for p in stage.parameters())]
        return weighted[-1] if weighted else 0

    def train(self, mode: bool = True) -> "ImageNetwork":
        """Training mode for what is trained: frozen stages and norms with running statistics stay in eval mode."""
        super().train(mode)
        for stage in self.frozen_stages:
            stage.eval()
        for layer in self.modules():
            if isinstance(layer, RUNNING_NORMS):
                layer.eval()
        return self

    def penultimate(self, images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, width)
        """What the head reads."""
        features: Tensor = self.body(self.normalization(images))
        return features

    def forward(self, images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, K)
        """One output a class; squared loss is on these, without a softmax."""
        outputs: Tensor = self.head(self.penultimate(images))
        return outputs


def weights_hash(module: nn.Module) -> str:
    """Sha256 of every weight and buffer with its name, shape and type."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def outputs(
    module: nn.Module,
    images: ImageRows,  # (N, C, H, W)
    *,
    batch_size: int | None = None,
) -> Tensor:  # (N, K)
    """The network's outputs in eval mode; the module's own mode is put back.

    Raises ValueError for no images, and NetworkOutputError unless there is one finite number for every class.
    """
    if len(images) == 0:
        raise ValueError("the network's outputs were asked for no images")
    was_training = module.training
    module.eval()
    try:
        found = torch.cat([module(images[rows]) for rows in batch_rows(images, batch_size)])
    finally:
        module.train(was_training)
    _check_outputs(module, found, len(images))
    return found


@torch.no_grad()
def embeddings(module: ImageNetwork, images: ImageRows) -> Tensor:  # (N, C, H, W) -> (N, width)
    """What the head reads for every image, in eval mode; the module's own mode is put back."""
    was_training = module.training
    module.eval()
    try:
        return torch.cat([module.penultimate(images[rows]) for rows in batch_rows(images)])
    finally:
        module.train(was_training)


def _check_outputs(module: nn.Module, found: Tensor, images: int) -> None:
    classes = module.spec.classes if isinstance(module, ImageNetwork) else found.shape[-1]
    if found.shape != (images, classes):
        raise NetworkOutputError(
            f"{images} images and {classes} classes need outputs of shape {(images, classes)}, "
            f"the network gives {tuple(found.shape)}"
        )
    wrong = int((~torch.isfinite(found).all(dim=1)).sum())
    if wrong:
        raise NetworkOutputError(f"the network's outputs are not finite numbers for {wrong} of {images} images")
