"""What is left of a kernel once some images are known: variances of the pool, and blocks of a few images.

C = K - K_P (K_PP + sigma^2 I)^-1 K_P^T, for more and more images P. Source: Rasmussen and Williams 2006, equation 2.24.
"""

from typing import Protocol

import torch
from torch import Tensor

from alcore.batch.similarity import FeatureRows, Similarity, blocks
from alcore.cholesky import factor


class Residual(Protocol):
    """A kernel that is conditioned on images in place."""

    variances: Tensor  # (N,) float64, without the noise

    def block(self, points: Tensor) -> Tensor:  # (m,) -> (m, m) float64
        """The covariance of a few points."""

    def condition_(self, points: Tensor) -> None:  # (m,)
        """Take in these points."""


def make_residual(similarity: Similarity, noise: float) -> Residual:
    """For features no column of the pool is kept, for other kernels one for each image that is known."""
    if isinstance(similarity, FeatureRows):
        return FeatureResidual(similarity, noise)
    return KernelResidual(similarity, noise)


class FeatureResidual:
    """C = Phi (I - W W^T) Phi^T with W (S, t)."""

    def __init__(self, rows: FeatureRows, noise: float) -> None:
        self._rows, self._noise = rows, noise
        self.variances = rows.diagonal()[: rows.size].clone()
        self._directions = torch.zeros(rows.width, 0, dtype=torch.float64, device=rows.device)

    def block(self, points: Tensor) -> Tensor:
        """From features in float64."""
        features = self._rows.side(points).double()
        known = features @ self._directions
        return features @ features.t() - known @ known.t()

    def condition_(self, points: Tensor) -> None:
        """One product over the pool for all of them."""
        features = self._rows.side(points).double()
        left = features - (features @ self._directions) @ self._directions.t()
        lower = noisy_factor(left @ features.t(), self._noise)
        directions = torch.linalg.solve_triangular(lower, left, upper=False).t()
        self._directions = torch.cat([self._directions, directions], 1)
        right = directions.to(self._rows.dtype)
        for start, stop in blocks(self._rows.size):
            explained = self._rows.pool[start:stop] @ right
            self.variances[start:stop] -= explained.square_().sum(1, dtype=torch.float64)


class KernelResidual:
    """C = K - L L^T with L (N + n, t) in the type of the kernel: the pivoted Cholesky factor."""

    def __init__(self, similarity: Similarity, noise: float) -> None:
        self._similarity, self._noise = similarity, noise
        self.variances = similarity.diagonal()[: similarity.size].clone()
        self._factor = torch.zeros(similarity.points, 0, dtype=similarity.dtype, device=similarity.device)

    def block(self, points: Tensor) -> Tensor:
        """From the kernel and the factor's rows."""
        known = self._factor[points].double()
        return self._similarity.block(points, points) - known @ known.t()

    def condition_(self, points: Tensor) -> None:
        """Columns of all points: what is known of training images must be at hand, too."""
        lower = noisy_factor(self.block(points), self._noise)
        known = self._factor[points]
        right = self._similarity.side(points)
        columns = torch.empty(len(self._factor), len(points), dtype=self._factor.dtype, device=self._factor.device)
        for start, stop in blocks(len(self._factor)):
            left = self._similarity.between(self._similarity.pool_side(start, stop), right)
            left -= self._factor[start:stop] @ known.t()
            columns[start:stop] = torch.linalg.solve_triangular(lower, left.double().t(), upper=False).t()
        self._factor = torch.cat([self._factor, columns], 1)
        self.variances -= columns[: len(self.variances)].double().square().sum(1)


def noisy_factor(block: Tensor, noise: float) -> Tensor:  # (m, m) -> (m, m)
    """Lower factor of a symmetrised block with the noise's variance on its diagonal."""
    block = (block + block.t()) / 2
    block.diagonal().add_(noise**2)
    return factor(block)
