"""Similarities once some images are known: features of the posterior, or the kernel less what they explain."""

import torch
from torch import Tensor

from alcore.batch.errors import BatchInputError
from alcore.batch.residual import noisy_factor
from alcore.batch.similarity import BLOCK, ConditionedRows, FeatureRows, Similarity, blocks

RANK = 1e-12  # of the largest eigenvalue: below it, without noise, a direction counts as unknown
SMALL_NOISE = 1e-10  # variance relative to the mean squared feature, below which eigenvectors are needed
LARGEST_KNOWN = 20_000  # images a kernel without features is conditioned on: a square matrix of float64


def conditioned(similarity: Similarity, known: Tensor, *, noise: float) -> Similarity:  # (k,) points
    """The posterior covariance of the Gaussian process, given labels with this noise (a standard deviation).

    Of features Phi the features Phi (sigma^2 (Phi_k^T Phi_k + sigma^2 I)^-1)^(1/2), their width unchanged; without
    noise, what of Phi lies outside the span of Phi_k. Of a kernel K - K_k (K_kk + sigma^2 I)^-1 K_k^T.
    Raises BatchInputError when a kernel without features is to be conditioned on too many images.
    Source: Holzmueller et al. 2023, arXiv 2203.09410.
    """
    if isinstance(similarity, FeatureRows):
        return conditioned_features(similarity, known, noise=noise)
    known = known[similarity.diagonal()[known] > 0]  # the others say nothing, and without noise have no factor
    if not len(known):
        return similarity
    if len(known) > LARGEST_KNOWN:
        raise BatchInputError(
            f"a kernel without features can be conditioned on {LARGEST_KNOWN:,} images at most, not {len(known):,}"
        )
    lower = noisy_factor(similarity.block(known, known), noise)
    right = similarity.side(known)
    explained = torch.empty(similarity.points, len(known), dtype=similarity.dtype, device=similarity.device)
    for start, stop in blocks(similarity.points):
        crossed = similarity.between(similarity.pool_side(start, stop), right).double()
        explained[start:stop] = torch.linalg.solve_triangular(lower, crossed.t(), upper=False).t()
    return ConditionedRows(similarity, explained)


def conditioned_features(rows: FeatureRows, known: Tensor, *, noise: float) -> FeatureRows:  # (k,) points
    """The same, of features: in place where the arrays are owned."""
    if not len(known):
        return rows
    if len(known) < rows.width:
        return _by_images(rows, known, noise)
    gram = second_moment(rows, known)
    if noise**2 > SMALL_NOISE * float(gram.diagonal().mean()):
        # The same kernel by a root that is not symmetric, without eigenvectors.
        identity = torch.eye(rows.width, dtype=torch.float64, device=rows.device)
        inverse = torch.linalg.solve_triangular(noisy_factor(gram, noise), noise * identity, upper=False)
        return rows.mapped(inverse.t())
    values, vectors = torch.linalg.eigh(gram)
    return rows.mapped((vectors * _shrinkage(values, noise)) @ vectors.t())


def _by_images(rows: FeatureRows, known: Tensor, noise: float) -> FeatureRows:
    """Fewer images than features: only the directions of the images shrink."""
    features = rows.side(known).double()
    values, vectors = torch.linalg.eigh(features @ features.t())
    kept = values > RANK * values.amax().clamp_min(1e-300)
    if not kept.any():
        return rows
    directions = features.t() @ (vectors[:, kept] * values[kept].rsqrt())  # (S, rank), orthonormal
    lost = (1 - _shrinkage(values[kept], noise)) * directions
    return rows.less(directions, lost)


def _shrinkage(values: Tensor, noise: float) -> Tensor:
    """sqrt(sigma^2 / (value + sigma^2)); without noise 0 where something is known and 1 where nothing is."""
    known = values > RANK * values.amax().clamp_min(1e-300)
    if noise == 0:
        return (~known).double()
    return (noise**2 / (values.clamp_min(0) + noise**2)).sqrt()


def second_moment(rows: FeatureRows, known: Tensor) -> Tensor:  # (k,) points -> (S, S) float64
    """Sum of phi phi^T, in float64."""
    gram = torch.zeros(rows.width, rows.width, dtype=torch.float64, device=rows.device)
    for part in torch.split(known, BLOCK):
        features = rows.side(part).double()
        gram.addmm_(features.t(), features)
    return gram
