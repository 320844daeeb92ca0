"""Reference sets: a sample of the pool in place of the whole sum, and what that costs in the ranking."""

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import best_rows, checked_candidates
from alcore.acquisition.scanning import BLOCK
from alcore.posterior import Posterior
from alcore.posterior.checks import checked_rows


class ReferenceSetError(ValueError):
    """A reference set or an overlap that cannot be formed."""


def reference_rows(size: int, *, count: int, seed: int) -> Tensor:  # (count,)
    """Rows drawn uniformly without repetition from a pool of `size`, ascending. Raises ReferenceSetError."""
    if not 1 <= count <= size:
        raise ReferenceSetError(f"a reference set of {count} images cannot be drawn from a pool of {size}")
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def reference_scores(
    posterior: Posterior,
    candidates: Tensor,  # (N,) bool
    reference: Tensor,  # (m,)
) -> Tensor:  # (N,)
    """MLMOC against the linear model with the sum over the reference rows alone, times N / m; -inf elsewhere.

    O(m N S) for the whole pool. Raises RowError, CandidateError.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, MLMOC on a subset of the pool.
    """
    candidates = checked_candidates(candidates, posterior, top=1)
    rows = torch.tensor(checked_rows(reference.tolist(), posterior.size), device=posterior.mean.device)
    covariance = posterior.covariance()
    reach = torch.zeros_like(covariance.noisy_variance)
    for block in torch.split(rows, BLOCK):
        reach += covariance.columns(block).abs().sum(1)  # C is symmetric: columns of the reference, rows of the pool
    reach *= posterior.size / len(rows) / covariance.noisy_variance
    return (reach * AnswerMeans(posterior.mean).surprise_norms(None)).masked_fill(~candidates, -torch.inf)


def top_overlap(
    approximate: Tensor,  # (N,)
    exact: Tensor,  # (N,)
    *,
    top: int,
    within: int | None = None,
) -> float:
    """The share of the exact best `top` that is among the approximate best `within` (default `top`).

    Raises ReferenceSetError for scores of different pools or fewer than `top` candidates, NonFiniteError.
    """
    if approximate.shape != exact.shape or exact.ndim != 1:
        raise ReferenceSetError(
            f"scores of shapes {tuple(approximate.shape)} and {tuple(exact.shape)} cannot be compared"
        )
    best = best_rows(exact, top)
    if top < 1 or len(best) < top:
        raise ReferenceSetError(f"the best {top} of {len(best)} candidates were asked for")
    return float(torch.isin(best, best_rows(approximate, within or top)).float().mean())
