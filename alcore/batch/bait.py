"""BAIT: the images whose labels would lower the variance of everything, pool and training images, the most."""

import math

import torch
from torch import Tensor

from alcore.batch.posterior import conditioned_features
from alcore.batch.problem import Problem, Step
from alcore.batch.similarity import FeatureRows, as_features

EXACT = 16  # the best images, whose scores are computed anew in float64 before one is picked
EXHAUSTED = 1e-10  # of the largest variance


@torch.no_grad()
def select_bait(problem: Problem) -> list[Step]:
    """Greedily the largest drop of the variances' sum over pool and training images, ||C[:, j]||^2 / (C_jj + sigma^2).

    `over_selection` above 1 picks that many times the batch first and then puts back, one at a time, the image whose
    absence costs least (forward-backward); steps are in the order of their picks, scores those of the forward pass,
    and details the forward place. In mode TP training images are known, with the same noise. Where nothing is left to
    learn the lower rows come first. Raises BatchInputError for large kernels without features.
    Source: Ash et al. 2021, arXiv 2106.09675; Holzmueller et al. 2023, arXiv 2203.09410 (Bait).
    """
    rows = as_features(problem.similarity, purpose="bait")
    if len(problem.trained):
        rows = conditioned_features(rows, problem.trained, noise=problem.noise)
    forward = _Forward(rows, problem.noise)
    wanted = min(round(problem.over_selection * problem.count), rows.size)
    steps: list[Step] = []
    while len(steps) < wanted:
        step = forward.next(len(steps))
        if step is None:
            break
        forward.add_(step.row)
        steps.append(step)
        problem.tell(min(len(steps), problem.count))
    if len(steps) < problem.count:
        return steps + forward.rest(problem.count - len(steps))
    points = torch.tensor([step.row for step in steps], device=rows.device)
    for place in forward.superfluous(points, len(steps) - problem.count):
        del steps[place]
    return steps


class _Forward:
    """C = Phi F F^T Phi^T: F (S, S) and M = F^T G F in float64, q_j = ||C[:, j]||^2 and C_jj of the pool."""

    def __init__(self, rows: FeatureRows, noise: float) -> None:
        self._rows, self._noise = rows, noise
        self._target = torch.zeros(rows.width, rows.width, dtype=torch.float64, device=rows.device)  # G
        for part in rows.each_block():
            self._target += part.t() @ part  # products in the features' type, sums in float64
        self._factor = torch.eye(rows.width, dtype=torch.float64, device=rows.device)
        self._moment = self._target.clone()
        self._variances = rows.diagonal()[: rows.size].clone()
        # A power of two near the trace of G, so that products of four features stay in their type and lose no digit.
        self._unit = 2.0 ** math.frexp(float(self._target.diagonal().sum()))[1]
        right = (self._target / self._unit).to(rows.dtype)
        parts = [((part @ right) * part).sum(1, dtype=torch.float64) for part in torch.split(rows.pool, 2048)]
        self._squares = torch.cat(parts) * self._unit
        self._taken = torch.zeros(rows.size, dtype=torch.bool, device=rows.device)
        self._floor = EXHAUSTED * float(self._variances.amax())

    def next(self, place: int) -> Step | None:
        """The best image, nothing changed; None where nothing is left to learn."""
        known = self._taken | (self._variances <= self._floor)
        scores = (self._squares / (self._variances + self._noise**2)).masked_fill_(known, -torch.inf)
        points = torch.topk(scores, min(EXACT, len(scores))).indices.sort().values
        exact = self._exact(points).masked_fill(scores[points] == -torch.inf, -torch.inf)
        best = int(exact.argmax())
        if not float(exact[best]) > 0:
            return None
        return Step(int(points[best]), float(exact[best]), {"place": float(place)})

    def _exact(self, points: Tensor) -> Tensor:  # (m,) -> (m,)
        turned = self._rows.side(points).double() @ self._factor
        variances = turned.square().sum(1)
        scores = ((turned @ self._moment) * turned).sum(1) / (variances + self._noise**2)
        return torch.where(variances > self._floor, scores, 0.0)

    def add_(self, row: int) -> None:
        """One pass over the pool for both columns, then changes of rank one and two."""
        point = torch.tensor([row], device=self._rows.device)
        turned = self._factor.t() @ self._rows.side(point)[0].double()  # p
        moved = self._moment @ turned  # M p
        s = float(turned @ turned) + self._noise**2
        q = float(turned @ moved)
        beta = 1 / (s**0.5 * (s**0.5 + self._noise))
        u = self._factor @ turned
        right = torch.stack([u, self._factor @ moved / self._unit]).to(self._rows.dtype)
        columns = self._rows.pool @ right.t()
        covariance, crossed = columns[:, 0].double(), columns[:, 1].double() * self._unit
        self._squares.addcmul_(crossed, covariance, value=-2 / s)
        covariance.square_()
        self._squares.add_(covariance, alpha=q / s**2)
        self._variances.sub_(covariance, alpha=1 / s)
        self._factor.addr_(u, turned, alpha=-beta)
        self._moment.addr_(moved, turned, alpha=-beta).addr_(turned, moved, alpha=-beta)
        self._moment.addr_(turned, turned, alpha=beta**2 * q)
        self._taken[row] = True

    def rest(self, count: int) -> list[Step]:
        """The lower rows of what is not taken."""
        rows = (~self._taken).nonzero()[:, 0][:count]
        return [Step(int(row), 0.0, {"exhausted": 1.0}) for row in rows]

    def superfluous(self, points: Tensor, count: int) -> list[int]:
        """Places to be deleted one after another, each in the list as the deletions before have left it.

        Without image j the covariance grows by C[:, j] C[:, j]^T / (sigma^2 - C_jj): the smallest trace of that goes.
        """
        features = self._rows.side(points).double()
        turned = features @ self._factor
        covariance = turned @ turned.t()  # of the picks, given all of them
        squares = (turned @ self._moment) @ turned.t()  # C[:, i] . C[:, j] over all points
        places = list(range(len(points)))
        deleted = []
        for _ in range(count):
            margin = (self._noise**2 - covariance.diagonal()).clamp_min(1e-300)
            costs = squares.diagonal().clamp_min(0) / margin
            place = len(costs) - 1 - int(costs.flip(0).argmin())
            deleted.append(place)
            column, square, grown = covariance[:, place].clone(), squares[:, place].clone(), float(margin[place])
            covariance.addr_(column, column, alpha=1 / grown)
            squares.addr_(square, column, alpha=1 / grown).addr_(column, square, alpha=1 / grown)
            squares.addr_(column, column, alpha=float(square[place]) / grown**2)
            kept = torch.arange(len(costs), device=costs.device) != place
            covariance, squares = covariance[kept][:, kept], squares[kept][:, kept]
            del places[place]
        return deleted
