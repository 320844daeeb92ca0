"""The posterior of a large pool: a factor of the feature covariance, and two numbers an image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.cholesky import factor
from alcore.posterior.checks import RidgeError, check_pool, check_scale
from alcore.posterior.held import HeldColumns
from alcore.posterior.model import DRIFT_INTERVAL, FORGET_LIMIT, REFACTOR_LABELS, UNDO_LIMIT, Labels, Posterior, Step

BLOCK_ROWS = 2048  # images of the pool in one matrix product
CACHED_ROWS = 256  # images of the pool in one thin product
TURNED_RATIO = 32  # more images than this for each feature, and a rebuild diagonalises M
LEAST_RIDGE = 1e-9  # relative to the mean of the kernel's diagonal
NARROW = 16  # columns of a thin product
FEW_LABELS = 3  # absorbed one at a time; more are cheaper as one block


class FeaturePosterior(Posterior):
    """C_a = Phi F F^T Phi^T with F (S, S) in float64; C_jj and q_j = sum_x C_a[x, j]^2 for every image in Phi's dtype.

    F F^T = Sigma = lam (Phi_L^T Phi_L + lam I)^-1, G = Phi^T Phi, M = F^T G F, W with mean = f0 + Phi W: one label
    costs one pass over Phi, none when its image was pending; a block of labels one for all of them. Raises PoolError,
    NonFiniteError, RidgeError.
    Source: the Frobenius form of the look-ahead of Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569.
    """

    form = "frobenius"
    # F, M and W are in float64 and drift by 1e-12; the arrays are brought up to date a part of the pool at a time.
    refactor_labels = 16 * REFACTOR_LABELS

    def __init__(
        self,
        features: Tensor,  # (N, S)
        outputs: Tensor,  # (N, K)
        *,
        ridge: float,
    ) -> None:
        features, outputs = check_pool(features, outputs, what="features")
        super().__init__(outputs, ridge)
        self.features = features
        self._gram = features.new_zeros(features.shape[1], features.shape[1], dtype=torch.float64)  # G
        for block in torch.split(features, BLOCK_ROWS):
            wide = block.double()
            self._gram.addmm_(wide.t(), wide)
        check_scale(self._mean_diagonal, features.dtype)
        self._allowed_ridge(ridge)
        self._held = HeldColumns(features)
        self._fresh_until = 0  # rows below have been brought up to date in this round
        self.refactor_()

    def _given(self) -> Tensor:
        return self.features

    @property
    def _mean_diagonal(self) -> float:
        return float(self._gram.trace()) / self.size

    def _allowed_ridge(self, ridge: float) -> float:
        """With a system of size S its error grows as 1e-16 kbar / lam. Raises RidgeError."""
        ridge = super()._allowed_ridge(ridge)
        if ridge < LEAST_RIDGE * self._mean_diagonal:
            raise RidgeError(
                f"a ridge of {ridge} is too small for features whose kernel has {self._mean_diagonal:.3g} on average "
                f"on its diagonal: at least {LEAST_RIDGE} of that is needed, or a kernel in place of features"
            )
        return ridge

    def answer_variance(self) -> Tensor:  # (N,)
        return self._variance.clamp_min(0)

    def answer_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        if self._held.has(rows):
            return self._held.covariance(rows).t()
        return self._pass(self._directions(rows)).t()

    def answer_block(self, rows: Sequence[int]) -> Tensor:  # (b, b)
        inner = self._inner(rows)
        return torch.mm(inner.t(), inner).to(self.features)

    def answer_square_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        if self._held.has(rows):
            return self._held.squares(rows).t()
        return self._pass(self._square_directions(rows)).t()

    def answer_square_sums(self) -> Tensor:  # (N,)
        return self._square_sums.clamp_min(0)

    def answer_product(self, matrix: Tensor) -> Tensor:  # (N, m) -> (N, m)
        inner = (self.features.t() @ matrix).double()
        return torch.mm(self.features, (self._factor @ (self._factor.t() @ inner)).to(matrix))

    def leave_one_out(self) -> tuple[list[int], Tensor]:
        """Labelled rows, ascending, and (n, K) float64 residuals, each predicted without its own votes."""
        labels = self._labels()
        variance = self._inner(labels.rows).square().sum(0)
        noise = self.ridge / labels.weights
        mean = self.initial[labels.rows].double() + self.features[labels.rows].double() @ self._weights
        return labels.rows, (labels.targets - mean) * (noise / (noise - variance))[:, None]

    def drift(self) -> float:
        """Against the factors: variance over variance + lam, q over its mean, and the mean in output units."""
        inner = self._inner(self.probes)
        variance = inner.square().sum(0)
        squares = (inner * (self._factored_gram @ inner)).sum(0)
        mean = self.initial[self.probes].double() + self.features[self.probes].double() @ self._weights
        variance_error = (self._variance[self.probes] - variance).abs() / (variance + self.ridge)
        square_error = (self._square_sums[self.probes] - squares).abs() / squares.mean().clamp_min(1e-300)
        mean_error = (self.mean[self.probes] - mean).abs().amax(1)
        return float(torch.stack([variance_error, square_error, mean_error]).max())

    def _inner(self, rows: Sequence[int] | Tensor) -> Tensor:  # (S, b) float64, F^T Phi_rows^T
        return torch.mm(self._factor.t(), self.features[rows].double().t())

    def _directions(self, rows: Sequence[int] | Tensor) -> Tensor:  # (S, b) float64, C_a[:, rows] = Phi times this
        return torch.mm(self._factor, self._inner(rows))

    def _square_directions(self, rows: Sequence[int] | Tensor) -> Tensor:  # (S, b) float64, for C_a C_a[:, rows]
        return torch.mm(self._factor, self._factored_gram @ self._inner(rows))

    def _pass(self, directions: Tensor) -> Tensor:  # (S, b) -> (b, N)
        narrow = directions.t().to(self.features).contiguous()
        if len(narrow) > NARROW:
            return torch.mm(narrow, self.features.t())
        # A thin product is bound by memory: blocks that fit the cache are read once for all its columns.
        parts = [torch.mm(block, narrow.t()) for block in torch.split(self.features, CACHED_ROWS)]
        return torch.cat(parts).t().contiguous()

    def _rebuild_(self, labels: Labels) -> None:
        phi = self.features[labels.rows].double()
        identity = torch.eye(phi.shape[1]).to(phi)
        lower = factor(phi.t() @ (phi * labels.weights[:, None]) + self.ridge * identity)
        inverse = torch.linalg.solve_triangular(lower.t(), identity, upper=True)
        self._factor = self.ridge**0.5 * inverse
        self._factored_gram = self._factor.t() @ self._gram @ self._factor
        residuals = (labels.targets - self.initial[labels.rows].double()) * labels.weights[:, None]
        self._weights = inverse @ (inverse.t() @ (phi.t() @ residuals))  # W
        self.mean.copy_(self.initial + self.features @ self._weights.to(self.features))
        self._newest = None
        self._sum_squares_()
        self._refresh_held_()

    def _sum_squares_(self) -> None:
        """C_jj and q_j of the whole pool by their definitions."""
        turned = self.size > TURNED_RATIO * len(self._gram)
        if turned:
            # With F turned so that M is diagonal one product of the pool serves both; eigenvectors cost some S^3.
            values, vectors = torch.linalg.eigh(self._factored_gram)
            self._factor, self._factored_gram = self._factor @ vectors, torch.diag(values)
        self._variance, self._square_sums = self._sums(self.features, turned=turned)
        self._fresh_until = 0

    def _sums(self, features: Tensor, *, turned: bool = False) -> tuple[Tensor, Tensor]:  # (n, S) -> (n,), (n,)
        """C_jj and q_j of these rows; with a diagonal M one product serves both."""
        narrow, gram = self._factor.to(features), self._factored_gram.to(features)
        variance, squares = [], []
        for block in torch.split(features, BLOCK_ROWS):
            inner = block @ narrow
            squares.append(inner.square() @ gram.diagonal() if turned else ((inner @ gram) * inner).sum(1))
            variance.append(inner.square_().sum(1))
        return torch.cat(variance), torch.cat(squares)

    def _freshen_(self) -> None:
        """The next part of the pool: no image goes longer than REFACTOR_LABELS, and no label waits for all of them."""
        share = -(-self.size * DRIFT_INTERVAL // REFACTOR_LABELS)
        part = slice(self._fresh_until, self._fresh_until + share)
        self._variance[part], self._square_sums[part] = self._sums(self.features[part])
        self._settle_part_(part)
        self._fresh_until = part.stop if part.stop < self.size else 0

    def _refresh_held_(self) -> None:
        rows = self._held.rows
        self._held = HeldColumns(self.features)
        if rows:
            self._hold_rows_(rows)

    def _hold_rows_(self, rows: list[int]) -> None:
        inner = self._inner(rows)
        both = self._factor @ torch.cat([inner, self._factored_gram @ inner], 1)
        columns, squares = torch.split(self._pass(both), len(rows))
        self._held.add_(rows, columns, squares)

    def _absorb_(self, labels: Labels) -> None:
        """One pass over Phi for the block, then one rank at a time on the columns, or, of more, the block at once."""
        if len(labels.rows) > FEW_LABELS:
            self._absorb_block_(labels)
            return
        new = [row for row in labels.rows if not self._held.has([row])]
        if new:
            self._hold_rows_(new)
        for row, target, weight in zip(labels.rows, labels.targets, labels.weights, strict=True):
            step = self._update_(row, target, self.ridge / float(weight))
        self._held.drop_(new)
        self._newest = step if len(labels.rows) == 1 else None

    def _absorb_block_(self, labels: Labels) -> None:
        """With C_a[L, L] + noise = R R^T and V = R^-1 C_a[L, :]: C_a loses V^T V, the mean gains V^T R^-1 (y - mean).

        V, V C_a and their products come from the factor as it was, not from arrays that each label rounds.
        """
        inner = self._inner(labels.rows)
        lower = factor(torch.mm(inner.t(), inner) + torch.diag(self.ridge / labels.weights))
        known = self.initial[labels.rows].double() + self.features[labels.rows].double() @ self._weights
        surprises = torch.linalg.solve_triangular(lower, labels.targets - known, upper=False)  # (b, K)
        narrow = torch.linalg.solve_triangular(lower, inner.t(), upper=False).t()  # (S, b)
        crossed = self._factored_gram @ narrow
        both = self._factor @ torch.cat([narrow, crossed], 1)
        whitened, turned = torch.split(self._pass(both), len(labels.rows))  # (b, N)
        gram = torch.mm(narrow.t(), crossed).to(whitened)
        for row, target, weight in zip(labels.rows, labels.targets, labels.weights, strict=True):
            self._update_factor_(row, target, self.ridge / float(weight))
        self.mean.addmm_(whitened.t(), surprises.to(self.mean))
        self._variance -= whitened.square().sum(0)
        self._square_sums += (whitened * (gram @ whitened - 2 * turned)).sum(0)
        self._held.update_block_(whitened, turned, gram)
        self._newest = None

    def _update_(self, row: int, target: Tensor, noise: float) -> Step:
        """One rank for a held row; a negative noise takes a label out. Scalars come from the factor, not the arrays."""
        column, squares = self._held.copy(row)
        total, square, surprise = self._update_factor_(row, target, noise)
        change = column * (column * (square / total**2)) - squares * (column * (2 / total))
        self._held.update_(row, column, squares, total, square)
        step = Step(row, target.to(self.mean), column, total, surprise, change)
        self._add_(step, sign=1)
        return step

    def _update_factor_(self, row: int, target: Tensor, noise: float) -> tuple[float, float, Tensor]:
        """F, M and W in float64; gives s = C_a[row, row] + noise, q of the row and (y - mean) / s, all as they were."""
        phi = self.features[row].double()
        inner = self._factor.t() @ phi  # p
        crossed = self._factored_gram @ inner  # M p
        total, square = float(inner @ inner) + noise, float(inner @ crossed)
        direction = self._factor @ inner  # u
        surprise = (target - self.initial[row].double() - phi @ self._weights) / total
        self._weights.addr_(direction, surprise)
        beta = 1 / (total * (1 + (noise / total) ** 0.5))
        turned = beta * crossed - (beta**2 * square / 2) * inner
        self._factored_gram.addmm_(torch.stack([inner, turned], 1), torch.stack([turned, inner]), alpha=-1)
        self._factor.addr_(direction, inner, alpha=-beta)
        return total, square, surprise.to(self.mean)

    def _add_(self, step: Step, *, sign: int) -> None:
        self.mean.addr_(step.column, step.surprise, alpha=sign)
        self._variance.addcmul_(step.column, step.column, value=-sign / step.total)
        if step.square_change is not None:
            self._square_sums.add_(step.square_change, alpha=sign)

    def _left_of_noise(self, row: int) -> float:
        """t / lam = 1 - C_a[row, row] / lam of a labelled row: taking its label out of F divides by this."""
        return 1 - float(self._inner([row]).square().sum()) / self.ridge

    def _remove_(self, row: int, target: Tensor) -> bool:
        if self._left_of_noise(row) < FORGET_LIMIT:
            return False
        held = self._held.has([row])
        if not held:
            self._hold_rows_([row])
        self._update_(row, target.double(), -self.ridge)
        if not held:
            self._held.drop_([row])
        return True

    def _settle_mean_(self) -> None:
        """From W, which is exact: mean = f0 + Phi W."""
        for start in range(0, self.size, BLOCK_ROWS):
            self._settle_part_(slice(start, start + BLOCK_ROWS))

    def _settle_part_(self, part: slice) -> None:
        moved = torch.mm(self.features[part].double(), self._weights)
        self.mean[part] = (self.initial[part].double() + moved).to(self.mean)

    def _shift_(self, row: int, change: Tensor) -> None:
        self._weights.addr_(self._directions([row])[:, 0], change)
        self.mean.addr_(self.answer_columns([row])[:, 0], change.to(self.mean))

    def _take_back_(self, step: Step) -> bool:
        if self._left_of_noise(step.row) < UNDO_LIMIT:
            return False
        self._update_factor_(step.row, step.target.double(), -self.ridge)
        self._add_(step, sign=-1)
        self._refresh_held_()
        return True

    def _hold_(self, rows: list[int]) -> None:
        self._hold_rows_(rows)

    def _release_(self, rows: list[int]) -> None:
        self._held.drop_(rows)
