"""Dropout where a network has none of its own, and what the network says with units dropped."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from alcore.datasets import ImageRows, batch_rows
from alcore.network.image_network import ImageNetwork, embeddings

RATE = 0.5
SAMPLES = 20
BLOCK_VALUES = 1 << 22  # numbers that a block of samples has at most, where only what the head reads is dropped


@contextmanager
def dropped_features(module: ImageNetwork, *, rate: float = RATE) -> Iterator[None]:
    """Inside, what the head reads loses this share of its units at random, in training and evaluation alike.

    A network with dropout of its own is left to that. Raises ValueError for a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"the share of units that are dropped must be from 0 to below 1, got {rate}")
    if own_dropout(module):
        yield
        return
    handle = module.head.register_forward_pre_hook(lambda _, inputs: (dropout(inputs[0], p=rate, training=True),))
    try:
        yield
    finally:
        handle.remove()


def own_dropout(module: nn.Module) -> list[nn.Module]:
    """Layers of the network that drop units."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0]


def dropout_outputs(
    module: ImageNetwork,
    images: ImageRows,  # (N, C, H, W)
    *,
    samples: int = SAMPLES,
    rate: float = RATE,
    seed: int,
) -> Tensor:  # (T, N, K)
    """The network's outputs under `samples` draws of dropped units, the same for the same seed; eval mode otherwise.

    Images go through the body once where only what the head reads is dropped. The global random state is left as it
    was. All samples are held at once: of many images and classes, take `dropout_blocks`. Raises ValueError for fewer
    than one sample. Source: Gal and Ghahramani 2016, arXiv 1506.02142.
    """
    return torch.cat(list(dropout_blocks(module, images, samples=samples, rate=rate, seed=seed)), dim=1)


def dropout_blocks(
    module: ImageNetwork,
    images: ImageRows,  # (N, C, H, W)
    *,
    samples: int = SAMPLES,
    rate: float = RATE,
    seed: int,
) -> Iterator[Tensor]:  # (T, n, K) each
    """What `dropout_outputs` gives, so many images at a time as keep a block's memory small.

    Between two blocks the global random state is the caller's own. Raises ValueError for fewer than one sample.
    """
    if samples < 1:
        raise ValueError(f"at least one sample is needed, got {samples}")
    own = own_dropout(module)
    module.eval()
    read, size = images, None
    if not own:
        read = embeddings(module, images)
        size = max(1, BLOCK_VALUES // max(samples * module.spec.classes, read.shape[1]))
    for rows in batch_rows(read, size):
        yield _draw(module, own, read[rows], samples=samples, rate=rate, seed=seed + rows.start)


@torch.no_grad()
def _draw(
    module: ImageNetwork,
    own: list[nn.Module],
    read: Tensor,  # (n, C, H, W), or (n, width) where the network has no dropout of its own
    *,
    samples: int,
    rate: float,
    seed: int,
) -> Tensor:  # (T, n, K)
    devices = sorted({value.device for value in module.parameters() if value.device.type != "cpu"}, key=str)
    with torch.random.fork_rng(devices=devices), _dropping(own):
        torch.manual_seed(seed)
        if own:
            return torch.stack([module(read) for _ in range(samples)])
        return torch.stack([module.head(dropout(read, p=rate, training=True)) for _ in range(samples)])


@contextmanager
def _dropping(layers: list[nn.Module]) -> Iterator[None]:
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
