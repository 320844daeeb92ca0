"""When to stop: how many labels are still needed for a target accuracy, with an honest interval.

Error over labels is modelled as a power law that begins near chance and ends at a floor (Cortes et al. 1994; Hestness
et al. 2017, arXiv 1712.00409), with a bend between the two:

    error(n) = floor + (start - floor) (1 + (n / scale)^bend)^(-rate / bend)

Audited images say yes or no to it, one by one, at the label count of their prediction. There are few of them, and a
least-squares fit or a bootstrap of twenty answers would be far too sure of itself: so the parameters have a prior, and
what is reported are quantiles of the posterior. Leave-one-out accuracies are weak measurements of the same curve, all
off by one unknown amount: the labelled images were chosen, and the network has seen most of them. How often the
interval holds is measured by benchmarks/stopping.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Parameters = tuple[Array, Array, Array, Array, Array]  # start, scale, rate, bend, floor

LEVEL = 0.8
PARAMETERS = 5
DRAWS = 4096  # from the prior, and as many again near what the answers say
FREEDOM = 5  # of the Student distribution that these come from: its tails are heavier than the posterior's
START = (0.6, 1.0)  # error without labels, as a share of chance: classes are not equally common
SCALE = (math.log(40.0), 1.2)  # mean and deviation of the logarithm
RATE = (math.log(0.8), 0.5)
BEND = (math.log(1.4), 0.35)
FLOOR = 6.0  # the floor is chance times a uniform variable to this power: most often small
# Leave-one-out minus true accuracy, both as log odds. On scans of digits: +5 on labels that the network was just
# trained on, -1.5 on images chosen because they are hard. Mean and deviation; then what differs between measurements.
OFFSET = (-0.4, 1.5)
SCATTER = 0.7
SMALLEST = 0.005  # accuracies nearer to 0 or 1 have no log odds to speak of


class StoppingError(ValueError):
    """Answers, estimates or targets that no learning curve can be fitted to; the message names them."""


@dataclass(frozen=True)
class Audited:
    """An image drawn by chance: was the prediction of the model that knew `labels` labels right?"""

    labels: int
    right: bool


@dataclass(frozen=True)
class LeftOut:
    """The leave-one-out accuracy at a label count."""

    labels: int
    accuracy: float


@dataclass(frozen=True)
class Need:
    """Labels still needed for a target, with an interval; None is more than any number: the curve may never get there.

    `reached` is the probability that the target has been reached already.
    """

    target: float
    labels: float | None
    low: float | None
    high: float | None
    reached: float


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy at a label count, with an interval."""

    labels: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurves:
    """Learning curves that agree with what was seen, each with its weight; the weights sum to 1."""

    start: Array  # (M,)
    scale: Array
    rate: Array
    bend: Array
    floor: Array
    weights: Array

    def accuracy(self, labels: Sequence[int]) -> list[CurvePoint]:
        """The accuracy at these label counts: median and interval of level LEVEL."""
        points = []
        for count in labels:
            low, middle, high = self._quantiles(1 - self._errors(np.array([count]))[:, 0])
            points.append(CurvePoint(count, middle, low, high))
        return points

    def need(self, target: float, *, labels: int) -> Need:
        """Labels still needed for an accuracy of `target` when there are `labels`. Raises StoppingError."""
        if not 0 < target < 1:
            raise StoppingError(f"a target accuracy lies between 0 and 1, got {target}")
        left = np.maximum(0.0, self._labels_at(1 - target) - labels)
        low, middle, high = (value if math.isfinite(value) else None for value in self._quantiles(left))
        return Need(target, middle, low, high, reached=float(self.weights[left == 0].sum()))

    @property
    def effective(self) -> float:
        """How many equally weighted curves these are worth (Kong 1992)."""
        return float(1 / np.square(self.weights).sum())

    def _errors(self, labels: NDArray[np.int64]) -> Array:  # (M, len(labels))
        return _errors((self.start, self.scale, self.rate, self.bend, self.floor), labels)

    def _labels_at(self, error: float) -> Array:  # (M,)
        """Where each curve comes down to an error; infinite where its floor is above it."""
        above = error - self.floor
        with np.errstate(over="ignore"):
            ratio = np.maximum(1.0, (self.start - self.floor) / np.where(above > 0, above, np.inf))
            found = self.scale * (ratio ** (self.bend / self.rate) - 1) ** (1 / self.bend)
        reached: Array = np.where(above > 0, found, np.inf)
        return reached

    def _quantiles(self, values: Array) -> tuple[float, float, float]:
        order = np.argsort(values, kind="stable")
        below = np.cumsum(self.weights[order])
        places = np.searchsorted(below, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        low, middle, high = values[order[np.minimum(places, len(values) - 1)]].tolist()
        return low, middle, high


def learning_curves(
    audited: Sequence[Audited],
    left_out: Sequence[LeftOut] = (),
    *,
    classes: int,
    seed: int = 0,
) -> LearningCurves:
    """The posterior over learning curves of a model with K classes; without any answers, the prior.

    Importance sampling from the prior and from a Student distribution fitted to a first round, the two taken together
    as one mixture (deterministic mixture weights: Owen and Zhou 2000). Raises StoppingError.
    """
    _check(audited, left_out, classes)
    chance = 1 - 1 / classes
    random = np.random.default_rng(seed)
    first = random.standard_normal((DRAWS, PARAMETERS))
    fit = _log_likelihood(_curves(first, chance), audited, left_out)
    centre, spread = _moments(first, _normalised(fit))
    second, root = _student(random, centre, spread)
    points = np.concatenate([first, second])
    fit = np.concatenate([fit, _log_likelihood(_curves(second, chance), audited, left_out)])
    prior = _log_normal(points)
    mixture = np.logaddexp(prior, _log_student(points, centre, root)) - math.log(2)
    return LearningCurves(*_curves(points, chance), weights=_normalised(fit + prior - mixture))


def _check(audited: Sequence[Audited], left_out: Sequence[LeftOut], classes: int) -> None:
    if classes < 2:
        raise StoppingError(f"accuracy is of classes, and {classes} is fewer than two")
    negative = [
        count for count in (*(seen.labels for seen in audited), *(seen.labels for seen in left_out)) if count < 0
    ]
    if negative:
        raise StoppingError(f"label counts are not negative, got {negative[:3]}")
    wrong = [seen.accuracy for seen in left_out if not 0 <= seen.accuracy <= 1]
    if wrong or any(seen.labels == 0 for seen in left_out):
        raise StoppingError(f"leave-one-out accuracies are of labels and lie between 0 and 1, got {wrong[:3]}")


def _curves(points: Array, chance: float) -> Parameters:  # (M, 5) standard normal under the prior
    start = chance * (START[0] + (START[1] - START[0]) * ndtr(points[:, 0]))
    scale, rate, bend = (
        np.exp(mean + deviation * points[:, place])
        for place, (mean, deviation) in enumerate((SCALE, RATE, BEND), start=1)
    )
    return start, scale, rate, bend, start * ndtr(points[:, 4]) ** FLOOR


def _errors(curves: Parameters, labels: NDArray[np.int64]) -> Array:  # (M, T)
    start, scale, rate, bend, floor = (parameter[:, None] for parameter in curves)
    errors: Array = floor + (start - floor) * (1 + (labels / scale) ** bend) ** (-rate / bend)
    return np.clip(errors, 1e-9, 1 - 1e-9)


def _log_likelihood(curves: Parameters, audited: Sequence[Audited], left_out: Sequence[LeftOut]) -> Array:  # (M,)
    total = np.zeros(len(curves[0]))
    if audited:
        counts, places = np.unique([seen.labels for seen in audited], return_inverse=True)
        right = np.bincount(places, weights=[seen.right for seen in audited])
        wrong = np.bincount(places) - right
        errors = _errors(curves, counts)
        total += np.log1p(-errors) @ right + np.log(errors) @ wrong
    if left_out:
        total += _log_of_left_out(curves, left_out)
    return total


def _log_of_left_out(curves: Parameters, left_out: Sequence[LeftOut]) -> Array:  # (M,)
    """Log odds of a binomial share around those of the curve, off by one offset for all and a scatter for each."""
    counts = np.array([seen.labels for seen in left_out])
    shares = np.clip([seen.accuracy for seen in left_out], SMALLEST, 1 - SMALLEST)
    errors = np.clip(_errors(curves, counts), SMALLEST, 1 - SMALLEST)
    off = np.log(shares / (1 - shares)) - np.log((1 - errors) / errors) - OFFSET[0]  # (M, T)
    variance = SCATTER**2 + 1 / (counts * shares * (1 - shares))
    root = np.linalg.cholesky(np.diag(variance) + OFFSET[1] ** 2)
    scaled: Array = np.linalg.solve(root, off.T)
    found: Array = -0.5 * np.square(scaled).sum(0)
    return found


def _normalised(log_weights: Array) -> Array:
    weights = np.exp(log_weights - log_weights.max())
    found: Array = weights / weights.sum()
    return found


def _moments(points: Array, weights: Array) -> tuple[Array, Array]:
    """Mean and covariance, never narrower in any direction than a twentieth of the prior."""
    centre = weights @ points
    off = points - centre
    return centre, (off * weights[:, None]).T @ off + 0.05**2 * np.eye(points.shape[1])


def _student(random: np.random.Generator, centre: Array, spread: Array) -> tuple[Array, Array]:
    """Draws of a Student distribution, and the root of its spread."""
    root = np.linalg.cholesky(spread).astype(np.float64)
    normal = random.standard_normal((DRAWS, len(centre)))
    stretch = np.sqrt(FREEDOM / random.chisquare(FREEDOM, size=(DRAWS, 1)))
    draws: Array = centre + (normal * stretch) @ root.T
    return draws, root


def _log_normal(points: Array) -> Array:
    size = points.shape[1]
    found: Array = -0.5 * np.square(points).sum(1) - size / 2 * math.log(2 * math.pi)
    return found


def _log_student(points: Array, centre: Array, root: Array) -> Array:
    size = points.shape[1]
    distance = np.square(np.linalg.solve(root, (points - centre).T)).sum(0)
    constant = math.lgamma((FREEDOM + size) / 2) - math.lgamma(FREEDOM / 2) - size / 2 * math.log(FREEDOM * math.pi)
    found: Array = constant - np.log(root.diagonal()).sum() - (FREEDOM + size) / 2 * np.log1p(distance / FREEDOM)
    return found
