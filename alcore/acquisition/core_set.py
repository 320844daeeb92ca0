"""Core-set: the image farthest from everything that has a label."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.acquisition import geometry
from alcore.acquisition.geometry import Embedded
from alcore.acquisition.selector import best_of


class CoreSet:
    """k-centre greedy: the candidate whose distance to the nearest label is largest; scores are distances.

    The first image, where nothing has a label, is the one nearest to the mean: minus its distance is the score then.
    O(N D) a label. Source: Sener and Savarese 2018, Active learning for convolutional neural networks: a core-set
    approach, arXiv 1708.00489, algorithm 1.
    """

    def __init__(self, embeddings: Tensor, labelled: Sequence[int] = ()) -> None:  # (N, D)
        self.geometry = Embedded(embeddings)
        self.nearest = torch.full_like(self.geometry.embeddings[:, 0], torch.inf)
        if len(labelled) > geometry.MANY:
            self.nearest, _ = self.geometry.nearest_of(labelled)
            return
        for row in labelled:
            self.label_(row)

    def choose(self, candidates: Tensor) -> tuple[int, float]:
        """The farthest candidate."""
        if torch.isinf(self.nearest).all():
            from_mean = self.geometry.embeddings - self.geometry.embeddings.mean(0)
            return best_of(-torch.linalg.vector_norm(from_mean, dim=1), candidates)
        return best_of(self.nearest.sqrt(), candidates)

    def label_(self, row: int) -> None:
        """One more centre."""
        self.nearest = torch.minimum(self.nearest, self.geometry.squared_distances(row))

    def standing(self) -> Tensor:  # (N,)
        """Squared distances to the nearest label."""
        return self.nearest
