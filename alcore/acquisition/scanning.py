"""Candidates in blocks: the columns of the covariance that a criterion needs, never all of them at once."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from alcore.acquisition.ranking import checked_candidates, of_candidates, shifts_of
from alcore.datasets import Progress
from alcore.posterior import Covariance, Posterior

BLOCK = 128


class CriterionError(ValueError):
    """A criterion that has no meaning for this posterior."""


def check_classes(posterior: Posterior, *, criterion: str) -> None:
    """Raises CriterionError for regression, which has no most likely class."""
    if posterior.classes < 2:
        raise CriterionError(f"{criterion} compares classes: it has no meaning with {posterior.classes} output")


def scan(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    score: Callable[[Tensor, Tensor], Tensor],
    *,
    progress: Progress | None = None,
) -> Tensor:  # (N,)
    """Scores of the candidates, -inf elsewhere; `score` takes rows (b,) and their shifts (N, b) and gives (b,).

    Costs O(N S) a candidate in the Frobenius form and O(N) in the pairwise one. Raises CandidateError,
    NonFiniteError.
    """
    candidates = checked_candidates(candidates, posterior, top=1)
    scores = torch.full_like(posterior.mean[:, 0], -torch.inf)
    rows = candidates.nonzero()[:, 0]
    done = 0
    for block, shifts in blocks_of(posterior.covariance(), rows):
        scores[block] = score(block, shifts)
        done += len(block)
        if progress is not None:
            progress(done / len(rows), f"scored {done:,} of {len(rows):,} candidates")
    return of_candidates(scores, candidates)


def blocks_of(covariance: Covariance, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (b,) with their shifts C[:, rows] / kappa (N, b)."""
    for block in torch.split(rows, BLOCK) if len(rows) else ():
        yield block, shifts_of(covariance, block)
