"""Uncertainty: the image the linear model is least sure of, after every label and without retraining."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import (
    AnswerRanking,
    answer_groups,
    best_rows,
    checked_candidates,
    describe,
    shifts_of,
)
from alcore.posterior import Covariance, Posterior

Strategy = Literal["margin", "entropy", "least_confidence"]


class UncertaintyError(ValueError):
    """Uncertainty over fewer than two classes, or a strategy that does not exist."""


def project_simplex(values: Tensor) -> Tensor:  # (N, K) -> (N, K)
    """The nearest probabilities in squared distance: non-negative rows that sum to 1. Raises UncertaintyError.

    Source: Duchi, Shalev-Shwartz, Singer, Chandra 2008, Efficient projections onto the l1-ball, figure 1.
    """
    if values.ndim != 2 or values.shape[1] == 0:
        raise UncertaintyError(f"predictions are images by classes, got shape {tuple(values.shape)}")
    values = values - values.amax(1, keepdim=True)  # the same point is nearest, and beside large values 1 is not lost
    ordered = values.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - 1
    count = torch.arange(1, values.shape[1] + 1, dtype=values.dtype, device=values.device)
    support = (ordered * count > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = excess.gather(1, support - 1) / support
    return (values - threshold).clamp_min(0)


def margin_scores(mean: Tensor) -> Tensor:  # (N, K) -> (N,)
    """Minus the gap between the two largest predictions. Raises UncertaintyError.

    Source: Scheffer, Decomain, Wrobel 2001, Active hidden Markov models for information extraction.
    """
    _check(mean)
    best = mean.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def entropy_scores(mean: Tensor) -> Tensor:  # (N, K) -> (N,)
    """Entropy in nats of the predictions projected on the simplex. Raises UncertaintyError.

    Source: Settles 2009, Active learning literature survey, section 3.1.
    """
    _check(mean)
    return torch.sum(torch.special.entr(project_simplex(mean)), 1)


def least_confidence_scores(mean: Tensor) -> Tensor:  # (N, K) -> (N,)
    """One minus the largest prediction. Raises UncertaintyError.

    Source: Lewis and Gale 1994; Settles 2009, section 3.1.
    """
    _check(mean)
    return 1 - mean.amax(1)


def _check(mean: Tensor) -> None:
    if mean.ndim != 2 or mean.shape[1] < 2:
        raise UncertaintyError(f"uncertainty needs at least two classes, got predictions of shape {tuple(mean.shape)}")


SCORES: dict[Strategy, Callable[[Tensor], Tensor]] = {
    "margin": margin_scores,
    "entropy": entropy_scores,
    "least_confidence": least_confidence_scores,
}


def rank_uncertainty_now(
    posterior: Posterior,
    *,
    candidates: Tensor,  # (N,) bool
    top: int,
    strategy: Strategy,
) -> AnswerRanking:
    """The candidates the linear model is least sure of. Raises UncertaintyError, CandidateError, NonFiniteError."""
    candidates = checked_candidates(candidates, posterior, top=top)
    means = AnswerMeans(posterior.mean)
    return _rank(means, posterior.covariance(), None, candidates, top=top, strategy=strategy)


def rank_uncertainty_after_answers(
    posterior: Posterior,
    row: int,
    *,
    answers: Sequence[int | None],
    candidates: Tensor,  # (N,) bool
    top: int,
    strategy: Strategy,
) -> dict[int | None, AnswerRanking]:
    """The ranking that would hold after each answer for `row`; None is a skip, the row itself is never ranked.

    `moved` and `flipped` say what the label of each candidate would change, as in the look-ahead ranking. Raises
    RowError, TargetError, UncertaintyError, CandidateError, NonFiniteError, SingularKernelError.
    """
    open_rows = checked_candidates(candidates, posterior, top=top).clone()
    rankings: dict[int | None, AnswerRanking] = {}
    for group, covariance, means in answer_groups(posterior, row, answers):
        open_rows[row] = False
        for answer in group:
            rankings[answer] = _rank(means, covariance, answer, open_rows, top=top, strategy=strategy)
    return {answer: rankings[answer] for answer in answers}


def _rank(
    means: AnswerMeans,
    covariance: Covariance,
    answer: int | None,
    candidates: Tensor,
    *,
    top: int,
    strategy: Strategy,
) -> AnswerRanking:
    if strategy not in SCORES:
        raise UncertaintyError(f"there is no strategy {strategy!r}; there are {', '.join(SCORES)}")
    everything = torch.arange(len(candidates), device=candidates.device)
    scores = SCORES[strategy](means.of(answer, everything)).masked_fill(~candidates, -torch.inf)
    rows = best_rows(scores, top)
    entries = describe(rows, scores[rows], answer=answer, means=means, shifts=shifts_of(covariance, rows))
    return AnswerRanking(entries, certified=True)
