"""The posterior of a small pool: the covariance of every pair of images, kept and updated."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.cholesky import SingularKernelError, factor
from alcore.posterior.checks import PoolError, check_pool, check_scale, check_symmetric
from alcore.posterior.model import FORGET_LIMIT, Labels, Posterior, Step
from alcore.regularization import leave_one_out_residuals

BLOCK_ROWS = 512  # images of the pool in one product


class PairwisePosterior(Posterior):
    """C_a of shape (N, N) in the kernel's dtype; a label is one rank, in place, a block a blocked update.

    Raises PoolError, NonFiniteError, RidgeError.
    """

    form = "pairwise"

    def __init__(
        self,
        kernel: Tensor,  # (N, N)
        outputs: Tensor,  # (N, K)
        *,
        ridge: float,
    ) -> None:
        kernel, outputs = check_pool(kernel, outputs, what="kernel")
        if kernel.shape[0] != kernel.shape[1]:
            raise PoolError(f"a kernel is square, got {tuple(kernel.shape)}")
        super().__init__(outputs, ridge)
        check_symmetric(kernel, self.probes)
        check_scale(float(kernel.diagonal().double().mean()), kernel.dtype)
        self.kernel = kernel
        self._covariance = kernel.clone()  # C_a, (N, N)

    def _given(self) -> Tensor:
        return self.kernel

    def answer_variance(self) -> Tensor:  # (N,)
        return self._covariance.diagonal().clamp_min(0)

    def answer_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        """Rows of the symmetric matrix: contiguous in memory."""
        return torch.t(self._covariance[rows])

    def answer_block(self, rows: Sequence[int]) -> Tensor:  # (b, b)
        return self._covariance[rows][:, rows]

    def answer_square_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        return torch.mm(self._covariance, self._covariance[rows].t())

    def answer_square_sums(self) -> Tensor:  # (N,)
        return torch.square(torch.linalg.vector_norm(self._covariance, dim=1))

    def answer_product(self, matrix: Tensor) -> Tensor:  # (N, m) -> (N, m)
        return torch.mm(self._covariance, matrix)

    def leave_one_out(self) -> tuple[list[int], Tensor]:
        """Labelled rows, ascending, and (n, K) float64 residuals, each predicted without its own votes."""
        labels = self._labels()
        residuals = labels.targets - self.initial[labels.rows].double()
        kernel = self.kernel[labels.rows][:, labels.rows]
        return labels.rows, leave_one_out_residuals(kernel, residuals, self.ridge, labels.weights)

    def drift(self) -> float:
        """Against a fresh Cholesky factor: variance over variance + lam, and the mean in output units."""
        labels, probes = self._labels(), self.probes
        if not labels.rows:
            return 0.0
        lower = self._factor(labels)
        residuals = torch.linalg.solve_triangular(lower, self._residuals(labels), upper=False)
        crossed = torch.linalg.solve_triangular(lower, self.kernel[labels.rows][:, probes].double(), upper=False)
        variance = self.kernel.diagonal()[probes].double() - crossed.square().sum(0)
        mean = self.initial[probes].double() + crossed.t() @ residuals
        variance_error = (self.answer_variance()[probes] - variance).abs() / (variance.clamp_min(0) + self.ridge)
        mean_error = (self.mean[probes] - mean).abs().amax(1)
        return float(torch.maximum(variance_error, mean_error).max())

    def _residuals(self, labels: Labels) -> Tensor:  # (n, K) float64
        return labels.targets - self.initial[labels.rows].double()

    def _factor(self, labels: Labels) -> Tensor:  # (n, n) float64
        system = self.kernel[labels.rows][:, labels.rows].double()
        return factor((system + system.t()) / 2 + torch.diag(self.ridge / labels.weights))

    def _rebuild_(self, labels: Labels) -> None:
        lower = self._factor(labels)
        crossed = torch.linalg.solve_triangular(lower, self.kernel[labels.rows].double(), upper=False)  # (n, N)
        residuals = torch.linalg.solve_triangular(lower, self._residuals(labels), upper=False)
        self.mean.copy_(self.initial + crossed.t() @ residuals)
        for start in range(0, self.size, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            self._covariance[block] = self.kernel[block] - crossed[:, block].t() @ crossed
        self._newest = None

    def _absorb_(self, labels: Labels) -> None:
        if len(labels.rows) == 1:
            row, noise = labels.rows[0], self.ridge / float(labels.weights[0])
            if float(self._covariance[row, row]) + noise <= 0:
                raise SingularKernelError(f"row {row} has a variance of {float(self._covariance[row, row])}")
            self._newest = self._update_(row, labels.targets[0], noise)
            return
        block = self._covariance[labels.rows]  # (b, N)
        system = block[:, labels.rows].double()
        lower = factor((system + system.t()) / 2 + torch.diag(self.ridge / labels.weights))
        crossed = torch.linalg.solve_triangular(lower, block.double(), upper=False)
        residuals = labels.targets - self.mean[labels.rows].double()
        residuals = torch.linalg.solve_triangular(lower, residuals, upper=False)
        self.mean += crossed.t() @ residuals
        crossed = crossed.to(block)
        self._covariance.addmm_(crossed.t(), crossed, alpha=-1)
        self._newest = None

    def _update_(self, row: int, target: Tensor, noise: float) -> Step:
        """One rank; a negative noise takes a label out."""
        column = self._covariance[row].clone()
        total = float(column[row]) + noise
        surprise = ((target - self.mean[row].double()) / total).to(self.mean)
        step = Step(row, target.to(self.mean), column, total, surprise, None)
        self._add_(step, sign=1)
        return step

    def _add_(self, step: Step, *, sign: int) -> None:
        """The scaled column on both sides keeps the matrix symmetric to the last bit."""
        scaled = step.column / abs(step.total) ** 0.5
        self._covariance.addr_(scaled, scaled, alpha=-sign if step.total > 0 else sign)
        self.mean.addr_(step.column, step.surprise, alpha=sign)

    def _remove_(self, row: int, target: Tensor) -> bool:
        column = self._labelled_column(row)
        total = float(column[row]) - self.ridge
        if -total / self.ridge < FORGET_LIMIT:
            return False
        surprise = (target.double() - self.mean[row].double()) / total
        self._add_(Step(row, target, column.to(self.mean), total, surprise.to(self.mean), None), sign=1)
        return True

    def _settle_mean_(self) -> None:
        labels = self._labels()
        solved = torch.cholesky_solve(self._residuals(labels), self._factor(labels))  # (n, K)
        for start in range(0, self.size, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            moved = torch.mm(self.kernel[block][:, labels.rows].double(), solved)
            self.mean[block] = (self.initial[block].double() + moved).to(self.mean)

    def _shift_(self, row: int, change: Tensor) -> None:
        self.mean += torch.outer(self._labelled_column(row), change).to(self.mean)

    def _labelled_column(self, row: int) -> Tensor:  # (N,) float64
        """C_a[:, row] = K_.L A^-1 e_row lam / w from the labels: no rounding of past updates is amplified."""
        labels = self._labels()
        place = labels.rows.index(row)
        unit = torch.zeros(len(labels.rows), 1).to(labels.weights)
        unit[place] = self.ridge / labels.weights[place]
        solved = torch.cholesky_solve(unit, self._factor(labels))[:, 0]
        column = torch.zeros(self.size).to(solved)
        for weight, labelled in zip(solved, labels.rows, strict=True):
            column.add_(self.kernel[labelled].double(), alpha=float(weight))
        return column

    def _take_back_(self, step: Step) -> bool:
        self._add_(step, sign=-1)
        return True

    def _hold_(self, rows: list[int]) -> None:
        """Nothing: every column is there."""

    def _release_(self, rows: list[int]) -> None:
        """Nothing was held."""
