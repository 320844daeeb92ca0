"""Candidates in blocks: the columns of the covariance that a criterion needs, never all of them at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import checked_candidates, of_candidates, shifts_of
from alcore.datasets import Progress
from alcore.posterior import Covariance, Posterior

BLOCK = 128


class CriterionError(ValueError):
    """A criterion that has no meaning for this posterior."""


@dataclass(frozen=True)
class Moment:
    """What a criterion looks at: one covariance, and the means under each of the answers that lead to it.

    `None` among the answers stands for the means as they are.
    """

    posterior: Posterior
    covariance: Covariance
    means: AnswerMeans
    answers: Sequence[int | None]

    @classmethod
    def now(cls, posterior: Posterior) -> "Moment":
        """As things stand, pending images taken as if they were answered."""
        return cls(posterior, posterior.covariance(), AnswerMeans(posterior.mean), [None])

    def same(self, scores: Tensor) -> Tensor:  # (N,) -> (len(answers), N)
        """Scores that no answer changes."""
        return scores.expand(len(self.answers), -1)


def check_classes(posterior: Posterior, *, criterion: str) -> None:
    """Raises CriterionError for regression, which has no most likely class."""
    if posterior.classes < 2:
        raise CriterionError(f"{criterion} compares classes: it has no meaning with {posterior.classes} output")


def scan(
    moment: Moment,
    candidates: Tensor,  # (N,) bool
    score: Callable[[Tensor, Tensor], Tensor],
    *,
    progress: Progress | None = None,
) -> Tensor:  # (len(answers), N)
    """Scores of the candidates, else -inf; `score` takes rows (b,) and shifts (N, b), gives (answers, b) or (b,).

    Costs O(N S) a candidate in the Frobenius form and O(N) in the pairwise one. Raises CandidateError,
    NonFiniteError.
    """
    candidates = checked_candidates(candidates, moment.posterior, top=1)
    scores = torch.full_like(moment.posterior.mean[:, 0], -torch.inf).repeat(len(moment.answers), 1)
    rows = candidates.nonzero()[:, 0]
    done = 0
    for block, shifts in blocks_of(moment.covariance, rows):
        scores[:, block] = score(block, shifts)
        done += len(block)
        if progress is not None:
            progress(done / len(rows), f"scored {done:,} of {len(rows):,} candidates")
    return torch.stack([of_candidates(line, candidates) for line in scores])


def blocks_of(covariance: Covariance, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (b,) with their shifts C[:, rows] / kappa (N, b)."""
    for block in torch.split(rows, BLOCK) if len(rows) else ():
        yield block, shifts_of(covariance, block)
