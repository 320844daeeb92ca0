"""Reference sets: a sample of the pool in place of the whole sum, and what that costs in the ranking."""

import torch
from torch import Tensor

from alcore.acquisition.answers import AnswerMeans
from alcore.acquisition.ranking import best_rows, checked_candidates, of_candidates
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

    In regression, where no label surprises, the variance reduction of the reference rows, as everywhere. O(m N S) for
    the whole pool. Raises ReferenceSetError for no rows, RowError, CandidateError, NonFiniteError.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, MLMOC on a subset of the pool.
    """
    candidates = checked_candidates(candidates, posterior, top=1)
    if len(reference) == 0:
        raise ReferenceSetError("a reference set of no images has no scores")
    rows = torch.tensor(checked_rows(reference.tolist(), posterior.size), device=posterior.mean.device)
    covariance = posterior.covariance()
    reach = torch.zeros_like(covariance.noisy_variance)
    power = 2 if posterior.classes == 1 else 1
    for block in torch.split(rows, BLOCK):
        columns = covariance.columns(block)  # C is symmetric: columns of the reference, rows of the pool
        reach += columns.abs().pow(power).sum(1)
    reach *= posterior.size / len(rows) / covariance.noisy_variance
    if posterior.classes > 1:
        reach *= AnswerMeans(posterior.mean).surprise_norms(None)
    return of_candidates(reach, candidates)


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
    within = top if within is None else within
    if min(top, within) < 1:
        raise ReferenceSetError(f"at least one image is compared: got the best {top} within the best {within}")
    best = best_rows(exact, top)
    if len(best) < top:
        raise ReferenceSetError(f"the best {top} of {len(best)} candidates were asked for")
    return float(torch.isin(best, best_rows(approximate, within)).float().mean())
