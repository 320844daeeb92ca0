"""Frank-Wolfe: images whose weighted sum comes closest to the sum over the whole pool."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.batch.problem import Problem, Step

LAST = -1e300  # the score of images without features: below every other, above those that are taken


@torch.no_grad()
def select_frank_wolfe(problem: Problem) -> list[Step]:
    """Each step the image whose unit feature points most along what is missing of the sum, and an exact line search.

    No image twice: the weights of the sum are not used further. Scores are inner products with the missing part. In
    mode TP the sum includes the training images, which take the first steps in their order. An image without features
    is taken last.
    Source: Holzmueller et al. 2023, arXiv 2203.09410 (FrankWolfe); Pinsler et al. 2019,
    arXiv 1908.02144.
    """
    similarity = problem.similarity
    search = _make_search(problem)
    steps: list[Step] = []
    while len(steps) < problem.count:
        scores = search.scores()
        row = int(scores.argmax())
        score = float(scores[row])
        steps.append(Step(row, score if score > LAST else 0.0))
        problem.tell(len(steps))
        search.taken[row] = True
        if score > LAST and len(steps) < problem.count:
            search.step_(row, similarity.columns(torch.tensor([row], device=similarity.device))[:, 0])
    return steps


@dataclass
class _Search:
    """Of each pool image its norm, u = K 1 and v = K w for the weights w of the sum so far, and whether it is taken.

    `length` is that of every vertex, s = w^T K w, t = w^T K 1.
    """

    norms: Tensor  # (N,)
    sums: Tensor  # (N,)
    weighted: Tensor  # (N,)
    taken: Tensor  # (N,)
    length: float
    s: float = 0.0
    t: float = 0.0

    def scores(self) -> Tensor:  # (N,)
        """<unit feature, what is missing>."""
        scores = (self.sums - self.weighted).div_(self.norms.clamp_min(1e-300))
        scores[self.norms == 0] = LAST
        return scores.masked_fill_(self.taken, -torch.inf)

    def step_(self, row: int, column: Tensor) -> None:  # (N,)
        """Go towards the row's vertex as far as the line search says."""
        gamma, reach = self.line_search_(float(self.norms[row]), float(self.sums[row]), float(self.weighted[row]))
        self.weighted.mul_(1 - gamma).add_(column.double(), alpha=gamma * reach)

    def line_search_(self, norm: float, total: float, weighted: float) -> tuple[float, float]:
        """The step's size and its vertex' length over the image's norm; s and t as they are after it."""
        reach = self.length / norm
        along = reach * (total - weighted) + self.s - self.t
        squared = self.length**2 - 2 * reach * weighted + self.s
        gamma = along / squared if squared > 1e-14 * self.length**2 else 0.0
        rest = 1 - gamma
        self.s = rest**2 * self.s + 2 * rest * gamma * reach * weighted + gamma**2 * self.length**2
        self.t = rest * self.t + gamma * reach * total
        return gamma, reach


def _make_search(problem: Problem) -> _Search:
    similarity = problem.similarity
    norms, sums = similarity.diagonal().sqrt(), similarity.sums(problem.with_train)
    size = similarity.size
    search = _Search(
        norms=norms[:size],
        sums=sums[:size],
        weighted=torch.zeros(size, dtype=torch.float64, device=similarity.device),
        taken=torch.zeros(size, dtype=torch.bool, device=similarity.device),
        length=float(norms.sum() if problem.with_train else norms[:size].sum()),
    )
    if len(problem.trained):
        weights = _trained_weights(search, problem, norms[size:].tolist(), sums[size:].tolist())
        search.weighted = (similarity.columns(problem.trained) @ weights.to(similarity.dtype)).double()
    return search


def _trained_weights(search: _Search, problem: Problem, norms: list[float], sums: list[float]) -> Tensor:  # (n,)
    """The training images' steps need their own block of the kernel alone; the pool follows in one product."""
    block = problem.similarity.block(problem.trained, problem.trained)
    weights = torch.zeros(len(norms), dtype=torch.float64, device=block.device)
    weighted = torch.zeros_like(weights)
    for place, (norm, total) in enumerate(zip(norms, sums, strict=True)):
        if norm == 0:
            continue
        gamma, reach = search.line_search_(norm, total, float(weighted[place]))
        weights.mul_(1 - gamma)
        weights[place] += gamma * reach
        weighted.mul_(1 - gamma).add_(block[place], alpha=gamma * reach)
    return weights
