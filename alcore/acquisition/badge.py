"""BADGE: images whose likeliest label would pull hardest on the last layer, each in a direction of its own."""

import torch
from torch import Tensor

from alcore.acquisition.geometry import LastLayerGradients
from alcore.acquisition.random import generator_of
from alcore.acquisition.selector import best_of


class Badge:
    """k-means++ seeding on the gradients of the last layer under each image's likeliest label.

    The gradient is (prediction - likeliest label) x embedding: with probabilities as predictions that of the cross
    entropy, with outputs that of half the squared loss. The first image has the longest gradient; each next is drawn
    with a chance proportional to its squared distance to the nearest one chosen since the state was made, which is its
    score. The draw depends on the seed and the number chosen alone. O(N (K + D)) a label. Source: Ash, Zhang,
    Krishnamurthy, Langford, Agarwal 2020, arXiv 1906.03671, algorithm 1.
    """

    def __init__(self, mean: Tensor, embeddings: Tensor, *, seed: int) -> None:  # (N, K), (N, D)
        likeliest = torch.zeros_like(mean).scatter_(1, mean.argmax(1, keepdim=True), 1)
        self.gradients = LastLayerGradients(mean - likeliest, embeddings)
        self.nearest = self.gradients.squared_norms()
        self.seed = int(seed)
        self.chosen = 0

    def choose(self, candidates: Tensor) -> tuple[int, float]:
        """The longest gradient first, then by chance; all candidates alike where every distance is 0."""
        if self.chosen == 0:
            return best_of(self.nearest, candidates)
        weights = torch.where(candidates, self.nearest, 0)
        if not weights.any():
            weights = candidates.double()
        draw = torch.rand(1, dtype=torch.float64, generator=self._generator())
        cumulative = weights.cumsum(0)
        row = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True).clamp_max(len(weights) - 1))
        row = row if weights[row] > 0 else int(weights.nonzero()[-1, 0])  # the draw fell beyond the last by rounding
        return row, float(self.nearest[row])

    def label_(self, row: int) -> None:
        """One more centre; before the first the distances were those to the origin."""
        distances = self.gradients.squared_distances(row)
        self.nearest = torch.minimum(self.nearest, distances) if self.chosen else distances
        self.chosen += 1

    def standing(self) -> Tensor:  # (N,)
        """Squared distances to the nearest image chosen."""
        return self.nearest

    def _generator(self) -> torch.Generator:
        return generator_of(self.seed * 1_000_003 + self.chosen)
