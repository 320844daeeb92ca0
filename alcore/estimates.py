"""What the labels say about the model and about each other, without a test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.posterior import Posterior


class EstimateError(ValueError):
    """An estimate that has no meaning for this posterior, or more rows than there are."""


@dataclass(frozen=True)
class SuspiciousLabel:
    """A label that all the others contradict.

    `given` is the class most of the image's labels name, `predicted` the class the model finds likeliest when it has
    every label but this image's; `residual` is the distance between the mean label and that prediction.
    """

    row: int
    given: int
    predicted: int
    residual: float


def mean_votes(posterior: Posterior, rows: Sequence[int]) -> Tensor:  # (n, K)
    """The mean label of each of these labelled images. Raises EstimateError for an image without a label."""
    missing = [row for row in rows if row not in posterior.votes]
    if missing:
        raise EstimateError(f"images without a label have no mean label: rows {missing[:5]}")
    if not rows:
        return posterior.initial.new_empty(0, posterior.classes)
    return torch.stack([torch.stack(posterior.votes[row]).mean(0) for row in rows])


def leave_one_out_accuracy(posterior: Posterior) -> float | None:
    """The share of labelled images whose class is predicted right without their own labels; None without labels.

    Optimistic where the network was trained on these labels. Raises EstimateError in regression.
    Source: Rasmussen and Williams 2006, equations 5.10 to 5.12.
    """
    rows, targets, predictions = _left_out(posterior)
    return float((predictions.argmax(1) == targets.argmax(1)).double().mean()) if rows else None


def leave_one_out_error(posterior: Posterior) -> float | None:
    """The root mean squared error of each labelled image's output, predicted without its own labels; in output units.

    None without labels; against the mean of an image's labels. Optimistic where the network was trained on them.
    Source: Rasmussen and Williams 2006, equations 5.10 to 5.12.
    """
    rows, residuals = posterior.leave_one_out()
    return float(residuals.square().sum(1).mean().sqrt()) if rows else None


def suspicious_labels(posterior: Posterior, *, top: int) -> tuple[SuspiciousLabel, ...]:
    """The labels that all the others contradict: predicted as another class, the farthest first, at most `top`.

    Ties go to the lower row. Raises EstimateError for fewer than one, and in regression.
    Source: leave-one-out residuals, Rasmussen and Williams 2006, section 5.4.2; Northcutt, Jiang, Chuang 2021, arXiv
    1911.00068, for asking what the data say of their own labels.
    """
    if top < 1:
        raise EstimateError(f"{top} suspicious labels were asked for")
    rows, targets, predictions = _left_out(posterior)
    distances = (targets - predictions).norm(dim=1)
    given, predicted = targets.argmax(1), predictions.argmax(1)
    wrong = (given != predicted).nonzero()[:, 0]
    order = wrong[distances[wrong].sort(descending=True, stable=True).indices[:top]].tolist()
    return tuple(
        SuspiciousLabel(rows[place], int(given[place]), int(predicted[place]), float(distances[place]))
        for place in order
    )


def _left_out(posterior: Posterior) -> tuple[list[int], Tensor, Tensor]:
    """Labelled rows, their mean labels (n, K) and what is predicted without each image's own."""
    if posterior.classes < 2:
        raise EstimateError(f"classes are compared: {posterior.classes} output has none")
    rows, residuals = posterior.leave_one_out()
    targets = mean_votes(posterior, rows).to(residuals)
    return rows, targets, targets - residuals
