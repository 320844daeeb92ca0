"""ProbCover: the image whose neighbourhood holds the most images that are in no label's neighbourhood yet."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alcore.acquisition.geometry import BLOCK, unit_rows
from alcore.acquisition.selector import best_of
from alcore.acquisition.typiclust import clusters_of

PURITY = 0.95


class ProbCover:
    """Balls of one radius around the labels; the score is how many images a candidate's ball would newly cover.

    Embeddings are taken to unit length. The graph of who lies in whose ball takes N^2 / 8 bytes; a label costs one
    sum over the lines of what it newly covers, at most O(N^2) over all labels together. Source: Yehuda, Dekel, Hacohen,
    Weinshall 2022, Active learning through a covering lens, arXiv 2205.11320, algorithm 1.
    """

    def __init__(self, embeddings: Tensor, labelled: Sequence[int] = (), *, radius: float) -> None:  # (N, D)
        self.graph = _graph(unit_rows(embeddings.double()), radius)  # (N, ceil(N / 8)) bits
        size = len(embeddings)
        self.covered = np.zeros(size, dtype=bool)
        self.degrees = np.concatenate([self._lines(slice(at, at + BLOCK)).sum(1) for at in range(0, size, BLOCK)])
        for row in labelled:
            self.label_(row)

    def choose(self, candidates: Tensor) -> tuple[int, float]:
        """The candidate with the most uncovered images around it."""
        return best_of(torch.from_numpy(self.degrees).double(), candidates)

    def label_(self, row: int) -> None:
        """What lies in its ball is covered and counts for nobody any more."""
        newly = np.flatnonzero(self._lines(row) & ~self.covered)
        for at in range(0, len(newly), BLOCK):
            self.degrees -= self._lines(newly[at : at + BLOCK]).sum(0)
        self.covered[newly] = True

    def standing(self) -> Tensor:  # (N,)
        """How many images each would newly cover."""
        return torch.from_numpy(self.degrees).double()

    def _lines(self, rows: int | slice | np.ndarray) -> np.ndarray:
        return np.unpackbits(self.graph[rows], axis=-1, count=len(self.covered)).astype(bool)


def cover_radius(embeddings: Tensor, *, classes: int, seed: int, purity: float = PURITY) -> float:
    """The largest radius at which the share `purity` of all balls holds images of one k-means cluster only.

    With as many clusters as classes; the limit itself in place of the best value of a grid. Images at the limit are
    outside. Source: Yehuda et al. 2022, arXiv 2205.11320, section 4.2.
    """
    points = unit_rows(embeddings.double())
    clusters = clusters_of(points, max(1, min(classes, len(points))), seed=seed)
    if len(torch.unique(clusters)) < 2:
        return 2.0  # everything is one cluster: no two rows of length 1 are farther apart
    strangers = torch.cat(
        [
            squared_distances(points[rows], points).masked_fill_(clusters[rows][:, None] == clusters, torch.inf).amin(1)
            for rows in torch.split(torch.arange(len(points)), BLOCK)
        ]
    )
    impure = len(points) - math.ceil(purity * len(points) - 1e-9)  # so many balls may hold a stranger
    limit = float(strangers.sort().values[min(impure, len(points) - 1)].sqrt())
    return float(np.nextafter(limit * (1 - 1e-9), 0))


def squared_distances(left: Tensor, right: Tensor) -> Tensor:  # (b, D), (N, D) -> (b, N)
    """In float64, never below 0."""
    squares = left.square().sum(1)[:, None] + right.square().sum(1)
    return torch.addmm(squares, left, right.t(), alpha=-2).clamp_min_(0)


def _graph(points: Tensor, radius: float) -> np.ndarray:
    lines = []
    for rows in torch.split(torch.arange(len(points)), BLOCK):
        near = squared_distances(points[rows], points) <= radius**2
        near[torch.arange(len(rows)), rows] = True
        lines.append(np.packbits(near.cpu().numpy(), axis=1))
    return np.concatenate(lines)
