"""Running statistics of batch norms, taken from unlabelled images rather than from the few labelled ones."""

from collections.abc import Callable
from itertools import islice, pairwise

import torch
from torch import nn

from alcore.datasets import ImageRows, Progress, batch_rows
from alcore.network.image_network import RUNNING_NORMS

IMAGES = 2000
FEWEST = 2  # in a batch: one image of one pixel has no variance


@torch.no_grad()
def estimate_norm_statistics_(
    module: nn.Module,
    images: ImageRows,  # (N, C, H, W), labelled or not
    *,
    limit: int = IMAGES,
    progress: Progress | None = None,
) -> int:
    """Set every batch norm's mean and variance to their averages over batches of at most `limit` images, evenly spaced.

    Returns how many images were used: none where the network keeps no statistics, or for a single image. Modes are put
    back. Only these layers leave eval mode, so dropout changes nothing.
    Source: Li et al. 2016, arXiv 1603.04779 (adaptive batch normalisation).
    """
    layers = [layer for layer in module.modules() if isinstance(layer, RUNNING_NORMS) and layer.track_running_stats]
    count = min(limit, len(images))
    if not layers or count < FEWEST:
        return 0
    chosen = torch.arange(count) * len(images) // count
    modes = {part: part.training for part in module.modules()}
    momenta = [layer.momentum for layer in layers]
    module.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over batches
            layer.training = True
        _forward(module, lambda rows: images[chosen[rows]], _even(images, count), count, progress)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for part, mode in modes.items():
            part.training = mode
    return count


def _even(images: ImageRows, count: int) -> list[slice]:
    """Batches of about the same size: each counts the same."""
    largest = next(islice(batch_rows(images), 1)).stop
    batches = -(-count // max(FEWEST, largest))
    edges = [place * count // batches for place in range(batches + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _forward(
    module: nn.Module,
    read: Callable[[slice], torch.Tensor],
    batches: list[slice],
    count: int,
    progress: Progress | None,
) -> None:
    for rows in batches:
        module(read(rows))
        if progress is not None:
            progress(rows.stop / count, f"norm statistics of {rows.stop} of {count} images")
