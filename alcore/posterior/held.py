"""Columns of the covariance and of its square for pending images, kept up to date by every label."""

from collections.abc import Sequence

import torch
from torch import Tensor


class HeldColumns:
    """C_a[:, P] and (C_a C_a)[:, P] as rows, so that answering or taking out a pending image reads no features."""

    def __init__(self, like: Tensor) -> None:  # (N, S)
        self.rows: list[int] = []
        self._columns = like.new_empty(0, len(like))  # (p, N)
        self._squares = like.new_empty(0, len(like))  # (p, N)

    def has(self, rows: Sequence[int] | Tensor) -> bool:
        """Whether every one of these rows is held."""
        return not isinstance(rows, Tensor) and all(row in self.rows for row in rows)

    def covariance(self, rows: Sequence[int] | Tensor) -> Tensor:  # (len(rows), N)
        return self._columns[self._places(rows)]

    def squares(self, rows: Sequence[int] | Tensor) -> Tensor:  # (len(rows), N)
        return self._squares[self._places(rows)]

    def copy(self, row: int) -> tuple[Tensor, Tensor]:  # (N,), (N,)
        place = self.rows.index(row)
        return self._columns[place].clone(), self._squares[place].clone()

    def _places(self, rows: Sequence[int] | Tensor) -> list[int]:
        return [self.rows.index(int(row)) for row in rows]

    def add_(
        self,
        rows: Sequence[int],
        columns: Tensor,  # (b, N)
        squares: Tensor,  # (b, N)
    ) -> None:
        self.rows = [*self.rows, *rows]
        self._columns = torch.cat([self._columns, columns])
        self._squares = torch.cat([self._squares, squares])

    def drop_(self, rows: Sequence[int]) -> None:
        if not rows:
            return
        keep = [place for place, held in enumerate(self.rows) if held not in rows]
        self.rows = [self.rows[place] for place in keep]
        self._columns, self._squares = self._columns[keep], self._squares[keep]

    def update_(self, row: int, column: Tensor, squares: Tensor, total: float, square: float) -> None:
        """C' = C - c c^T / s and C'C' = CC - (z c^T + c z^T) / s + q_i c c^T / s^2, where c, z, q_i are the row's."""
        at_row, squares_at_row = self._columns[:, row].clone(), self._squares[:, row].clone()
        self._columns.addr_(at_row, column, alpha=-1 / total)
        self._squares.addr_(at_row, squares, alpha=-1 / total)
        self._squares.addr_(at_row * (square / total) - squares_at_row, column, alpha=1 / total)

    def update_block_(
        self,
        whitened: Tensor,  # V, (b, N)
        turned: Tensor,  # V C, (b, N)
        gram: Tensor,  # V V^T, (b, b)
    ) -> None:
        """C' = C - V^T V and C'C' = CC - (V C)^T V - V^T (V C) + V^T V V^T V, for many labels as one block."""
        at_rows, turned_at_rows = whitened[:, self.rows], turned[:, self.rows]  # (b, p)
        self._columns.addmm_(at_rows.t(), whitened, alpha=-1)
        self._squares.addmm_(at_rows.t(), turned, alpha=-1)
        self._squares.addmm_((gram @ at_rows - turned_at_rows).t(), whitened)
