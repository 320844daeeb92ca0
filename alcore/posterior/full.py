"""The posterior of the full kernel, K x K blocks between images: the reference for small pools, slow and exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from alcore.cholesky import SingularKernelError, factor
from alcore.posterior.checks import (
    LabelNotAbsorbedError,
    PoolError,
    RowError,
    check_outputs,
    check_symmetric,
    checked_ridge,
    checked_row,
    checked_rows,
    checked_targets,
    require_finite,
)
from alcore.posterior.model import PROBES, Votes, gather


@dataclass(frozen=True)
class _Solved:
    """The labelled system factored: C = K - crossed^T crossed."""

    places: Tensor  # (n K,) rows of the kernel that are labelled
    lower: Tensor  # (n K, n K)
    crossed: Tensor  # lower^-1 K_L., (n K, N K)


class FullPosterior:
    """Mean and covariance of all N K outputs under K_LL + lam I of size n K, in float64; every change is a rebuild.

    Rows of the kernel go image by image: row i K + k is output k of image i. With a kernel k x I_K it agrees with
    PairwisePosterior on k; here one label moves every class of an image its own way. `mean` takes answers only,
    `variance`, `columns` and `look_ahead_change` answers and pendings. Votes on one image have noise lam / votes.
    Raises PoolError, NonFiniteError, RidgeError.
    Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569; Rasmussen and Williams 2006, section 2.2.
    """

    form: ClassVar[Literal["full"]] = "full"

    def __init__(
        self,
        kernel: Tensor,  # (N K, N K)
        outputs: Tensor,  # (N, K)
        *,
        ridge: float,
    ) -> None:
        check_outputs(outputs)
        if tuple(kernel.shape) != (outputs.numel(), outputs.numel()) or not kernel.is_floating_point():
            raise PoolError(
                f"a full kernel of {len(outputs)} images and {outputs.shape[1]} classes is square with "
                f"{outputs.numel()} rows, got {kernel.dtype} {tuple(kernel.shape)}"
            )
        require_finite(kernel, "kernel")
        self.kernel = kernel.detach().double()
        check_symmetric(self.kernel, torch.arange(0, len(kernel), max(1, len(kernel) // PROBES)))
        self.initial = outputs.detach().double()  # f0, (N, K)
        self.ridge = checked_ridge(ridge)
        self.votes: Votes = {}
        self._pending: list[int] = []
        self.refactor_()

    @property
    def size(self) -> int:
        """Images in the pool, N."""
        return self.initial.shape[0]

    @property
    def classes(self) -> int:
        """Classes, K."""
        return self.initial.shape[1]

    @property
    def pending(self) -> tuple[int, ...]:
        """Rows that are out on a lease: in the covariance, not in the mean."""
        return tuple(self._pending)

    def condition_(
        self,
        rows: Sequence[int],
        targets: Tensor,  # (b, K)
    ) -> None:
        """Absorb labels; a row twice counts as two votes, a pending row is then an answered one.

        Raises RowError, TargetError, NonFiniteError, SingularKernelError; the posterior is then as it was.
        """
        rows = checked_rows(rows, self.size)
        targets = checked_targets(targets, len(rows), self.initial)
        votes = {row: list(held) for row, held in self.votes.items()}
        for row, target in zip(rows, targets, strict=True):
            votes.setdefault(row, []).append(target.clone())
        self._rebuild_(votes, [row for row in self._pending if row not in rows])

    def forget_(
        self,
        row: int,
        target: Tensor,  # (K,)
    ) -> None:
        """Take one label back. Raises RowError, TargetError, NonFiniteError, LabelNotAbsorbedError."""
        self._replace_(row, target, [])

    def relabel_(
        self,
        row: int,
        old: Tensor,  # (K,)
        new: Tensor,  # (K,)
    ) -> None:
        """Correct a label. Raises RowError, TargetError, NonFiniteError, LabelNotAbsorbedError."""
        self._replace_(row, old, [checked_targets(new[None], 1, self.initial)[0].clone()])

    def _replace_(self, row: int, target: Tensor, others: list[Tensor]) -> None:
        row = checked_row(row, self.size)
        target = checked_targets(target[None], 1, self.initial)[0]
        held = self.votes.get(row, [])
        places = [place for place, vote in enumerate(held) if torch.equal(vote, target)]
        if not places:
            raise LabelNotAbsorbedError(
                f"row {row} has no label {target.tolist()}; it has {[v.tolist() for v in held]}"
            )
        left = [*held[: places[-1]], *others, *held[places[-1] + 1 :]]
        rest = {other: votes for other, votes in self.votes.items() if other != row}
        self._rebuild_({**rest, **({row: left} if left else {})}, self._pending)

    def pend_(self, row: int) -> None:
        """Condition the covariance on an image whose answer is not known yet; again is harmless. Raises RowError."""
        row = checked_row(row, self.size)
        if row not in self._pending:
            self._rebuild_(self.votes, [*self._pending, row])

    def cancel_(self, row: int) -> None:
        """Take a pending image out again. Raises RowError when it is not pending."""
        if row not in self._pending:
            raise RowError(f"row {row} is not pending; pending are {self._pending}")
        self._rebuild_(self.votes, [other for other in self._pending if other != row])

    def set_ridge_(self, ridge: float) -> None:
        """Rebuild at another absolute ridge lam; labels and pendings stay.

        Raises RidgeError, SingularKernelError; the posterior is then as it was.
        """
        before, self.ridge = self.ridge, checked_ridge(ridge)
        try:
            self.refactor_()
        except SingularKernelError:
            self.ridge = before
            raise

    def refactor_(self) -> None:
        """Rebuild mean and covariance from the labels. Raises SingularKernelError."""
        self._rebuild_(self.votes, self._pending)

    def _rebuild_(self, votes: Votes, pending: list[int]) -> None:
        """Solve for the mean under the answers and the covariance under answers and pendings; then keep both."""
        labels = gather(votes, self.initial)
        answers = self._solve(labels.rows, labels.weights)
        residuals = (labels.targets - self.initial[labels.rows]).reshape(-1, 1)
        whitened = torch.linalg.solve_triangular(answers.lower, residuals, upper=False)
        mean = self.initial + (answers.crossed.t() @ whitened).reshape(self.initial.shape)
        solved = answers
        if pending:
            solved = self._solve(
                [*labels.rows, *pending], torch.cat([labels.weights, labels.weights.new_ones(len(pending))])
            )
        self.mean, self._solved = mean, solved  # (N, K)
        self.votes, self._pending = votes, list(pending)

    def _solve(self, rows: Sequence[int], weights: Tensor) -> _Solved:
        places = self._places(rows)
        noise = (self.ridge / weights).repeat_interleave(self.classes)
        system = self.kernel[places][:, places]
        lower = factor((system + system.t()) / 2 + torch.diag(noise))
        return _Solved(places, lower, torch.linalg.solve_triangular(lower, self.kernel[places], upper=False))

    def _places(self, rows: Sequence[int]) -> Tensor:  # (b K,)
        first = torch.tensor(list(rows), dtype=torch.int64, device=self.kernel.device)[:, None] * self.classes
        return (first + torch.arange(self.classes, device=self.kernel.device)).flatten()

    def columns(self, rows: Sequence[int]) -> Tensor:  # (N, K, b, K)
        """C between every output of the pool and every output of some images. Raises RowError."""
        places = self._places(checked_rows(rows, self.size))
        crossed = self._solved.crossed
        columns = self.kernel[:, places] - crossed.t() @ crossed[:, places]
        return columns.reshape(self.size, self.classes, len(rows), self.classes)

    def variance(self) -> Tensor:  # (N, K, K)
        """The K x K block of C on the diagonal of every image."""
        blocks = [self.columns([row])[row, :, 0] for row in range(self.size)]
        return torch.stack(blocks)

    def change(
        self,
        row: int,
        target: Tensor,  # (K,)
    ) -> Tensor:  # (N, K)
        """How this label would change every mean: C[:, row] (C[row, row] + lam I)^-1 (target - mean[row]).

        Raises RowError, TargetError, NonFiniteError, SingularKernelError.
        """
        row, target = checked_row(row, self.size), checked_targets(target[None], 1, self.initial)[0]
        column = self.columns([row])[:, :, 0]  # (N, K, K)
        block = column[row]
        noisy = (block + block.t()) / 2 + self.ridge * torch.eye(self.classes).to(block)
        return column @ torch.cholesky_solve((target - self.mean[row])[:, None], factor(noisy))[:, 0]

    def look_ahead_change(self, row: int) -> Tensor:  # (N, K)
        """How the label that the image most likely has would change every mean. Raises RowError."""
        row = checked_row(row, self.size)
        likely = torch.zeros_like(self.mean[row])
        likely[self.mean[row].argmax()] = 1
        return self.change(row, likely)

    def look_ahead_scores(
        self,
        candidates: Tensor,  # (N,) bool
        form: Literal["linear", "network"] = "linear",
    ) -> Tensor:  # (N,)
        """MLMOC of the candidates, -inf elsewhere: norms of the change, or of the changed mean less f0, summed.

        Raises RowError for candidates that are not one truth value an image, ValueError for another form.
        Source: Mohamadi, Bae, Sutherland 2022, arXiv 2206.12569, MLMOC.
        """
        if form not in ("linear", "network"):
            raise ValueError(f"look-ahead is against the linear or the network model, not {form!r}")
        if candidates.dtype != torch.bool or tuple(candidates.shape) != (self.size,):
            raise RowError(f"candidates are {self.size} truth values, got {candidates.dtype} {tuple(candidates.shape)}")
        against = self.mean if form == "linear" else self.initial
        scores = torch.full_like(self.mean[:, 0], -torch.inf)
        for row in candidates.nonzero()[:, 0].tolist():
            after = self.mean + self.look_ahead_change(row)
            scores[row] = torch.linalg.vector_norm(after - against, dim=1).sum()
        return scores
