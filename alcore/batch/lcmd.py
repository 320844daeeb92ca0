"""Largest cluster, maximum distance: the farthest image of the cluster that is worst covered."""

import torch
from torch import Tensor

from alcore.batch.ahead import AHEAD, ColumnsAhead
from alcore.batch.distances import nearest_trained, squared_distances
from alcore.batch.problem import Problem, Step
from alcore.batch.similarity import Similarity

LARGEST = 32  # clusters among which the next picks are rehearsed,
REHEARSED = 2048  # with so many images of them


@torch.no_grad()
def select_lcmd(problem: Problem) -> list[Step]:
    """The farthest image of the cluster with the largest sum of squared distances to its centre.

    Clusters are the pool images nearest to each selected image; the first of a cold start has the largest norm. Of
    clusters with equal sums all are looked at; of equal distances the lower row is taken. Scores are squared distances;
    details the cluster's sum and size.
    Source: Holzmueller et al. 2023, arXiv 2203.09410 (LCMD).
    """
    similarity = problem.similarity
    diagonal = similarity.diagonal()[: similarity.size]
    columns = ColumnsAhead(similarity)
    steps: list[Step] = []
    if len(problem.trained):
        near, of = nearest_trained(similarity, similarity.diagonal())
        clusters = Clusters(near, of, centres=len(problem.trained), more=problem.count)
    else:
        first = int(diagonal.argmax())
        steps.append(Step(first, float(diagonal[first])))
        distances = _distances(similarity, diagonal, first, columns.take(first, list))
        clusters = Clusters(distances, torch.zeros_like(distances, dtype=torch.int64), centres=1, more=problem.count)
        clusters.taken[first] = True
    while len(steps) < problem.count:
        step = clusters.next()
        steps.append(step)
        problem.tell(len(steps))
        if len(steps) < problem.count:
            column = columns.take(step.row, lambda: clusters.rehearsed(similarity))
            clusters.add_(step.row, _distances(similarity, diagonal, step.row, column))
    return steps


def _distances(similarity: Similarity, diagonal: Tensor, row: int, column: Tensor) -> Tensor:  # (N,) float64
    point = torch.tensor([row], device=column.device)
    found = squared_distances(similarity, diagonal, column[:, None], point)[:, 0]
    found[row] = 0
    return found


class Clusters:
    """Nearest centre and squared distance of every image; sum and size of every cluster.

    `rest` is what images that are left out add to the clusters' sums, where only a part of the images is looked at.
    """

    def __init__(self, near: Tensor, of: Tensor, *, centres: int, more: int, rest: Tensor | None = None) -> None:
        self.near, self.of, self.centres = near, of, centres
        self.taken = torch.zeros(len(near), dtype=torch.bool, device=near.device)
        most = centres + more
        self._rest = near.new_zeros(most)
        if rest is not None:
            self._rest[:centres] = rest
        self.sums = self._rest.index_add(0, of, near)
        self.sizes = torch.bincount(of, minlength=most)

    def next(self) -> Step:
        """The next image, nothing changed."""
        largest = self.sums[: self.centres].amax()
        of_largest = (self.sums == largest)[self.of]
        row = int(self.near.masked_fill(~of_largest | self.taken, -1).argmax())
        details = {"cluster_sum": float(largest), "cluster_size": float(self.sizes[self.of[row]])}
        return Step(row, float(self.near[row]), details)

    def add_(self, row: int, distances: Tensor) -> None:  # (N,)
        """The image becomes a centre; those that are nearer to it than to theirs go over.

        The clusters that lost images are added up anew: differences would leave their rounding there, and decide.
        """
        moved = (distances < self.near).nonzero()[:, 0]
        changed = torch.zeros_like(self.sums, dtype=torch.bool)
        changed[self.of[moved]] = True
        changed[self.centres] = True
        self.taken[row] = True
        self.near[moved] = distances[moved]
        self.of[moved] = self.centres
        members = changed[self.of].nonzero()[:, 0]
        self.sums = torch.where(changed, self._rest, self.sums).index_add_(0, self.of[members], self.near[members])
        self.sizes[changed] = 0
        self.sizes.index_add_(0, self.of[members], torch.ones_like(members))
        self.centres += 1

    def rehearsed(self, similarity: Similarity) -> list[int]:
        """The next picks, if only the farthest images of the largest clusters could move."""
        rows = self._farthest()
        small = self._part(rows)
        inside, diagonal = similarity.side(rows), similarity.diagonal()[rows]
        picks: list[int] = []
        while len(picks) < 2 * AHEAD:
            place = small.next().row
            if small.taken[place]:
                break
            picks.append(int(rows[place]))
            column = similarity.between(inside, similarity.side(rows[place : place + 1]))[:, 0]
            distances = torch.add(diagonal + diagonal[place], column, alpha=-2).clamp_min_(0)
            distances[place] = 0
            small.add_(place, distances)
        return picks

    def _farthest(self) -> Tensor:
        """Of each of the largest clusters the farthest images."""
        count = min(LARGEST, self.centres)
        largest = torch.topk(self.sums[: self.centres], count).indices
        inside = torch.zeros_like(self.sums, dtype=torch.bool)
        inside[largest] = True
        rows = inside[self.of].nonzero()[:, 0]
        rows = rows[self.near[rows].argsort(descending=True)]
        rows = rows[self.of[rows].argsort(stable=True)]  # cluster by cluster, the farthest first
        sizes = self.sizes[largest.sort().values]
        starts = sizes.cumsum(0) - sizes
        places = torch.arange(len(rows), device=rows.device) - starts.repeat_interleave(sizes)
        return rows[places < REHEARSED // count]

    def _part(self, rows: Tensor) -> "Clusters":
        inside = torch.zeros_like(self.sums, dtype=torch.bool)
        inside[self.of[rows]] = True
        kept, of = inside.nonzero()[:, 0], (inside.cumsum(0) - 1)[self.of[rows]]
        rest = (self.sums[kept].index_add(0, of, -self.near[rows])).clamp_min(0)
        part = Clusters(self.near[rows], of, centres=len(kept), more=2 * AHEAD, rest=rest)
        part.taken = self.taken[rows]
        return part
