"""Many images out at once: what follows every answer to each of them, from one covariance and one short list.

All of these images are pending, so every answer to any of them leaves the same covariance: what depends on it is worked
out once, and for each answer only the means of a short list are moved. The ranking as things stand comes of it, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import (
    AnswerRanking,
    RankedImage,
    best_rows,
    checked_candidates,
    describe,
    shifts_of,
)
from alcore.posterior import Covariance, Posterior, TargetError
from alcore.posterior.checks import checked_rows

SHORT = 4096  # candidates that are ranked for every answer
HEAD = 64  # of them, those whose exact sums are known,
LEAST_HEAD = 16  # fewer where a column of the covariance is dear:
HEAD_WORK = 3_000_000_000  # so many multiplications
EXPLAINED = 5  # of each ranking: counted how many images they would move


@dataclass(frozen=True)
class Present:
    """What the ranking as things stand is to be: `top` of these candidates, and `rest` more rows behind them."""

    candidates: Tensor  # (N,) bool
    top: int
    rest: int = 0


@dataclass(frozen=True)
class CrowdRankings:
    """By row and answer the ranking that follows; `now` is the one as things stand, where it was asked for."""

    after: dict[int, dict[int | None, AnswerRanking]]
    now: AnswerRanking | None = None


@dataclass(frozen=True)
class _ShortList:
    """Candidates (m,) with their geometry: the score of one is its weight times how surprising its label would be."""

    rows: Tensor  # (m,)
    weights: Tensor  # (m,)
    head: Tensor  # (h,), places in rows whose weight is the exact sum
    shifts: Tensor  # (N, h)
    complete: bool
    means: AnswerMeans  # of these rows, as things stand
    scores: Tensor  # (m,), as things stand


def rank_after_many(
    posterior: Posterior,
    rows: Sequence[int],
    *,
    answers: Sequence[int | None],
    candidates: Mapping[int, Tensor],  # row -> (N,) bool
    top: int,
    present: Present | None = None,
) -> CrowdRankings:
    """Look-ahead rankings after each answer to each of `rows`, against the linear model, all taken to be pending.

    In the pairwise form the scores of labels are exact. In the Frobenius form those of the head are; the others' sums
    are estimated from their Frobenius form by the head's mean ratio of the two, and candidates outside a short list
    (the best as things stand, and those whose labels reach furthest) are left out. After a skip (None) the ranking is
    that of this moment, the row still pending: it is never certified. What an image would move is counted from the
    present means, for the first few of each ranking in the head, and for all of `present` there. Raises RowError,
    TargetError, CandidateError, NonFiniteError, SingularKernelError.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, sequential selection.
    """
    rows = checked_rows(rows, posterior.size)
    wrong = [answer for answer in answers if answer is not None and not 0 <= answer < posterior.classes]
    if wrong:
        raise TargetError(f"answers {wrong} are none of the {posterior.classes} classes")
    masks = {row: checked_candidates(candidates[row], posterior, top=top) for row in rows}
    anybody = torch.zeros_like(posterior.mean[:, 0], dtype=torch.bool)
    if present is not None:
        anybody |= checked_candidates(present.candidates, posterior, top=present.top)
    for mask in masks.values():
        anybody |= mask
    anybody[rows] = False
    covariance = posterior.covariance(list(dict.fromkeys([*posterior.pending, *rows])))
    standing = AnswerMeans(posterior.mean)
    short = _short_list(posterior, covariance, standing, anybody)
    lines = {row: _lines(posterior, short, row, answers, masks[row], top) for row in rows}
    shown = [line.places[:EXPLAINED] for found in lines.values() for line in found.values()]
    now = None
    if present is not None:
        free = present.candidates[short.rows]
        now = _best(short, short.means, None, short.scores, free, present.top, rest=present.rest)
    counted = _explain(short, standing, shown if now is None else [*shown, now.places])
    after = {
        row: {
            answer: _ranking(short, counted, line, certified=short.complete and answer is not None)
            for answer, line in found.items()
        }
        for row, found in lines.items()
    }
    return CrowdRankings(after, None if now is None else _ranking(short, counted, now, certified=short.complete))


@dataclass(frozen=True)
class _Line:
    """A ranking before its entries are described."""

    places: Tensor  # (k,) in the short list
    scores: Tensor  # (k,)
    predictions: Tensor  # (k, K)
    rest: tuple[int, ...]


def _short_list(posterior: Posterior, covariance: Covariance, standing: AnswerMeans, open_rows: Tensor) -> _ShortList:
    kappa = covariance.noisy_variance
    if posterior.classes == 1:
        reach, surprise = covariance.square_sums() / kappa, torch.ones_like(kappa)
    else:
        reach = (covariance.square_sums() * posterior.size).sqrt() / kappa  # an upper bound of sum_x |C[x, j]| / kappa
        surprise = standing.surprise_norms(None)
    count = int(open_rows.sum())
    scores = (reach * surprise).masked_fill(~open_rows, -torch.inf)
    chosen = open_rows.nonzero()[:, 0]
    if count > SHORT:
        furthest = best_rows(reach.masked_fill(~open_rows, -torch.inf), SHORT // 2)
        chosen = torch.unique(torch.cat([best_rows(scores, SHORT // 2), furthest]))
    exact = posterior.form == "pairwise" and count <= SHORT
    head = torch.arange(len(chosen), device=chosen.device) if exact else best_rows(scores[chosen], _head(posterior))
    shifts = shifts_of(covariance, chosen[head])
    weights = reach[chosen]
    if posterior.classes > 1 and len(head):
        sums = shifts.abs().sum(0)
        weights = weights * (sums.sum() / weights[head].sum().clamp_min(torch.finfo(weights.dtype).tiny))
        weights[head] = sums
    means = AnswerMeans(posterior.mean[chosen])
    return _ShortList(chosen, weights, head, shifts, exact, means, weights * surprise[chosen])


def _head(posterior: Posterior) -> int:
    return max(LEAST_HEAD, min(HEAD, HEAD_WORK // (posterior.size * posterior.width)))


def _lines(
    posterior: Posterior,
    short: _ShortList,
    row: int,
    answers: Sequence[int | None],
    mask: Tensor,  # (N,) bool
    top: int,
) -> dict[int | None, _Line]:
    free = mask[short.rows]
    gain = posterior.gain(row)[short.rows]
    moves = AnswerMeans(short.means.base, gain=gain, answered=posterior.mean[row])
    scores = short.weights * moves.surprise_norms_by_class() if moves.classes > 1 else short.weights[None]
    return {
        answer: _best(short, short.means, None, short.scores, free, top)
        if answer is None
        else _best(short, moves, answer, scores[answer], free, top)
        for answer in answers
    }


def _best(
    short: _ShortList, means: AnswerMeans, answer: int | None, scores: Tensor, free: Tensor, top: int, *, rest: int = 0
) -> _Line:
    places = best_rows(scores.masked_fill(~free, -torch.inf), top + rest)
    first = places[:top]
    return _Line(first, scores[first], means.of(answer, first), tuple(short.rows[places[top:]].tolist()))


def _explain(short: _ShortList, standing: AnswerMeans, shown: Sequence[Tensor]) -> dict[int, RankedImage]:
    """Place -> what its label would move as things stand, of those shown that are in the head."""
    if not shown:
        return {}
    shown_head = torch.isin(short.head, torch.cat(list(shown))).nonzero()[:, 0]
    places = short.head[shown_head]
    entries = describe(
        short.rows[places], short.weights[places], answer=None, means=standing, shifts=short.shifts[:, shown_head]
    )
    return dict(zip(places.tolist(), entries, strict=True))


def _ranking(short: _ShortList, counted: Mapping[int, RankedImage], line: _Line, *, certified: bool) -> AnswerRanking:
    rows = short.rows[line.places].tolist()
    entries = []
    for place, row, score, prediction in zip(
        line.places.tolist(), rows, line.scores.tolist(), line.predictions, strict=True
    ):
        known = counted.get(place)
        moved, flipped = (known.moved, known.flipped) if known else (None, None)
        entries.append(RankedImage(row, score, moved, flipped, prediction))
    return AnswerRanking(tuple(entries), certified, line.rest)
