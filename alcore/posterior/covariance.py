"""The posterior covariance under the answers and a set of pending images."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from alcore.cholesky import factor


class AnswerCovariance(Protocol):
    """C_a, the covariance under the answers alone, as a posterior gives it."""

    @property
    def ridge(self) -> float: ...

    def answer_variance(self) -> Tensor:  # (N,)
        ...

    def answer_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        ...

    def answer_square_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        ...

    def answer_square_sums(self) -> Tensor:  # (N,)
        ...

    def answer_product(self, matrix: Tensor) -> Tensor:  # (N, m) -> (N, m)
        ...


class Covariance:
    """C = C_a - V V^T, V = C_a[:, P] L^-T with L L^T = C_a[P, P] + lam I, for pending rows P.

    Pendings are few and come and go, so they are factored when a ranking is made and never enter C_a: taking one out
    again leaves no trace. A view: it is valid until the posterior changes. Numbers are in squared output units.
    Raises SingularKernelError. Source: Gaussian conditioning; Rasmussen and Williams 2006, section 2.2.
    """

    def __init__(self, answers: AnswerCovariance, pending: Sequence[int]) -> None:
        self._answers = answers
        self._pending = list(pending)
        columns = answers.answer_columns(self._pending)  # (N, p)
        system = columns[self._pending].double()
        self._lower = factor((system + system.t()) / 2 + answers.ridge * torch.eye(len(pending)).to(system))
        self._reduced = self._whiten(columns)  # V, (N, p)
        self.variance = (answers.answer_variance() - self._reduced.square().sum(1)).clamp_min_(0)  # (N,)
        self.noisy_variance = self.variance + answers.ridge  # kappa, (N,)

    def _whiten(self, columns: Tensor) -> Tensor:  # (N, p) -> (N, p), columns L^-T
        whitened = torch.linalg.solve_triangular(self._lower, columns.t().double(), upper=False)
        return torch.t(whitened.to(columns.dtype))

    def columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        """C[:, rows]."""
        columns = self._answers.answer_columns(rows)
        if not self._pending:
            return columns
        return torch.addmm(columns.t(), self._reduced[rows], self._reduced.t(), alpha=-1).t()

    def square_sums(self) -> Tensor:  # (N,)
        """q_j = sum_x C[x, j]^2 over the whole pool."""
        sums = self._answers.answer_square_sums()
        if not self._pending:
            return sums.clamp_min(0)
        crossed = self._whiten(self._answers.answer_square_columns(self._pending))  # C_a V
        inner = self._reduced @ (self._reduced.t() @ self._reduced) - 2 * crossed
        return (sums + (self._reduced * inner).sum(1)).clamp_min_(0)

    def product(self, matrix: Tensor) -> Tensor:  # (N, m) -> (N, m)
        """C @ matrix."""
        product = self._answers.answer_product(matrix)
        return torch.addmm(product, self._reduced, self._reduced.t() @ matrix, alpha=-1)
