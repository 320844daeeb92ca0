"""Frank-Wolfe: images whose weighted sum comes closest to the sum over the whole pool."""

from typing import Protocol

import torch
from torch import Tensor

from alcore.batch.problem import Problem, Step
from alcore.batch.similarity import FeatureRows, Similarity

LAST = -1e300  # the score of images without features: below every other, above those that are taken


@torch.no_grad()
def select_frank_wolfe(problem: Problem) -> list[Step]:
    """Each step the image whose unit feature points most along what is missing of the sum, and an exact line search.

    No image twice: the weights of the sum are not used further. Scores are inner products with the missing part. In
    mode TP the sum includes the training images, which take the first steps in their order. An image without features
    is taken last.
    Source: Holzmueller et al. 2023, arXiv 2203.09410 (FrankWolfe); Pinsler et al. 2019, arXiv 1908.02144.
    """
    search = _Search(problem)
    norms = search.norms[: problem.similarity.size]
    taken = torch.zeros_like(norms, dtype=torch.bool)
    steps: list[Step] = []
    while len(steps) < problem.count:
        scores = search.sum.missing() / norms.clamp_min(1e-300)
        scores[norms == 0] = LAST
        row = int(scores.masked_fill_(taken, -torch.inf).argmax())
        score = float(scores[row])
        steps.append(Step(row, score if score > LAST else 0.0))
        taken[row] = True
        problem.tell(len(steps))
        if score > LAST and len(steps) < problem.count:
            search.step_(row)
    return steps


class _Sum(Protocol):
    """The sum over all counted points, and the weighted sum so far: zero at first."""

    def missing(self) -> Tensor:  # (N,) float64
        """Inner products of the pool with their difference."""

    def inner(self, point: int) -> tuple[float, float]:
        """Inner products of a point with the sum and the weighted sum."""

    def move_(self, point: int, keep: float, add: float) -> None:
        """Multiply the weighted sum by `keep`, then add the point times `add`."""


class _FeatureSum:
    """Both sums as features in float64: what is missing keeps its digits when it gets small."""

    def __init__(self, rows: FeatureRows, with_train: bool) -> None:
        self._rows = rows
        self._whole = torch.zeros(rows.width, dtype=torch.float64, device=rows.device)
        for part in rows.each_block() if with_train else torch.split(rows.pool, 2048):
            self._whole += part.sum(0, dtype=torch.float64)
        self._weighted = torch.zeros_like(self._whole)

    def missing(self) -> Tensor:
        return torch.mv(self._rows.pool, (self._whole - self._weighted).to(self._rows.dtype)).double()

    def inner(self, point: int) -> tuple[float, float]:
        feature = self._feature(point)
        return float(feature @ self._whole), float(feature @ self._weighted)

    def move_(self, point: int, keep: float, add: float) -> None:
        self._weighted.mul_(keep).add_(self._feature(point), alpha=add)

    def _feature(self, point: int) -> Tensor:
        return self._rows.side(torch.tensor([point], device=self._rows.device))[0].double()


class _KernelSum:
    """Inner products of every point with both sums, for kernels without features."""

    def __init__(self, similarity: Similarity, with_train: bool) -> None:
        self._similarity = similarity
        self._whole = similarity.sums(with_train)
        self._weighted = torch.zeros_like(self._whole)
        self._trained = torch.arange(similarity.size, similarity.points, device=similarity.device)

    def missing(self) -> Tensor:
        return (self._whole - self._weighted)[: self._similarity.size]

    def inner(self, point: int) -> tuple[float, float]:
        return float(self._whole[point]), float(self._weighted[point])

    def move_(self, point: int, keep: float, add: float) -> None:
        points = torch.tensor([point], device=self._similarity.device)
        of_pool = self._similarity.columns(points)[:, 0].double()
        of_train = self._similarity.block(self._trained, points)[:, 0]
        self._weighted.mul_(keep).add_(torch.cat([of_pool, of_train]), alpha=add)


class _Search:
    """The line search: every vertex is a point's unit feature times r, the sum of all norms."""

    def __init__(self, problem: Problem) -> None:
        similarity, with_train = problem.similarity, problem.with_train
        self.norms = similarity.diagonal().sqrt()
        self.sum: _Sum
        if isinstance(similarity, FeatureRows):
            self.sum = _FeatureSum(similarity, with_train)
        else:
            self.sum = _KernelSum(similarity, with_train)
        self._length = float(self.norms[: similarity.points if with_train else similarity.size].sum())
        self._squared = 0.0  # |weighted sum|^2
        self._along = 0.0  # <weighted sum, sum>
        for point in problem.trained.tolist():
            if float(self.norms[point]) > 0:
                self.step_(point)

    def step_(self, point: int) -> None:
        """Go towards the point's vertex as far as the line search says."""
        reach = self._length / float(self.norms[point])
        total, weighted = (reach * value for value in self.sum.inner(point))
        gain = total - weighted + self._squared - self._along
        way = self._length**2 - 2 * weighted + self._squared
        gamma = gain / way if way > 1e-14 * self._length**2 else 0.0
        rest = 1 - gamma
        self._squared = rest**2 * self._squared + 2 * rest * gamma * weighted + gamma**2 * self._length**2
        self._along = rest * self._along + gamma * total
        self.sum.move_(point, rest, gamma * reach)
