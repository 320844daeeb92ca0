"""What the linear model believes after each label: the part that both ways of keeping the covariance share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from alcore.cholesky import SingularKernelError
from alcore.posterior import saving
from alcore.posterior.checks import (
    LabelNotAbsorbedError,
    RowError,
    checked_ridge,
    checked_row,
    checked_rows,
    checked_targets,
)
from alcore.posterior.covariance import Covariance

REFACTOR_LABELS = 256  # labels and withdrawals between two rebuilds of an array in float64
BLOCK_LABELS = 64  # a larger block is cheaper as a rebuild
DRIFT_LIMIT = 1e-3
DRIFT_INTERVAL = 32  # changes between two looks at the drift
PROBES = 32
FORGET_LIMIT = 1e-2  # below this share of the noise, taking a label out amplifies rounding: rebuild
UNDO_LIMIT = 1e-6  # the same for the newest label, whose own increments are known

Votes = dict[int, list[Tensor]]


@dataclass(frozen=True)
class Step:
    """What one label added, kept so that the newest one can be taken back without a trace."""

    row: int
    target: Tensor  # (K,)
    column: Tensor  # c, (N,)
    total: float  # s = C_a[row, row] + noise
    surprise: Tensor  # (y - mean[row]) / s, (K,)
    square_change: Tensor | None  # what was added to the sums of squares, (N,)


@dataclass(frozen=True)
class Labels:
    """Votes gathered by row: w votes on a row equal their mean with noise lam / w."""

    rows: list[int]
    weights: Tensor  # (n,) float64
    targets: Tensor  # (n, K) float64, mean vote


def gather(votes: Votes, like: Tensor) -> Labels:
    """Rows in ascending order, so that the order of the labels leaves no trace."""
    rows = sorted(votes)
    weights = torch.tensor([len(votes[row]) for row in rows], dtype=torch.float64, device=like.device)
    means = [torch.stack(votes[row]).double().mean(0) for row in rows]
    targets = torch.stack(means) if means else torch.zeros(0, like.shape[1], dtype=torch.float64, device=like.device)
    return Labels(rows, weights, targets)


class Posterior(ABC):
    """Mean and covariance of the linearised network's outputs over the pool, updated in place by every label.

    With kernel K, labelled rows L and ridge lam: mean = f0 + K_.L (K_LL + lam I)^-1 (Y - f0), in output units, and
    C = K - K_.L (K_LL + lam I)^-1 K_L.; the mean takes answers only, `variance` and `columns` answers and pendings.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569; Rasmussen and Williams 2006, section 2.2.
    """

    form: ClassVar[Literal["pairwise", "frobenius"]]
    refactor_labels: ClassVar[int] = REFACTOR_LABELS

    def __init__(self, outputs: Tensor, ridge: float) -> None:
        self.initial = outputs  # f0, (N, K)
        self.network = outputs  # what the last network says, (N, K): f0, unless that is its prior
        self.mean = outputs.clone()  # (N, K)
        self.ridge = checked_ridge(ridge)
        self.votes: Votes = {}
        self._pending: list[int] = []
        self._since_refactor = 0
        self._since_look = 0
        self._newest: Step | None = None
        self.probes = torch.linspace(0, len(outputs) - 1, min(PROBES, len(outputs)), dtype=torch.float64).long()

    @property
    def size(self) -> int:
        """Images in the pool, N."""
        return self.initial.shape[0]

    @property
    def classes(self) -> int:
        """Classes, K."""
        return self.initial.shape[1]

    @property
    def width(self) -> int:
        """Numbers given for each image: N of a kernel, S of features."""
        return self._given().shape[1]

    @property
    def pending(self) -> tuple[int, ...]:
        """Rows that are out on a lease: in the covariance, not in the mean."""
        return tuple(self._pending)

    def condition_(
        self,
        rows: Sequence[int],
        targets: Tensor,  # (b, K)
    ) -> None:
        """Absorb labels as one block; a row twice counts as two votes, a pending row is then an answered one.

        Raises RowError, TargetError, NonFiniteError, SingularKernelError; the posterior is then as it was.
        """
        rows = checked_rows(rows, self.size)
        targets = checked_targets(targets, len(rows), self.initial)
        if not rows:
            return
        arrived: Votes = {}
        for row, target in zip(rows, targets, strict=True):
            arrived.setdefault(row, []).append(target.clone())
        votes = {row: [*self.votes.get(row, []), *arrived.get(row, [])] for row in {**self.votes, **arrived}}
        if len(rows) > BLOCK_LABELS or self._since_refactor + len(rows) > self.refactor_labels:
            self._rebuild_(gather(votes, self.initial))
            self._since_refactor = self._since_look = 0
        else:
            self._absorb_(gather(arrived, self.initial))
        if len(rows) > 1:  # votes on one image came as one step: none of them can be taken back by it alone
            self._newest = None
        self.votes = votes
        answered = [row for row in self._pending if row in arrived]
        self._pending = [row for row in self._pending if row not in arrived]
        self._release_(answered)
        self._changed_(len(rows))

    def forget_(
        self,
        row: int,
        target: Tensor,  # (K,)
    ) -> None:
        """Take one label back, its effect on mean and covariance with it; the newest one leaves no trace.

        Raises RowError, TargetError, NonFiniteError, LabelNotAbsorbedError.
        """
        row, place, target = self._find(row, target)
        step, self._newest = self._newest, None
        left = [vote for index, vote in enumerate(self.votes[row]) if index != place]
        votes = {**self._others(row), **({row: left} if left else {})}
        if step is not None and step.row == row and torch.equal(step.target, target) and self._take_back_(step):
            self.votes = votes
        elif self._remove_(row, target):
            self.votes = votes
            # Its own increments are lost among those of later labels: the mean is computed again, and rounded once.
            self._settle_mean_()
        else:
            self._rebuild_(gather(votes, self.initial))
            self._since_refactor = self._since_look = 0
            self.votes = votes
        self._changed_(1)

    def relabel_(
        self,
        row: int,
        old: Tensor,  # (K,)
        new: Tensor,  # (K,)
    ) -> None:
        """Correct a label: the covariance does not see it, the mean moves by C_a[:, row] (new - old) / lam.

        Raises RowError, TargetError, NonFiniteError, LabelNotAbsorbedError.
        """
        row, place, old = self._find(row, old)
        new = checked_targets(new[None], 1, self.initial)[0]
        self._newest = None
        self._shift_(row, (new.double() - old.double()) / self.ridge)
        self.votes[row][place] = new.clone()
        self._changed_(1)

    def save(self, path: Path, *, header: dict[str, Any]) -> None:
        """Write labels, ridge and the caller's header to one file, whole or not at all; pendings are never saved.

        Mean and covariance are computed from the labels again by `load_posterior`. Raises store.StoreError.
        """
        saving.write_labels(path, self.votes, self.ridge, self.fingerprint(), self.initial, header)

    def fingerprint(self) -> dict[str, Any]:
        """What a saved file must agree with: form, shape, dtype, and a hash of outputs and probe values."""
        return saving.fingerprint(self.form, self.initial, self._given()[self.probes])

    def _labels(self) -> Labels:
        return gather(self.votes, self.initial)

    def _find(self, row: int, target: Tensor) -> tuple[int, int, Tensor]:
        """The row, and the place of a vote among the row's votes, the newest first."""
        row = checked_row(row, self.size)
        target = checked_targets(target[None], 1, self.initial)[0]
        held = self.votes.get(row, [])
        for place in reversed(range(len(held))):
            if torch.equal(held[place], target):
                return row, place, target
        raise LabelNotAbsorbedError(f"row {row} has no label {target.tolist()}; it has {[v.tolist() for v in held]}")

    def _others(self, row: int) -> Votes:
        return {other: votes for other, votes in self.votes.items() if other != row}

    def pend_(self, *rows: int) -> None:
        """Condition the covariance on images whose answers are not known yet; again is harmless. Raises RowError."""
        new = [row for row in dict.fromkeys(checked_rows(rows, self.size)) if row not in self._pending]
        if new:
            self._hold_(new)
            self._pending += new

    def cancel_(self, *rows: int) -> None:
        """Take pending images out again, without a trace. Raises RowError when one is not pending."""
        missing = [row for row in rows if row not in self._pending]
        if missing:
            raise RowError(f"row {missing[0]} is not pending; pending are {self._pending}")
        self._pending = [row for row in self._pending if row not in rows]
        self._release_(list(dict.fromkeys(rows)))

    def set_ridge_(self, ridge: float) -> None:
        """Rebuild at another absolute ridge lam; labels and pendings stay.

        Raises RidgeError, SingularKernelError; the posterior is then as it was.
        """
        before, self.ridge = self.ridge, self._allowed_ridge(ridge)
        if not self.votes:  # C is K then, whatever the ridge
            return
        try:
            self.refactor_()
        except SingularKernelError:
            self.ridge = before
            raise

    def refactor_(self) -> None:
        """Rebuild mean and covariance from the labels, small algebra in float64. Raises SingularKernelError."""
        self._rebuild_(self._labels())
        self._since_refactor = self._since_look = 0

    def covariance(self, pending: Sequence[int] | None = None) -> Covariance:
        """C under the answers and the given rows, by default the pending ones. Raises RowError, SingularKernelError."""
        rows = self._pending if pending is None else checked_rows(pending, self.size)
        return Covariance(self, rows)

    def variance(self) -> Tensor:  # (N,)
        """The diagonal of C under answers and pendings."""
        return self.covariance().variance

    def columns(self, rows: Sequence[int]) -> Tensor:  # (N, b)
        """Columns of C under answers and pendings. Raises RowError."""
        return self.covariance().columns(checked_rows(rows, self.size))

    def gain(self, row: int) -> Tensor:  # (N,)
        """How far every mean moves for a unit surprise at this row: C_a[:, row] / (C_a[row, row] + lam)."""
        row = checked_row(row, self.size)
        column = self.answer_columns([row])[:, 0]
        return column / (column[row] + self.ridge)

    def fantasy_mean(
        self,
        row: int,
        target: Tensor,  # (K,)
    ) -> Tensor:  # (N, K)
        """The mean if this label came, pending or not. Raises RowError, TargetError, NonFiniteError."""
        row, target = checked_row(row, self.size), checked_targets(target[None], 1, self.initial)[0]
        return torch.addr(self.mean, self.gain(row), target - self.mean[row])

    def _changed_(self, changes: int) -> None:
        """Count changes; look at the drift now and then, and repair it."""
        self._since_refactor += changes
        self._since_look += changes
        if self._since_refactor >= self.refactor_labels:
            self.refactor_()
        elif self._since_look >= DRIFT_INTERVAL:
            self._since_look = 0
            if self.drift() > DRIFT_LIMIT:
                self.refactor_()
            else:
                self._freshen_()

    def _allowed_ridge(self, ridge: float) -> float:
        """Raises RidgeError, also where this way of keeping the covariance would lose its digits."""
        return checked_ridge(ridge)

    @abstractmethod
    def _given(self) -> Tensor:  # (N, N) or (N, S)
        """The kernel or the features this posterior stands on."""

    @abstractmethod
    def answer_variance(self) -> Tensor:  # (N,)
        """The diagonal of C_a, the covariance under the answers alone."""

    @abstractmethod
    def answer_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        """C_a[:, rows]."""

    @abstractmethod
    def answer_block(self, rows: Sequence[int]) -> Tensor:  # (b, b)
        """C_a among these rows alone, without a pass over the pool."""

    @abstractmethod
    def answer_square_columns(self, rows: Sequence[int] | Tensor) -> Tensor:  # (N, b)
        """(C_a C_a)[:, rows]."""

    @abstractmethod
    def answer_square_sums(self) -> Tensor:  # (N,)
        """The diagonal of C_a C_a: sums of squared covariances over the whole pool."""

    @abstractmethod
    def answer_product(self, matrix: Tensor) -> Tensor:  # (N, m) -> (N, m)
        """C_a @ matrix."""

    @abstractmethod
    def _shift_(self, row: int, change: Tensor) -> None:
        """mean += C_a[:, row] change^T for a labelled row, change (K,) in float64."""

    @abstractmethod
    def leave_one_out(self) -> tuple[list[int], Tensor]:
        """Labelled rows, ascending, and (n, K) residuals each predicted without its own votes."""

    @abstractmethod
    def drift(self) -> float:
        """The largest error of the arrays on probe rows, relative to their size, against float64."""

    @abstractmethod
    def _absorb_(self, labels: Labels) -> None:
        """Condition mean and covariance on a small block."""

    @abstractmethod
    def _rebuild_(self, labels: Labels) -> None:
        """Compute mean and covariance from all labels."""

    @abstractmethod
    def _remove_(self, row: int, target: Tensor) -> bool:
        """Take one vote out by a downdate; False, with nothing changed, where that would amplify rounding."""

    @abstractmethod
    def _settle_mean_(self) -> None:
        """Compute the mean of every image from the labels in float64; the covariance stands on them already."""

    def _freshen_(self) -> None:
        """Bring what has gathered rounding up to date, a share of it at each look at the drift."""
        self._settle_mean_()

    @abstractmethod
    def _take_back_(self, step: Step) -> bool:
        """Subtract the newest label's own increments; False, with nothing changed, where rounding would grow."""

    @abstractmethod
    def _hold_(self, rows: list[int]) -> None:
        """Prepare what the covariance of a pending row needs."""

    @abstractmethod
    def _release_(self, rows: list[int]) -> None:
        """The row is no longer pending."""
