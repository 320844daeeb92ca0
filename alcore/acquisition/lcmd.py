"""LCMD: the largest cluster around the labels, and in it the image that its label stands for least."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.acquisition import geometry as geometries
from alcore.acquisition.geometry import Embedded, Geometry
from alcore.acquisition.selector import best_of


class LargestClusterMaximumDistance:
    """Each image belongs to its nearest label, the earlier one among equals; scores are squared distances to it.

    The cluster with the largest sum of squared distances over the candidates is cut at its farthest candidate. Without
    labels all belong to the origin. O(N D) a label. Source: Holzmueller, Zaverkin, Kaestner, Steinwart 2023, arXiv
    2203.09410, section 5.2.7 (LCMD in TP mode).
    """

    def __init__(self, geometry: Geometry, labelled: Sequence[int] = ()) -> None:
        self.geometry = geometry
        self.nearest = geometry.squared_norms()
        self.cluster = torch.zeros(len(geometry), dtype=torch.int64)
        self.centres = 0
        if isinstance(geometry, Embedded) and len(labelled) > geometries.MANY:
            self.nearest, self.cluster = geometry.nearest_of(labelled)
            self.centres = len(labelled)
            return
        for row in labelled:
            self.label_(row)

    def choose(self, candidates: Tensor) -> tuple[int, float]:
        """The farthest candidate of the largest cluster among those that hold candidates."""
        sums = torch.bincount(self.cluster[candidates], weights=self.nearest[candidates], minlength=1)
        held = torch.bincount(self.cluster[candidates], minlength=1) > 0
        largest, _ = best_of(sums, held)
        return best_of(self.nearest, candidates & (self.cluster == largest))

    def label_(self, row: int) -> None:
        """One more centre, which takes what is nearer to it than to the others; the first one takes all."""
        distances = self.geometry.squared_distances(row)
        closer = distances < self.nearest if self.centres else torch.ones_like(self.nearest, dtype=torch.bool)
        self.nearest = torch.where(closer, distances, self.nearest)
        self.cluster[closer] = self.centres
        self.centres += 1

    def standing(self) -> Tensor:  # (N,)
        """Squared distances to the nearest label, whatever the cluster."""
        return self.nearest
