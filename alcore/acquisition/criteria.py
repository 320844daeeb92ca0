"""Criteria while people label: what follows every answer, from the covariance that the answers share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.expected import emoc_scores_at, error_reduction_scores_at
from alcore.acquisition.flips import flip_scores_at
from alcore.acquisition.ranking import (
    AnswerRanking,
    answer_groups,
    best_rows,
    checked_candidates,
    describe,
    shifts_of,
)
from alcore.acquisition.scanning import CriterionError, Moment
from alcore.acquisition.variance import epig_scores_at, variance_reduction_scores_at
from alcore.posterior import Posterior

Criterion = Literal["flips", "emoc", "error_reduction", "variance_reduction", "epig"]
SCORES: Mapping[str, Callable[[Moment, Tensor], Tensor]] = {
    "flips": flip_scores_at,
    "emoc": emoc_scores_at,
    "error_reduction": error_reduction_scores_at,
    "variance_reduction": variance_reduction_scores_at,
    "epig": epig_scores_at,
}


def rank_by_criterion_now(
    posterior: Posterior,
    *,
    criterion: str,
    candidates: Tensor,  # (N,) bool
    top: int,
    rest: int = 0,
) -> AnswerRanking:
    """The best candidates as things stand, pending images taken as if they were answered, and `rest` rows behind them.

    Raises CriterionError, CandidateError, NonFiniteError.
    """
    candidates = checked_candidates(candidates, posterior, top=top)
    return _rank(Moment.now(posterior), criterion, candidates, top=top, rest=rest)[None]


def rank_by_criterion_after_answers(
    posterior: Posterior,
    row: int,
    *,
    criterion: str,
    answers: Sequence[int | None],
    candidates: Tensor,  # (N,) bool
    top: int,
) -> dict[int | None, AnswerRanking]:
    """The ranking that would hold after each answer for `row`; None is a skip, the row itself is never ranked.

    Expected error reduction takes the answer into the covariance alone. Raises RowError, TargetError, CriterionError,
    CandidateError, NonFiniteError, SingularKernelError.
    """
    open_rows = checked_candidates(candidates, posterior, top=top).clone()
    rankings: dict[int | None, AnswerRanking] = {}
    for group, covariance, means in answer_groups(posterior, row, answers):
        open_rows[row] = False
        rankings.update(_rank(Moment(posterior, covariance, means, group), criterion, open_rows, top=top))
    return {answer: rankings[answer] for answer in answers}


def _rank(
    moment: Moment, criterion: str, candidates: Tensor, *, top: int, rest: int = 0
) -> dict[int | None, AnswerRanking]:
    if criterion not in SCORES:
        raise CriterionError(f"there is no criterion {criterion!r}; there are {', '.join(SCORES)}")
    lines = SCORES[criterion](moment, candidates)
    ordered = [best_rows(line, top + rest) for line in lines]
    shown = torch.unique(torch.cat([rows[:top] for rows in ordered]))
    shifts = shifts_of(moment.covariance, shown)
    means: AnswerMeans = moment.means
    rankings: dict[int | None, AnswerRanking] = {}
    for answer, line, rows in zip(moment.answers, lines, ordered, strict=True):
        first = rows[:top]
        columns = shifts[:, torch.searchsorted(shown, first)]
        entries = describe(first, line[first], answer=answer, means=means, shifts=columns)
        rankings[answer] = AnswerRanking(entries, certified=True, rest=tuple(rows[top:].tolist()))
    return rankings
