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


@torch.no_grad()
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
    was. Raises ValueError for fewer than one sample. Source: Gal and Ghahramani 2016, arXiv 1506.02142.
    """
    if samples < 1:
        raise ValueError(f"at least one sample is needed, got {samples}")
    own = own_dropout(module)
    module.eval()
    features = None if own else embeddings(module, images)
    devices = sorted({value.device for value in module.parameters() if value.device.type != "cpu"}, key=str)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        if features is not None:
            drawn = [module.head(dropout(features, p=rate, training=True)) for _ in range(samples)]
        else:
            with _dropping(own):
                drawn = [torch.cat([module(images[rows]) for rows in batch_rows(images)]) for _ in range(samples)]
    return torch.stack(drawn)


@contextmanager
def _dropping(layers: list[nn.Module]) -> Iterator[None]:
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
