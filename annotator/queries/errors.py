"""How far a regression project's predictions are off: the audit's error with its interval, and the numbers so far."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from annotator.models import Linearization, Project
from annotator.models.scale import Scale
from annotator.queries import labelling
from annotator.queries.audits import audited_images

AUDIT_WINDOW = 100
AUDIT_ENOUGH = 20
CURVE_WINDOW = 40
CURVE_POINTS = 60
BINS = 20
Z = 1.959964


@dataclass(frozen=True)
class AuditPair:
    """An audited image: the number predicted before the answer, the one given, and when."""

    predicted: float
    given: float
    at: datetime

    @property
    def error(self) -> float:
        return self.predicted - self.given


@dataclass(frozen=True)
class ErrorEstimate:
    """The root mean squared error with its 95 % interval, in the project's unit.

    `baseline` is what always naming the mean of these images would have: their standard deviation.
    """

    error: float
    low: float
    high: float
    mean_absolute: float
    baseline: float
    count: int

    @property
    def explained(self) -> float | None:
        """The share of the numbers' variance that the predictions explain; None where all numbers are equal."""
        return 1 - (self.error / self.baseline) ** 2 if self.baseline > 0 else None


def audit_pairs(project: Project) -> list[AuditPair]:
    """Return every audited image that has a number now, in the order of the first answers."""
    return [
        AuditPair(float(one.prediction[0][1]), one.value, one.at)
        for one in audited_images(project)
        if one.value is not None
    ]


def estimate(pairs: Sequence[AuditPair]) -> ErrorEstimate:
    """Return the error of two pairs or more.

    The interval is Student's, of the mean squared error on a logarithmic scale: squared errors are skewed. It holds in
    some 93 of 100 cases where errors are Gaussian, and in fewer where their tails are heavy.
    """
    squares = [pair.error**2 for pair in pairs]
    count, mean = len(squares), sum(squares) / len(squares)
    low = high = mean
    if mean > 0:
        spread = math.sqrt(sum((square - mean) ** 2 for square in squares) / (count - 1))
        half = students_quantile(count - 1) * spread / (mean * math.sqrt(count))
        low, high = mean * math.exp(-half), mean * math.exp(half)
    middle = sum(pair.given for pair in pairs) / count
    return ErrorEstimate(
        error=math.sqrt(mean),
        low=math.sqrt(low),
        high=math.sqrt(high),
        mean_absolute=sum(abs(pair.error) for pair in pairs) / count,
        baseline=math.sqrt(sum((pair.given - middle) ** 2 for pair in pairs) / count),
        count=count,
    )


def students_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t. Source: Abramowitz and Stegun 1964, 26.7.5."""
    first = (Z**3 + Z) / (4 * freedom)
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
    return Z + first + second


def audit_error(pairs: Sequence[AuditPair]) -> ErrorEstimate | None:
    """Return the error on the last audited images; None while there are not enough."""
    recent = pairs[-AUDIT_WINDOW:]
    return estimate(recent) if len(recent) >= AUDIT_ENOUGH else None


def error_curve(pairs: Sequence[AuditPair], *, labelled: Sequence[datetime]) -> list[dict[str, float]]:
    """Return the error of a moving window of audit answers over the number of images labelled by then.

    At most CURVE_POINTS points, evenly spaced, the last one always among them.
    """
    step = max(1, math.ceil((len(pairs) - AUDIT_ENOUGH + 1) / CURVE_POINTS))
    points = []
    for end in sorted(range(len(pairs), AUDIT_ENOUGH - 1, -step)):
        window = pairs[max(0, end - CURVE_WINDOW) : end]
        value = estimate(window)
        labels = bisect_right(labelled, window[-1].at)
        points.append({"labels": labels, "error": value.error, "low": value.low, "high": value.high})
    return points


def histogram(project: Project, scale: Scale) -> list[dict[str, Any]]:
    """Return how many labels there are in each part of the range: each number by itself, or several to a part.

    All parts but the last hold equally many of the numbers that can be answered; the last may hold fewer.
    """
    values = labelling.current_labels(project).filter(value__isnull=False).values_list("value", flat=True)
    steps = round((scale.maximum - scale.minimum) / scale.step)
    width = math.ceil(steps / BINS)  # in steps, or a bin would hold a number more than the next
    found = Counter(
        min(max(round((v - scale.minimum) / scale.step), 0), steps) // width for v in values if v is not None
    )
    firsts = range(0, steps + 1, width)
    return [
        {"words": _bin_words(scale, first, min(first + width - 1, steps)), "labels": found[place]}
        for place, first in enumerate(firsts)
    ]


def _bin_words(scale: Scale, first: int, last: int) -> str:
    """Name the bin between two steps by its first and last number."""
    low, high = (scale.text(scale.minimum + step * scale.step) for step in (first, last))
    return low if first == last else f"{low} to {high}"


def numbers(project: Project, live: Linearization | None, *, labelled: Sequence[datetime]) -> dict[str, Any] | None:
    """Gather what the progress page says of a regression project; None where classes are asked for."""
    scale = project.scale
    if scale is None:
        return None
    pairs = audit_pairs(project)
    found = audit_error(pairs)
    return {
        "name": scale.name,
        "unit": scale.unit,
        "audit": None if found is None else {**asdict(found), "explained": found.explained},
        "audit_answers": len(pairs),
        "leave_one_out_error": live.leave_one_out_error if live else None,
        "error_curve": error_curve(pairs, labelled=labelled),
        "pairs": [{"predicted": pair.predicted, "given": pair.given} for pair in pairs[-AUDIT_WINDOW:]],
        "histogram": histogram(project, scale),
    }
