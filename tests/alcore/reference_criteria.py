"""The criteria written out: every candidate, every answer, every image of the pool in a loop, in float64."""

import math

import torch
from torch import Tensor

from tests.alcore.reference import likely_label, look_ahead_change, simplex


def change_under(mean: Tensor, covariance: Tensor, ridge: float, row: int, label: Tensor) -> Tensor:
    """(N, K): what the label would add to the mean."""
    surprise = label - mean[row]
    return torch.stack([column / (covariance[row, row] + ridge) * surprise for column in covariance[:, row]])


def answers(mean: Tensor, row: int) -> list[tuple[float, Tensor]]:
    """Each class with its weight."""
    weights = simplex(mean[row])
    return list(zip(weights.tolist(), torch.eye(mean.shape[1]).double(), strict=True))


def emoc(mean: Tensor, covariance: Tensor, ridge: float, row: int) -> float:
    total = 0.0
    for weight, label in answers(mean, row):
        change = change_under(mean, covariance, ridge, row, label)
        total += weight * sum(float(line.norm()) for line in change)
    return total


def emoc_frobenius(mean: Tensor, covariance: Tensor, ridge: float, row: int) -> float:
    total = 0.0
    for weight, label in answers(mean, row):
        total += weight * float(change_under(mean, covariance, ridge, row, label).norm())
    return total


def error_of(mean: Tensor) -> float:
    return sum(1 - min(max(float(line.max()), 0.0), 1.0) for line in mean)


def error_reduction(mean: Tensor, covariance: Tensor, ridge: float, row: int) -> float:
    after = 0.0
    for weight, label in answers(mean, row):
        after += weight * error_of(mean + change_under(mean, covariance, ridge, row, label))
    return error_of(mean) - after


def variance_reduction(covariance: Tensor, ridge: float, row: int) -> float:
    """The sum of variances now, minus that after conditioning."""
    after = covariance - torch.outer(covariance[:, row], covariance[row]) / (covariance[row, row] + ridge)
    return float(covariance.diagonal().sum() - after.diagonal().sum())


def epig(covariance: Tensor, ridge: float, row: int) -> float:
    """The mean over the pool of the mutual information of two Gaussian labels, from their 2 x 2 covariances."""
    total = 0.0
    for image in range(len(covariance)):
        own, other = float(covariance[row, row]) + ridge, float(covariance[image, image]) + ridge
        joint = own * other - float(covariance[image, row]) ** 2
        total += 0.5 * math.log(own * other / joint)
    return total / len(covariance)


def flips(mean: Tensor, covariance: Tensor, ridge: float, row: int) -> Tensor:
    """(K, K): images that go from one class to another."""
    change = look_ahead_change(mean, covariance, ridge, row)
    counts = torch.zeros(mean.shape[1], mean.shape[1], dtype=torch.int64)
    for before, after in zip(mean, mean + change, strict=True):
        if int(before.argmax()) != int(after.argmax()):
            counts[int(before.argmax()), int(after.argmax())] += 1
    return counts


def partial_look_ahead(mean: Tensor, covariance: Tensor, ridge: float, row: int, rows: list[int]) -> float:
    surprise = (likely_label(mean, row) - mean[row]).norm()
    reach = sum(abs(float(covariance[image, row])) for image in rows) / (float(covariance[row, row]) + ridge)
    return float(surprise) * reach * len(mean) / len(rows)
