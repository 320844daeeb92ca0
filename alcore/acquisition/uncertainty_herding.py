"""Uncertainty Herding: cover what the model is unsure of, coarsely with few labels and finely with many."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.acquisition.geometry import BLOCK, unit_rows
from alcore.acquisition.max_herding import RADIUS, MaxHerding

TEMPERATURES = torch.logspace(-6, 4, 41, base=2, dtype=torch.float64)
COPIES = 1e-6  # apart at most: copies of one image would leave a radius of nothing
FEWEST_HELD_OUT = 4  # fewer say nothing of calibration


class UncertaintyHerding(MaxHerding):
    """MaxHerding with every image weighed by its uncertainty, and a radius that shrinks as labels come closer.

    Uncertainty and radius are those of the moment the state was made: make a new one for other predictions. Source:
    Bae, Oliveira, Sutherland 2025, Uncertainty Herding: one active learning method for all label budgets, arXiv
    2412.20644, definition 5 and section 3.2.
    """

    def __init__(
        self,
        embeddings: Tensor,  # (N, D)
        mean: Tensor | None,  # (N, K)
        labelled: Sequence[int] = (),
        *,
        temperature: float = 1.0,
    ) -> None:
        weights = None if mean is None or not labelled else softmax_uncertainty(mean, temperature)
        super().__init__(embeddings, labelled, radius=label_radius(embeddings, labelled), weights=weights)


def softmax_uncertainty(mean: Tensor, temperature: float) -> Tensor:  # (N, K) -> (N,)
    """One less the gap between the two largest of softmax(mean / temperature)."""
    if mean.shape[1] < 2:
        return torch.ones_like(mean[:, 0])
    best = (mean / temperature).softmax(1).topk(2, dim=1).values
    return 1 - best[:, 0] + best[:, 1]


def label_radius(embeddings: Tensor, labelled: Sequence[int]) -> float:
    """The smallest positive distance between two labels, rows taken to unit length; 1 with fewer than two of them.

    A block of labels at a time beside those from it on: at once the pairs of 10,000 labels are a gigabyte.
    """
    points = unit_rows(embeddings[list(labelled)].double())
    if len(points) < 2:
        return RADIUS
    radius = math.inf
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        distances = torch.cdist(block, points[start:], compute_mode="donot_use_mm_for_euclid_dist")
        distances.masked_fill_(distances <= COPIES, torch.inf)
        radius = min(radius, float(distances.min()))
    return radius if math.isfinite(radius) else RADIUS


def calibrated_temperature(
    held_out: Tensor,  # (n, K)
    answers: Tensor,  # (n,)
) -> float:
    """The temperature at which the confidence of predictions made without an image's own label agrees with accuracy.

    The smallest expected calibration error over K bins, the highest temperature among equals: with little to go by
    every image is as uncertain as any other. The highest of the grid for fewer than four predictions. Source: Bae et
    al. 2025, arXiv 2412.20644, section 3.2; the error: Naeini, Cooper, Hauskrecht 2015.
    """
    if len(held_out) < FEWEST_HELD_OUT:
        return float(TEMPERATURES[-1])
    right = (held_out.argmax(1) == answers).double()
    errors = [
        _calibration_error((held_out.double() / value).softmax(1).amax(1), right, bins=held_out.shape[1])
        for value in TEMPERATURES.flip(0).tolist()
    ]
    return float(TEMPERATURES.flip(0)[errors.index(min(errors))])


def _calibration_error(confidence: Tensor, right: Tensor, *, bins: int) -> float:
    """sum over bins of the share of images times |accuracy - mean confidence|."""
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right - confidence)
    return float(gaps.abs().sum() / len(confidence))
