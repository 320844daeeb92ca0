"""Accuracy with its interval, learning curves, and the labels a strategy saves."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from scipy import stats
from torch import Tensor


class MetricError(ValueError):
    """Numbers no metric can be made of; the message names them."""


def accuracy(predictions: Tensor, labels: Tensor) -> float:  # (n, K), (n,)
    """The share of rows whose largest output is the label. Raises MetricError for no rows or unequal lengths."""
    if len(predictions) != len(labels) or len(labels) == 0:
        raise MetricError(f"{len(predictions)} predictions cannot be compared with {len(labels)} labels")
    return float((predictions.argmax(dim=1) == labels).double().mean())


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a binomial share, never outside [0, 1]. Raises MetricError.

    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    if n < 1 or not 0 <= successes <= n or not 0 < level < 1:
        raise MetricError(f"no interval for {successes} of {n} at level {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean; a single value has none: (nan, nan). Raises MetricError for no values."""
    if len(values) == 0:
        raise MetricError("no interval for the mean of no values")
    if len(values) == 1:
        return math.nan, math.nan
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean - half, mean + half


def area_under_curve(labels: Sequence[float], accuracies: Sequence[float]) -> float:
    """The mean accuracy over the range of label counts, by the trapezoid rule. Raises MetricError."""
    _check_curve(labels, accuracies)
    if len(labels) == 1:
        return float(accuracies[0])
    return float(np.trapezoid(accuracies, labels) / (labels[-1] - labels[0]))


def labels_to_reach(labels: Sequence[float], accuracies: Sequence[float], target: float) -> float | None:
    """The first label count at which the curve, straight between its points, is at the target; None when it never is.

    Raises MetricError.
    """
    _check_curve(labels, accuracies)
    if accuracies[0] >= target:
        return float(labels[0])
    for left in range(len(labels) - 1):
        before, after = accuracies[left], accuracies[left + 1]
        if after >= target:
            return float(labels[left] + (target - before) / (after - before) * (labels[left + 1] - labels[left]))
    return None


def _check_curve(labels: Sequence[float], accuracies: Sequence[float]) -> None:
    if len(labels) != len(accuracies) or len(labels) == 0:
        raise MetricError(f"a curve needs as many label counts as accuracies, got {len(labels)} and {len(accuracies)}")
    if any(right <= left for left, right in pairwise(labels)):
        raise MetricError(f"label counts must grow, got {list(labels)}")
