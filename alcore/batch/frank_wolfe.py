"""Frank-Wolfe: images whose weighted sum comes closest to the sum over the whole pool."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alcore.batch.problem import Problem, Step
from alcore.batch.similarity import FeatureRows, Similarity

LAST = -1e300  # the score of images without features: below every other, above those that are taken
AHEAD = 12  # picks scored in one pass over the pool: it costs little more than two passes for one
LIKELY = 2048  # images among which they are foretold


@torch.no_grad()
def select_frank_wolfe(problem: Problem) -> list[Step]:
    """Each step the image whose unit feature points most along what is missing of the sum, and an exact line search.

    No image twice: the weights of the sum are not used further. Scores are inner products with the missing part. In
    mode TP the sum includes the training images, which take the first steps in their order. An image without features
    is taken last.

    In a large pool the next picks are foretold among the likely images, and one pass scores all images after each of
    them; from the first pick on that was foretold wrongly it is done again.
    Source: Holzmueller et al. 2023, arXiv 2203.09410 (FrankWolfe); Pinsler et al. 2019, arXiv 1908.02144.
    """
    scores = _Scores(_Search(problem), problem.similarity.size)
    steps: list[Step] = []
    while len(steps) < problem.count:
        row, score = scores.take(following=problem.count - len(steps) - 1)
        steps.append(Step(row, score if score > LAST else 0.0))
        problem.tell(len(steps))
    return steps


class _Place(NamedTuple):
    """Where the search stands: the weighted sum so far, its squared length, its inner product with the whole sum."""

    weighted: Tensor
    squared: float
    along: float


class _Scores:
    """The scores of the pool, and what is missing of the sum after the picks that were foretold."""

    def __init__(self, search: "_Search", size: int) -> None:
        self._search = search
        self._norms = search.norms[:size]
        self._taken = torch.zeros_like(self._norms, dtype=torch.bool)
        self._foretold: deque[tuple[int, _Place, Tensor]] = deque()
        self._right, self._ahead = 0, AHEAD
        self._scores = self._after(search.sum.missing([search.place])[0])

    def take(self, *, following: int) -> tuple[int, float]:
        """Return the best image that is not taken, and its score; so many are to follow."""
        row = int(self._scores.argmax())
        score = float(self._scores[row])
        self._taken[row] = True
        if score <= LAST or following == 0:
            self._scores[row] = -torch.inf
            return row, score
        if not self._foretold or self._foretold[0][0] != row:
            if self._right:  # where picks are hard to foretell, fewer are next time
                self._ahead = min(AHEAD, 2 * self._right)
            self._foretold, self._right = self._look_ahead(row, min(following, self._ahead)), 0
        self._right += 1
        _, self._search.place, missing = self._foretold.popleft()
        self._scores = self._after(missing)
        return row, score

    def _after(self, missing: Tensor) -> Tensor:  # (N,)
        scores = missing.double() / self._norms.clamp_min(1e-300)
        return scores.masked_fill_(self._norms == 0, LAST).masked_fill_(self._taken, -torch.inf)

    def _look_ahead(self, row: int, count: int) -> deque[tuple[int, _Place, Tensor]]:
        """Foretell up to `count` picks, this row the first, and ask the pool once for what is missing after each."""
        search = self._search
        search.step_(row)
        rows, places = [row], [search.place]
        # In a small pool a pass costs no more than to foretell.
        if isinstance(search.sum, _FeatureSum) and len(self._norms) > 2 * LIKELY:
            likely = torch.topk(self._scores, LIKELY).indices.sort().values
            features, norms = search.sum.features(likely), self._norms[likely]
            out = self._taken[likely] | (norms == 0)
            while len(rows) < count and not bool(out.all()):
                missing = search.sum.missing([search.place], features)[0].double()
                best = int((missing / norms).masked_fill_(out, -torch.inf).argmax())
                out[best] = True
                search.step_(int(likely[best]))
                rows.append(int(likely[best]))
                places.append(search.place)
        return deque(zip(rows, places, search.sum.missing(places), strict=True))


class _Sum(Protocol):
    """The sum over all counted points, in which weighted sums of points are to come near."""

    def nothing(self) -> Tensor:
        """Return the weighted sum of no points."""

    def missing(self, places: Sequence[_Place]) -> Tensor:  # (P, N)
        """Return inner products of the pool with the difference of the sums, at each place."""

    def inner(self, point: int, weighted: Tensor) -> tuple[float, float]:
        """Return inner products of a point with the sum and the weighted sum."""

    def moved(self, weighted: Tensor, point: int, keep: float, add: float) -> Tensor:
        """Return the weighted sum times `keep` plus the point times `add`."""


class _FeatureSum:
    """Sums as features in float64: what is missing keeps its digits when it gets small."""

    def __init__(self, rows: FeatureRows, with_train: bool) -> None:
        self._rows = rows
        self._whole = torch.zeros(rows.width, dtype=torch.float64, device=rows.device)
        for part in rows.each_block() if with_train else torch.split(rows.pool, 2048):
            self._whole += part.sum(0, dtype=torch.float64)

    def nothing(self) -> Tensor:
        return torch.zeros_like(self._whole)

    def features(self, points: Tensor) -> Tensor:  # (m, S)
        return self._rows.side(points)

    def missing(self, places: Sequence[_Place], features: Tensor | None = None) -> Tensor:
        """Of the pool, or of these features."""
        features = self._rows.pool if features is None else features
        missing = torch.stack([self._whole - place.weighted for place in places]).to(features)
        return torch.mv(features, missing[0])[None] if len(missing) == 1 else missing @ features.t()

    def inner(self, point: int, weighted: Tensor) -> tuple[float, float]:
        feature = self._feature(point)
        return float(feature @ self._whole), float(feature @ weighted)

    def moved(self, weighted: Tensor, point: int, keep: float, add: float) -> Tensor:
        return torch.add(keep * weighted, self._feature(point), alpha=add)

    def _feature(self, point: int) -> Tensor:
        return self.features(torch.tensor([point], device=self._rows.device))[0].double()


class _KernelSum:
    """Inner products of every point with both sums, for kernels without features."""

    def __init__(self, similarity: Similarity, with_train: bool) -> None:
        self._similarity = similarity
        self._whole = similarity.sums(with_train)
        self._trained = torch.arange(similarity.size, similarity.points, device=similarity.device)

    def nothing(self) -> Tensor:
        return torch.zeros_like(self._whole)

    def missing(self, places: Sequence[_Place]) -> Tensor:
        size = self._similarity.size
        return torch.stack([(self._whole - place.weighted)[:size] for place in places])

    def inner(self, point: int, weighted: Tensor) -> tuple[float, float]:
        return float(self._whole[point]), float(weighted[point])

    def moved(self, weighted: Tensor, point: int, keep: float, add: float) -> Tensor:
        points = torch.tensor([point], device=self._similarity.device)
        of_pool = self._similarity.columns(points)[:, 0].double()
        of_train = self._similarity.block(self._trained, points)[:, 0]
        return torch.add(keep * weighted, torch.cat([of_pool, of_train]), alpha=add)


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
        self.place = _Place(self.sum.nothing(), 0.0, 0.0)
        for point in problem.trained.tolist():
            if float(self.norms[point]) > 0:
                self.step_(point)

    def step_(self, point: int) -> None:
        """Go towards the point's vertex as far as the line search says."""
        summed, squared, along = self.place
        reach = self._length / float(self.norms[point])
        total, weighted = (reach * value for value in self.sum.inner(point, summed))
        gain = total - weighted + squared - along
        way = self._length**2 - 2 * weighted + squared
        gamma = gain / way if way > 1e-14 * self._length**2 else 0.0
        rest = 1 - gamma
        self.place = _Place(
            self.sum.moved(summed, point, rest, gamma * reach),
            rest**2 * squared + 2 * rest * gamma * weighted + gamma**2 * self._length**2,
            rest * along + gamma * total,
        )
