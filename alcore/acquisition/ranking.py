"""A ranking of candidates, and what the label of each would change."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.cholesky import NonFiniteError
from alcore.posterior import Covariance, Posterior, TargetError
from alcore.posterior.checks import checked_row

MOVED = 0.05  # an image has moved when the prediction of some class changes by at least this


class CandidateError(ValueError):
    """The candidates are not one truth value an image, or too few are asked for."""


@dataclass(frozen=True)
class RankedImage:
    """One candidate: its score, and over the whole pool the images its most likely label would move or flip.

    `prediction` is the mean (K,) of the image itself after the answer the ranking was made for; None is not counted.
    """

    row: int
    score: float
    moved: int | None
    flipped: int | None
    prediction: Tensor


@dataclass(frozen=True)
class AnswerRanking:
    """The best candidates, best first; certified when no candidate outside the exactly scored ones can be better.

    `rest` are the rows that come after them, if they were asked for, in the order of their bounds.
    """

    entries: tuple[RankedImage, ...]
    certified: bool
    rest: tuple[int, ...] = ()


def checked_candidates(candidates: Tensor, posterior: Posterior, *, top: int) -> Tensor:  # (N,) bool
    """Raises CandidateError."""
    if not isinstance(candidates, Tensor):
        raise CandidateError(f"candidates are a tensor of {posterior.size} truth values, got {type(candidates)}")
    if candidates.dtype != torch.bool or tuple(candidates.shape) != (posterior.size,):
        raise CandidateError(
            f"candidates are {posterior.size} truth values, got {candidates.dtype} of shape {tuple(candidates.shape)}"
        )
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise CandidateError(f"a ranking of {top} images was asked for")
    return candidates.to(posterior.mean.device)


def of_candidates(scores: Tensor, candidates: Tensor) -> Tensor:  # (N,), (N,) bool -> (N,)
    """Scores with -inf where there is no candidate. Raises NonFiniteError for a candidate whose score is no number."""
    bad = (candidates & ~torch.isfinite(scores)).nonzero()[:, 0]
    if len(bad):
        raise NonFiniteError(
            f"row {int(bad[0])} has a score of {float(scores[bad[0]])}, as {len(bad)} of the candidates have: "
            f"kernel and ridge are too large or too small for squares in {scores.dtype}"
        )
    return scores.masked_fill(~candidates, -torch.inf)


def best_rows(scores: Tensor, count: int) -> Tensor:  # (N,) -> (at most count,)
    """Rows of the largest scores, best first, ties by the lower row; -inf is no candidate. Raises NonFiniteError."""
    if torch.isnan(scores).any():
        raise NonFiniteError(f"row {int(torch.isnan(scores).nonzero()[0])} has a score that is not a number")
    count = min(count, int((scores > -torch.inf).sum()))
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=scores.device)
    least = scores.topk(count).values[-1]
    rows = (scores >= least).nonzero()[:, 0]
    return rows[scores[rows].sort(descending=True, stable=True).indices[:count]]


def describe(
    rows: Tensor,  # (u,)
    scores: Tensor,  # (u,)
    *,
    answer: int | None,
    means: AnswerMeans,
    shifts: Tensor,  # (N, u): C[:, rows] / kappa[rows]
) -> tuple[RankedImage, ...]:
    """The entries of a ranking: what every image's label, the one it most likely has, would move and flip."""
    predictions, surprises = means.of(answer, rows), means.surprises(answer, rows)
    reach = shifts.abs()
    moved = (reach * surprises.abs().amax(1) >= MOVED).sum(0)
    largest, labels, second = means.top_two(answer)
    # Only where two classes are closer than the shift can bring them is a new argmax possible.
    near = reach * (surprises.amax(1) - surprises.amin(1)) >= (largest - second)[:, None]
    entries = []
    for place, row in enumerate(rows.tolist()):
        flipped = 0
        if means.classes > 1:
            flipped = means.flips(answer, labels, shifts[:, place], surprises[place], near[:, place])
        entries.append(RankedImage(row, float(scores[place]), int(moved[place]), flipped, predictions[place]))
    return tuple(entries)


def shifts_of(covariance: Covariance, rows: Tensor) -> Tensor:  # (u,) -> (N, u)
    """C[:, rows] / kappa[rows]: how far every image follows a unit surprise at each row."""
    return covariance.columns(rows) / covariance.noisy_variance[rows]


def answer_groups(
    posterior: Posterior, row: int, answers: Sequence[int | None]
) -> list[tuple[list[int | None], Covariance, AnswerMeans]]:
    """Answers that share a covariance: every label for the row, with it absorbed; a skip, with it taken out.

    Raises RowError, and TargetError for a class that does not exist.
    """
    checked_row(row, posterior.size)
    wrong = [answer for answer in answers if answer is not None and answer not in range(posterior.classes)]
    if wrong:
        raise TargetError(f"answers {wrong} are none of the {posterior.classes} classes")
    others = [pending for pending in posterior.pending if pending != row]
    groups: list[tuple[list[int | None], Covariance, AnswerMeans]] = []
    labels: list[int | None] = [answer for answer in answers if answer is not None]
    if labels:
        means = AnswerMeans(posterior.mean, gain=posterior.gain(row), answered=posterior.mean[row])
        groups.append((labels, posterior.covariance([*others, row]), means))
    if None in answers:
        groups.append(([None], posterior.covariance(others), AnswerMeans(posterior.mean)))
    return groups
