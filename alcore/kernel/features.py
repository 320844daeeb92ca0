"""Kernels of a pool from its features, a block of rows at a time."""

import torch
from torch import Tensor

from alcore.kernel.errors import FeatureError


@torch.no_grad()
def kernel_from_features(
    features: Tensor,  # (N, S)
    *,
    block: int = 512,
) -> Tensor:  # (N, N)
    """Phi Phi^T, exactly symmetric: blocks on and below the diagonal are multiplied, the others copied.

    Raises FeatureError when the features are not a matrix or a value is not finite.
    """
    if features.ndim != 2:
        raise FeatureError(f"features are one row an image, got shape {tuple(features.shape)}")
    count = len(features)
    kernel = features.new_empty(count, count)
    for start in range(0, count, block):
        rows = slice(start, min(start + block, count))
        for left in range(0, start + 1, block):
            columns = slice(left, min(left + block, count))
            product = features[rows] @ features[columns].t()
            symmetric = (product + product.t()) / 2 if left == start else product
            kernel[rows, columns] = symmetric
            kernel[columns, rows] = symmetric.t()
    if not torch.isfinite(kernel).all():
        raise FeatureError("the kernel has values that are not finite: the features are infinite, NaN or too large")
    return kernel


def unit_diagonal_scale(diagonal: Tensor) -> float:
    """The factor on features that makes the mean of this kernel diagonal 1 (float64 mean). Raises FeatureError."""
    mean = float(diagonal.double().mean())
    if not 0 < mean < float("inf"):
        raise FeatureError(f"the mean of the kernel's diagonal is {mean}: these features cannot be scaled")
    return float(mean**-0.5)
