"""Networks: built from a seed, saved as safetensors, loaded again to the same outputs."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alcore import store
from alcore.datasets import Preprocessing

FILE_KIND = "network"


class UnknownNetworkError(ValueError):
    """A network name nobody has written; the message lists those that exist."""


class NetworkFileError(ValueError):
    """A readable file that does not hold a network of this version."""


@dataclass(frozen=True)
class NetworkSpec:
    """What is needed to build the same module again, weights aside."""

    name: str
    classes: int
    preprocessing: Preprocessing


class Normalization(nn.Module):
    """(x - mean) / std by channel, kept with the weights as buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, C, H, W)
        """Normalise images with values in [0, 1]."""
        return (images - self.mean) / self.std


class ImageNetwork(nn.Module):
    """Images in [0, 1] -> normalisation -> body -> penultimate features -> `head`, a linear layer with K outputs."""

    def __init__(self, spec: NetworkSpec, body: nn.Module, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.normalization = Normalization(spec.preprocessing)
        self.body = body
        self.head = nn.Linear(width, spec.classes)

    def penultimate(self, images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, width)
        """What the head reads."""
        features: Tensor = self.body(self.normalization(images))
        return features

    def forward(self, images: Tensor) -> Tensor:  # (n, C, H, W) -> (n, K)
        """One output a class; squared loss is on these, without a softmax."""
        outputs: Tensor = self.head(self.penultimate(images))
        return outputs


def _block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """GroupNorm needs no statistics of a batch: one image's output never depends on its neighbours."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(outputs // 8, outputs), nn.ReLU()]


def _small_cnn(spec: NetworkSpec) -> ImageNetwork:
    """Three strided convolutions, 2 x 2 average pooling, a linear head: some 26,000 parameters for ten classes."""
    layers = _block(spec.preprocessing.channels, 16, 5) + _block(16, 32, 3) + _block(32, 64, 3)
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return ImageNetwork(spec, body, width=256)


BUILDERS: Mapping[str, Callable[[NetworkSpec], ImageNetwork]] = {"small_cnn": _small_cnn}


def build_network(name: str, *, classes: int, preprocessing: Preprocessing, seed: int) -> ImageNetwork:
    """A new network with weights drawn from the seed; the global random state is left as it was.

    Raises UnknownNetworkError, and ValueError for fewer than one class.
    """
    if name not in BUILDERS:
        raise UnknownNetworkError(f"there is no network called {name!r}; there are: {', '.join(sorted(BUILDERS))}")
    if classes < 1:
        raise ValueError(f"a network needs at least one class, got {classes}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[name](NetworkSpec(name, classes, preprocessing)).eval()


def save_network(module: ImageNetwork, path: Path, *, header: dict[str, Any]) -> None:
    """Write weights, buffers and what is needed to build the module again; `header` is the caller's, kept as it is."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    store.write(path, tensors, {"kind": FILE_KIND, "network": asdict(module.spec), "caller": header})


def load_network(path: Path) -> tuple[ImageNetwork, dict[str, Any]]:
    """The saved network in eval mode, and the caller's header.

    Raises store.StoreError (missing, damaged, other version), UnknownNetworkError and NetworkFileError.
    """
    tensors, header = store.read(path)
    if header.get("kind") != FILE_KIND:
        raise NetworkFileError(f"{path.name} holds a {header.get('kind')!r}, not a network")
    fields = header["network"]
    scaling = fields["preprocessing"]
    preprocessing = Preprocessing(
        size=scaling["size"],
        channels=scaling["channels"],
        mean=tuple(scaling["mean"]),
        std=tuple(scaling["std"]),
    )
    module = build_network(fields["name"], classes=fields["classes"], preprocessing=preprocessing, seed=0)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise NetworkFileError(f"{path.name} does not fit {fields['name']}: {error}") from error
    return module.eval(), header["caller"]


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
    images: Tensor,  # (N, C, H, W)
    *,
    batch_size: int = 256,
) -> Tensor:  # (N, K)
    """The network's outputs in eval mode; the module's own mode is put back. Raises ValueError for no images."""
    if len(images) == 0:
        raise ValueError("the network's outputs were asked for no images")
    was_training = module.training
    module.eval()
    try:
        return torch.cat([module(batch) for batch in torch.split(images, batch_size)])
    finally:
        module.train(was_training)
