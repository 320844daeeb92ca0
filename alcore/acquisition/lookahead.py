"""Look-ahead: the image whose most likely label would change the model's outputs over the whole pool the most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import (
    AnswerRanking,
    CandidateError,
    RankedImage,
    answer_groups,
    best_rows,
    checked_candidates,
    describe,
    of_candidates,
    shifts_of,
)
from alcore.posterior import Covariance, Posterior
from alcore.posterior.checks import checked_rows

__all__ = [
    "AnswerRanking",
    "CandidateError",
    "Form",
    "FormError",
    "RankedImage",
    "exact_scores",
    "look_ahead_scores",
    "rank_after_answers",
    "rank_now",
]

Form = Literal["linear", "network", "squares"]
FORMS: tuple[Form, ...] = get_args(Form)
HEAD = 64  # candidates of each answer that are scored exactly in the Frobenius form,
LEAST_HEAD = 16  # fewer where a column of the covariance is dear:
HEAD_WORK = 2_000_000_000  # so many multiplications for each answer, 0.1 s on two cores for ten of them
BLOCK = 128  # columns of the covariance formed at once: with their sums they stay in the cache
BOUND_SLACK = 1.001  # bounds come from arrays that may have drifted by a thousandth


class FormError(ValueError):
    """The look-ahead is measured against something that does not exist."""


@dataclass(frozen=True)
class Outlook:
    """Everything that scores need once the answer's effect on the means is known.

    The change that the most likely label of j makes at image x is A r_j with A = C[x, j] / kappa_j. The score is its
    norm, summed over the pool: of the change itself ("linear", it factorises), or of the changed mean minus the
    network's own output ("network"); "squares" is the root of the sum of the squares of the first, in which the sea of
    tiny changes far away counts for little. Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, MLMOC.
    """

    posterior: Posterior
    covariance: Covariance
    means: AnswerMeans
    form: Form

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise FormError(f"look-ahead has the forms {', '.join(FORMS)}, not {self.form!r}")

    def frobenius(self, answers: Sequence[int | None], *, drift: float = 0.0) -> list[Tensor]:  # of (N,)
        """A2_j of every image under every answer: the root of the sum of squares in place of the sum of norms.

        For bounds: never below what it is where the sums of squares are off by `drift`, relative to their mean.
        """
        kappa, sums = self.covariance.noisy_variance, self.covariance.square_sums()
        if self.posterior.classes == 1:
            return [sums / kappa for _ in answers]
        spread = (sums + drift * sums.mean()) / kappa.square()
        if self.form != "network":
            root = spread.sqrt_()
            return [self.means.surprise_norms(answer).mul_(root) for answer in answers]
        gap = self.posterior.network - self.means.base  # D where the answer adds nothing
        turned = self.covariance.product(gap) / kappa[:, None]
        pulled = None
        if self.means.gain is not None:
            pulled = self.covariance.product(self.means.gain[:, None])[:, 0] / kappa
        return [self._frobenius_network(answer, spread, gap, turned, pulled) for answer in answers]

    def _frobenius_network(
        self,
        answer: int | None,
        spread: Tensor,  # (N,) q / kappa^2
        gap: Tensor,  # (N, K)
        turned: Tensor,  # (N, K) C gap / kappa
        pulled: Tensor | None,  # (N,) C gain / kappa
    ) -> Tensor:  # (N,)
        """The root of T + 2 B_j . r_j / kappa_j + ||r_j||^2 q_j / kappa_j^2."""
        rows = torch.arange(self.posterior.size, device=gap.device)
        surprises = self.means.surprises(answer, rows)
        total = self._gap_squares(answer, gap).sum() - 2 * (turned * surprises).sum(1)
        if answer is not None and pulled is not None:
            total = total + 2 * pulled * surprises[:, answer]
        return (total + spread * surprises.square().sum(1)).clamp_min_(0).sqrt_()

    def _gap_squares(self, answer: int | None, gap: Tensor) -> Tensor:  # (N,), ||f0 - mean||^2 after the answer
        squares = gap.square().sum(1)
        gain = self.means.gain
        if answer is None or gain is None:
            return squares
        return squares + gain * (gain - 2 * gap[:, answer])

    def exact(
        self,
        rows: Tensor,  # (b,)
        answers: Sequence[int | None],
    ) -> Tensor:  # (len(answers), b)
        """The scores of some rows under every answer by their definition, all N images summed."""
        if self.posterior.classes == 1:
            scores = self.covariance.square_sums()[rows] / self.covariance.noisy_variance[rows]
            return scores.expand(len(answers), -1)
        if self.form == "squares":
            return torch.stack([scores[rows] for scores in self.frobenius(answers)])
        blocks = [
            self._exact_block(block, shifts_of(self.covariance, block), answers) for block in torch.split(rows, BLOCK)
        ]
        return torch.cat(blocks, 1) if blocks else self.means.base.new_empty(len(answers), 0)

    def _exact_block(
        self,
        rows: Tensor,  # (b,)
        shifts: Tensor,  # (N, b)
        answers: Sequence[int | None],
    ) -> Tensor:  # (len(answers), b)
        shifts = shifts.t()  # A, (b, N): sums run along memory
        if self.form == "network":
            gap = (self.posterior.network - self.means.base).t().contiguous()  # (K, N)
            return torch.stack([self._network_sums(answer, rows, shifts, gap) for answer in answers])
        weights = shifts.abs().sum(1)
        return torch.stack([self.means.surprise_norms(answer)[rows] * weights for answer in answers])

    def _network_sums(self, answer: int | None, rows: Tensor, shifts: Tensor, gap: Tensor) -> Tensor:  # (b,)
        """sum_x sqrt(||D_x||^2 + A (A ||r||^2 - 2 <D_x, r>)) with D = f0 - mean after the answer."""
        surprises = self.means.surprises(answer, rows)
        crossed = surprises @ gap  # (b, N)
        if answer is not None and self.means.gain is not None:
            crossed.addr_(surprises[:, answer], self.means.gain, alpha=-1)
        slope = torch.sub(shifts * surprises.square().sum(1)[:, None], crossed, alpha=2)
        squares = torch.addcmul(self._gap_squares(answer, gap.t())[None], slope, shifts)
        return squares.clamp_min_(0).sqrt_().sum(1)

    def rank(
        self,
        answers: Sequence[int | None],
        candidates: Tensor,  # (N,) bool
        *,
        top: int,
        rest: int = 0,
    ) -> dict[int | None, AnswerRanking]:
        """The best candidates under every answer, exactly scored: all of them, or the head of the Frobenius form.

        `rest` more rows are listed behind them, by their bounds where they have no exact score.
        """
        bounds = self._bounds(answers, candidates, top=top)
        heads = [best_rows(bound, max(self._head, top)) for bound in bounds]
        shortlist = torch.unique(torch.cat(heads)) if heads else candidates.nonzero()[:, 0]
        held = shifts_of(self.covariance, shortlist) if len(shortlist) <= BLOCK else None
        if held is None or self.posterior.classes == 1 or self.form == "squares":
            scores = self.exact(shortlist, answers)
        else:
            scores = self._exact_block(shortlist, held, answers)
        chosen = [best_rows(line, top) for line in scores]
        shown = torch.unique(torch.cat(chosen))
        shifts = shifts_of(self.covariance, shortlist[shown]) if held is None else held[:, shown]
        rankings = {}
        for place, answer in enumerate(answers):
            rows, line = shortlist[chosen[place]], scores[place, chosen[place]]
            entries = describe(
                rows, line, answer=answer, means=self.means, shifts=shifts[:, torch.searchsorted(shown, chosen[place])]
            )
            certified = not bounds or self._certified(bounds[place], shortlist, line)
            scored = bounds[place] if bounds else candidates.new_full(candidates.shape, -torch.inf, dtype=line.dtype)
            if not bounds:
                scored[shortlist] = scores[place]
            rankings[answer] = AnswerRanking(entries, certified, _behind(scored, rows, rest))
        return rankings

    @property
    def _head(self) -> int:
        """How many candidates of each answer are scored exactly."""
        return max(LEAST_HEAD, min(HEAD, HEAD_WORK // (self.posterior.size * self.posterior.width)))

    def _bounds(self, answers: Sequence[int | None], candidates: Tensor, *, top: int) -> list[Tensor]:
        """sqrt(N) A2_j, never below the exact score of a candidate; none where all are scored exactly anyway."""
        if self.form == "squares" or self.posterior.form == "pairwise" or int(candidates.sum()) <= max(self._head, top):
            return []
        root = self.posterior.size**0.5 if self.posterior.classes > 1 else 1.0
        return [(scores * root).masked_fill_(~candidates, -torch.inf) for scores in self.frobenius(answers)]

    def _certified(self, bound: Tensor, shortlist: Tensor, line: Tensor) -> bool:
        """No bound outside the exactly scored rows reaches the last one shown."""
        outside = bound.clone()
        outside[shortlist] = -torch.inf
        return bool(outside.max() * (BOUND_SLACK if self.posterior.classes > 1 else 1.0) <= line[-1])


def _behind(scores: Tensor, shown: Tensor, count: int) -> tuple[int, ...]:  # (N,), (k,)
    """The best rows that are not among the shown ones."""
    if count == 0:
        return ()
    scores = scores.clone()
    scores[shown] = -torch.inf
    return tuple(best_rows(scores, count).tolist())


def rank_now(
    posterior: Posterior,
    *,
    candidates: Tensor,  # (N,) bool
    top: int,
    rest: int = 0,
    form: Form = "linear",
) -> AnswerRanking:
    """The candidates whose label would change the pool the most, pending images taken as if they were answered.

    Fewer than `top` entries where there are fewer candidates; `rest` more rows are listed behind them, by bounds.
    Raises CandidateError, NonFiniteError, SingularKernelError.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, MLMOC.
    """
    candidates = checked_candidates(candidates, posterior, top=top)
    outlook = Outlook(posterior, posterior.covariance(), AnswerMeans(posterior.mean), form)
    return outlook.rank([None], candidates, top=top, rest=rest)[None]


def rank_after_answers(
    posterior: Posterior,
    row: int,
    *,
    answers: Sequence[int | None],
    candidates: Tensor,  # (N,) bool
    top: int,
    form: Form = "linear",
) -> dict[int | None, AnswerRanking]:
    """The ranking that would hold after each answer for `row`, from one covariance: it does not depend on the answer.

    An answer is a class, or None when the row is skipped: then its pending effect is taken out. The row itself is
    never ranked. Raises RowError, TargetError for a class that does not exist, FormError, CandidateError,
    NonFiniteError, SingularKernelError. Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, sequential selection.
    """
    open_rows = checked_candidates(candidates, posterior, top=top).clone()
    rankings: dict[int | None, AnswerRanking] = {}
    for group, covariance, means in answer_groups(posterior, row, answers):
        open_rows[row] = False
        rankings.update(Outlook(posterior, covariance, means, form).rank(group, open_rows, top=top))
    return {answer: rankings[answer] for answer in answers}


def look_ahead_scores(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    form: Form = "linear",
) -> Tensor:  # (N,)
    """Scores of all candidates, -inf for other images: exact (MLMOC) in the pairwise form, else A2.

    Raises CandidateError, FormError, NonFiniteError. Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, MLMOC.
    """
    candidates = checked_candidates(candidates, posterior, top=1)
    outlook = Outlook(posterior, posterior.covariance(), AnswerMeans(posterior.mean), form)
    if posterior.form == "frobenius":
        return of_candidates(outlook.frobenius([None])[0], candidates)
    scores = torch.full_like(posterior.mean[:, 0], -torch.inf)
    rows = candidates.nonzero()[:, 0]
    scores[rows] = outlook.exact(rows, [None])[0]
    return of_candidates(scores, candidates)


def exact_scores(
    posterior: Posterior,
    rows: Sequence[int],
    form: Form = "linear",
) -> Tensor:  # (b,)
    """MLMOC of some rows by its definition, summed over the whole pool. Raises RowError.

    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569.
    """
    chosen = torch.tensor(checked_rows(rows, posterior.size), dtype=torch.int64, device=posterior.mean.device)
    outlook = Outlook(posterior, posterior.covariance(), AnswerMeans(posterior.mean), form)
    return outlook.exact(chosen, [None])[0]
