"""A linear head on features that are never trained: the ridge regression itself, its ridge chosen by the labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.regularization import RIDGE_GRID

BLOCK_ROWS = 4096
SMALLEST = 1e-12  # of the largest: what is below is rounding


@dataclass(frozen=True)
class FittedHead:
    """Outputs are features W^T + b; `ridge`, absolute, was chosen by `error`, the squared one of labels left out."""

    weight: Tensor  # (K, d)
    bias: Tensor  # (K,)
    ridge: float
    error: float


def fit_head(
    features: Tensor,  # (n, d)
    targets: Tensor,  # (n, K)
    *,
    grid: Sequence[float] = RIDGE_GRID,
) -> FittedHead:
    """The W and b of least sum ||y - W phi - b||^2 + lam ||W||^2, lam of the least leave-one-out error, in float64.

    The bias is free. Ridges on the grid are relative to the mean squared distance of the features from their mean; ties
    go to the larger. Features that are all alike leave the mean target. Leaving one out is honest here, for no feature
    was learned from these labels. One eigendecomposition of size min(n, d).
    Source: Rasmussen and Williams 2006, equation 5.12; Allen 1974 (PRESS); free bias: Hastie, Tibshirani, Friedman
    2009, section 3.4.1.
    """
    centre, middle = features.double().mean(0), targets.double().mean(0)
    residuals = targets.double() - middle
    spread = float(sum((block.double() - centre).square().sum() for block in torch.split(features, BLOCK_ROWS)))
    spread /= len(features)
    if spread == 0:
        nothing = features.new_zeros(targets.shape[1], features.shape[1])
        return FittedHead(nothing, middle.to(features), 0.0, float(residuals.square().sum(1).mean()))
    ridges = [rho * spread for rho in grid]
    values, back = _axes(features, centre)
    errors, turned = _left_out(features, residuals, centre, values, back, ridges)
    error, ridge = min(zip(errors, ridges, strict=True), key=lambda pair: (pair[0], -pair[1]))
    weight = back @ (turned * (values.sqrt() / (values + ridge))[:, None])  # (d, K)
    return FittedHead(weight.t().to(features), (middle - centre @ weight).to(features), ridge, error)


def _axes(features: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:  # (m,), (d, m)
    """Squared singular values and V of the centred features X = U sqrt(values) V^T, values that are nought left out."""
    if len(features) <= features.shape[1]:
        centred = features.double() - centre
        values, left = torch.linalg.eigh(centred @ centred.t())
        kept = values > SMALLEST * values[-1]
        return values[kept], centred.t() @ (left[:, kept] / values[kept].sqrt())
    gram = centre.new_zeros(len(centre), len(centre))
    for block in torch.split(features, BLOCK_ROWS):
        centred = block.double() - centre
        gram.addmm_(centred.t(), centred)
    values, right = torch.linalg.eigh(gram)
    kept = values > SMALLEST * values[-1]
    return values[kept], right[:, kept]


def _left_out(
    features: Tensor,  # (n, d)
    residuals: Tensor,  # (n, K)
    centre: Tensor,  # (d,)
    values: Tensor,  # (m,)
    back: Tensor,  # (d, m)
    ridges: Sequence[float],
) -> tuple[list[float], Tensor]:
    """The mean squared leave-one-out residual for each ridge, and U^T R (m, K)."""
    parts = list(zip(torch.split(features, BLOCK_ROWS), torch.split(residuals, BLOCK_ROWS), strict=True))
    unit = back / values.sqrt()  # (d, m): U = X times this
    turned = torch.stack([((block.double() - centre) @ unit).t() @ rest for block, rest in parts]).sum(0)
    shares = torch.stack([values / (values + ridge) for ridge in ridges])  # of each axis that is fitted
    errors = [0.0] * len(ridges)
    for block, rest in parts:
        axes = (block.double() - centre) @ unit
        for place, share in enumerate(shares):
            held = 1 - 1 / len(features) - axes.square() @ share  # 1 - H_ii, the free bias included
            left = (rest - axes @ (turned * share[:, None])) / held.clamp_min(SMALLEST)[:, None]
            errors[place] += float(left.square().sum()) / len(features)
    return errors, turned
