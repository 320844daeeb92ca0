"""How far images are from each other: in an embedding, under a kernel, or as gradients of the last layer."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 512
CACHED = 1 << 17  # numbers whose differences stay in a core's cache: a sixth of the time of all at once
MANY = 512  # labels that are taken in at once: more are, by products of matrices


class Geometry(Protocol):
    """Squared distances from one image to all, in float64: near-duplicates must not cancel to noise."""

    def __len__(self) -> int:
        """Images, N."""

    def squared_norms(self) -> Tensor:  # (N,)
        """Squared distances from the origin."""

    def squared_distances(self, row: int) -> Tensor:  # (N,)
        """From one image to every image; exactly 0 to itself."""


class Embedded:
    """Euclidean distances of rows; O(N D) an image, of many at once far less of it waiting for memory."""

    def __init__(self, embeddings: Tensor) -> None:  # (N, D)
        self.embeddings = embeddings.double()

    def __len__(self) -> int:
        return len(self.embeddings)

    def squared_norms(self) -> Tensor:  # (N,)
        """||x||^2."""
        return self.embeddings.square().sum(1)

    def squared_distances(self, row: int) -> Tensor:  # (N,)
        """||x - x_row||^2, from the differences themselves."""
        own, rows = self.embeddings[row], max(1, CACHED // max(1, self.embeddings.shape[1]))
        return torch.cat([(part - own).square_().sum(1) for part in torch.split(self.embeddings, rows)])

    def nearest_of(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:  # (N,), (N,)
        """The squared distance to the nearest of these rows and its place, the earlier one among equals.

        From inner products in float64: where an image has a copy it is off by the rounding of its norm.
        """
        norms = self.squared_norms()
        nearest, places = torch.full_like(norms, torch.inf), torch.zeros(len(norms), dtype=torch.int64)
        for start in range(0, len(rows), BLOCK):
            block = torch.tensor(list(rows[start : start + BLOCK]))
            apart = norms[block][:, None] + norms
            apart.addmm_(self.embeddings[block], self.embeddings.t(), alpha=-2).clamp_min_(0)
            apart[torch.arange(len(block)), block] = 0
            least, place = apart.min(0)
            closer = least < nearest
            nearest = torch.where(closer, least, nearest)
            places = torch.where(closer, place + start, places)
        return nearest, places


class Kernelled:
    """Distances in a kernel's feature space: k(x, x) + k(y, y) - 2 k(x, y), never below 0; O(N) an image."""

    def __init__(self, kernel: Tensor) -> None:  # (N, N)
        self.kernel = kernel
        self.diagonal = kernel.diagonal().double()

    def __len__(self) -> int:
        return len(self.kernel)

    def squared_norms(self) -> Tensor:  # (N,)
        """k(x, x)."""
        return self.diagonal.clamp_min(0)

    def squared_distances(self, row: int) -> Tensor:  # (N,)
        """In float64, from the kernel as it is given."""
        distances = (self.diagonal + self.diagonal[row] - 2 * self.kernel[row].double()).clamp_min_(0)
        distances[row] = 0
        return distances


class LastLayerGradients:
    """Distances of the outer products r x^T of residuals (N, K) and embeddings (N, D), which are never formed."""

    def __init__(self, residuals: Tensor, embeddings: Tensor) -> None:
        self.residuals, self.embeddings = residuals.double(), embeddings.double()
        self.norms = self.residuals.square().sum(1) * self.embeddings.square().sum(1)

    def __len__(self) -> int:
        return len(self.norms)

    def squared_norms(self) -> Tensor:  # (N,)
        """||r||^2 ||x||^2."""
        return self.norms

    def squared_distances(self, row: int) -> Tensor:  # (N,)
        """||r x^T - r' x'^T||^2 from inner products in float64."""
        inner = (self.residuals @ self.residuals[row]) * (self.embeddings @ self.embeddings[row])
        distances = (self.norms + self.norms[row] - 2 * inner).clamp_min_(0)
        distances[row] = 0
        return distances


def unit_rows(embeddings: Tensor) -> Tensor:  # (N, D) -> (N, D)
    """Rows of length 1; a row of zeros stays where it is."""
    norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    return embeddings / torch.where(norms > 0, norms, 1)
