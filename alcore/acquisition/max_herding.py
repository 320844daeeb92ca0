"""MaxHerding: the image that makes the pool most similar to what has a label."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.acquisition import geometry
from alcore.acquisition.geometry import unit_rows

FIRST_BLOCK, LARGEST_BLOCK = 16, 512  # candidates evaluated at once: few, since the first are likely to win
RADIUS = 1.0
ROUNDING = 64
COPIES = 8  # times the rounding: squared distances of unit rows below that are 0
FINE = 0.1  # a radius below this takes float64: inner products in float32 are off by 1e-7, and radius^2 divides that


class MaxHerding:
    """Generalised coverage, the mean over the pool of the similarity to the nearest label; the score is what is gained.

    Similarity is exp(-||x - y||^2 / radius^2) of rows taken to unit length; `weights` weigh the images of the pool.
    Gains only shrink as labels come in, so that old ones bound new ones: a label re-evaluates the few candidates whose
    bounds could still win, O(N D) each. With a radius below 0.1 rows are kept in float64. Source: Bae, Noh, Sutherland
    2024, Generalized coverage for more robust low-budget active learning, arXiv 2407.12212, equation 4; lazy
    evaluation: Minoux 1978.
    """

    def __init__(
        self,
        embeddings: Tensor,  # (N, D)
        labelled: Sequence[int] = (),
        *,
        radius: float = RADIUS,
        weights: Tensor | None = None,  # (N,)
    ) -> None:
        self.points = unit_rows(embeddings.double() if radius < FINE else embeddings)
        self.squares = self.points.square().sum(1)
        self.scale = -1 / radius**2
        weights = torch.ones_like(self.squares) if weights is None else weights.to(self.squares)
        self.weights = weights / len(weights)
        self.nearest = torch.zeros_like(self.squares)  # similarity to the nearest label
        if len(labelled) > geometry.MANY:
            for rows in torch.split(torch.tensor(list(labelled)), LARGEST_BLOCK):
                self.nearest = torch.maximum(self.nearest, self._similarities(rows).amax(1))
        else:
            for row in labelled:
                self.label_(row)
        self.bounds = torch.full_like(self.squares, torch.inf)

    def choose(self, candidates: Tensor) -> tuple[int, float]:
        """The candidate of the largest gain; the gains of the others are left as bounds."""
        order = self.bounds.masked_fill(~candidates, -torch.inf).sort(descending=True, stable=True).indices
        open_rows = order[: int(candidates.sum())]
        exact = torch.full_like(self.bounds, -torch.inf)
        at, width = 0, FIRST_BLOCK
        while at < len(open_rows) and self.bounds[open_rows[at]] >= self._tied(exact):
            rows = open_rows[at : at + width]
            exact[rows] = self.bounds[rows] = self._gains(rows)
            at, width = at + width, min(2 * width, LARGEST_BLOCK)
        row = int((exact >= self._tied(exact)).nonzero()[0, 0])
        return row, float(exact[row])

    def label_(self, row: int) -> None:
        """What is more similar to this image than to any label so far is covered better."""
        self.nearest = torch.maximum(self.nearest, self._similarities(torch.tensor([row]))[:, 0])

    def standing(self) -> Tensor:  # (N,)
        """The gains as they were last computed, from above."""
        return self.bounds

    def _tied(self, exact: Tensor) -> Tensor:  # (N,) -> ()
        """From here on gains are equal: copies of an image differ by the rounding of a matrix product."""
        return exact.max() * (1 - ROUNDING * torch.finfo(exact.dtype).eps)

    def _gains(self, rows: Tensor) -> Tensor:  # (b,)
        return self.weights @ (self._similarities(rows) - self.nearest[:, None]).clamp_min_(0)

    def _similarities(self, rows: Tensor) -> Tensor:  # (N, b)
        squares = self.squares[:, None] + self.squares[rows]
        distances = torch.addmm(squares, self.points, self.points[rows].t(), alpha=-2).clamp_min_(0)
        distances[rows, torch.arange(len(rows))] = 0
        distances.masked_fill_(distances < COPIES * torch.finfo(distances.dtype).eps, 0)  # copies, as an image itself
        return distances.mul_(self.scale).exp_()
