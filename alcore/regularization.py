"""The ridge chosen from the data, and an accuracy estimate without a test set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alcore.cholesky import NonFiniteError, factor

RIDGE_GRID = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 1e1)
FIRST_RIDGE = 1e-1
ENOUGH_LABELS = 20


class RegularizationError(ValueError):
    """Kernel, residuals and weights do not belong to the same labels."""


@dataclass(frozen=True)
class RidgeChoice:
    """The relative ridge rho, the mean squared error it was chosen by on each grid value, and on how many labels."""

    rho: float
    errors: dict[float, float]
    labels: int


def mean_diagonal(
    *,
    kernel: Tensor | None = None,  # (N, N)
    features: Tensor | None = None,  # (N, S)
) -> float:
    """kbar = tr(K) / N in float64: the absolute ridge is lam = rho kbar. Raises RegularizationError."""
    if kernel is not None and features is None:
        mean = float(kernel.diagonal().double().mean())
    elif features is not None and kernel is None:
        mean = float(torch.linalg.vector_norm(features, dim=1).double().square().mean())
    else:
        raise RegularizationError("the mean diagonal is of a kernel or of features, one of them")
    if not (math.isfinite(mean) and mean > 0):
        raise RegularizationError(f"the mean of the kernel's diagonal is {mean}: no ridge can be relative to it")
    return mean


def one_step_ahead_errors(
    kernel_rows: Tensor,  # (n, n) kernel of the labelled images, in answer order
    residuals: Tensor,  # (n, K) labels minus f0, in answer order
    *,
    ridges: Sequence[float],
    skip: int,
) -> Tensor:  # (len(ridges),) float64
    """Mean ||y_t - mean_{t-1}[i_t]||^2 over the labels after the first `skip`, for every absolute ridge.

    Each label is predicted before it is absorbed: the innovations are Ch[t, t] (Ch^-1 R)[t] of one Cholesky factor of
    the kernel + lam I. Raises RegularizationError, NonFiniteError, SingularKernelError.
    Source: prequential errors, Dawid 1984; innovations by Cholesky, Rasmussen and Williams 2006, section 5.4.
    """
    kernel, residuals = _checked(kernel_rows, residuals)
    if not 0 <= skip < len(kernel):
        raise RegularizationError(f"{skip} of {len(kernel)} labels cannot be skipped: none would be left to predict")
    errors = []
    for ridge in ridges:
        lower = factor(kernel + _positive(ridge) * torch.eye(len(kernel)).to(kernel))
        innovations = lower.diagonal()[:, None] * torch.linalg.solve_triangular(lower, residuals, upper=False)
        errors.append(innovations[skip:].square().sum(1).mean())
    return torch.stack(errors)


def choose_ridge(
    kernel_rows: Tensor,  # (n, n) kernel of the labelled images, in answer order
    residuals: Tensor,  # (n, K) labels minus f0, in answer order
    *,
    mean_diagonal: float,
    skip: int,
    current: float = FIRST_RIDGE,
    enough: int = ENOUGH_LABELS,
    grid: Sequence[float] = RIDGE_GRID,
) -> RidgeChoice:
    """The relative ridge with the smallest one-step-ahead error on labels that the network was not trained on.

    `skip` is the number of first labels it was trained on; with fewer than `enough` others the choice is `current`.
    Ties go to the larger ridge. Raises RegularizationError, NonFiniteError, SingularKernelError.
    """
    unseen = max(0, len(kernel_rows) - skip)
    if unseen < enough:
        return RidgeChoice(current, {}, unseen)
    errors = one_step_ahead_errors(
        kernel_rows, residuals, ridges=[rho * _positive(mean_diagonal) for rho in grid], skip=skip
    ).tolist()
    best = min(zip(errors, [-rho for rho in grid], strict=True))
    return RidgeChoice(-best[1], dict(zip(grid, errors, strict=True)), unseen)


def choose_ridge_left_out(
    kernel_rows: Tensor,  # (n, n) kernel of the labelled images
    residuals: Tensor,  # (n, K) labels minus f0
    *,
    mean_diagonal: float,
    current: float,
    enough: int = ENOUGH_LABELS,
    grid: Sequence[float] = RIDGE_GRID,
) -> RidgeChoice:
    """The relative ridge with the smallest leave-one-out error, where f0 is a prior that has seen none of the labels.

    Every label is then predicted from all others, not only from those before it. With fewer than `enough` the choice is
    `current`. Ties go to the larger ridge. Raises RegularizationError, NonFiniteError, SingularKernelError.
    """
    if len(kernel_rows) < enough:
        return RidgeChoice(current, {}, len(kernel_rows))
    scale = _positive(mean_diagonal)
    errors = {rho: leave_one_out_residuals(kernel_rows, residuals, rho * scale).square().sum(1).mean() for rho in grid}
    found = {rho: float(error) for rho, error in errors.items()}
    return RidgeChoice(min(found, key=lambda rho: (found[rho], -rho)), found, len(kernel_rows))


def gcv(
    kernel: Tensor,  # (n, n)
    residuals: Tensor,  # (n, K)
    *,
    ridges: Sequence[float],
) -> Tensor:  # (len(ridges),) float64
    """Generalised cross-validation: the predicted mean squared error of an unseen image, for every absolute ridge.

    Raises RegularizationError, NonFiniteError.
    Source: Golub, Heath, Wahba 1979; Wei, Hu, Steinhardt 2022, arXiv 2203.06176.
    """
    kernel, residuals = _checked(kernel, residuals)
    if len(kernel) == 0:
        raise RegularizationError("there are no labels to cross-validate on")
    values, vectors = torch.linalg.eigh(kernel)
    energy = (vectors.t() @ residuals).square().sum(1)
    shrunk = [_positive(ridge) / (values.clamp_min(0) + ridge) for ridge in ridges]
    return torch.stack([(share.square() * energy).mean() / share.mean().square() for share in shrunk])


def leave_one_out_residuals(
    kernel: Tensor,  # (n, n) of distinct labelled images
    residuals: Tensor,  # (n, K) mean labels minus f0
    ridge: float,
    weights: Tensor | None = None,  # (n,) votes on each
) -> Tensor:  # (n, K) float64
    """e_i = [A^-1 R]_i / [A^-1]_ii, A = K + diag(lam / w): each label minus its prediction from all the others.

    Raises RegularizationError, NonFiniteError, SingularKernelError.
    Source: Rasmussen and Williams 2006, equations 5.10 to 5.12.
    """
    kernel, residuals = _checked(kernel, residuals)
    weights = torch.ones(len(kernel)).to(kernel) if weights is None else weights.to(kernel)
    if weights.shape != (len(kernel),) or not bool((weights > 0).all()):
        raise RegularizationError(f"weights should be {len(kernel)} positive numbers, got {weights.tolist()}")
    lower = factor(kernel + torch.diag(_positive(ridge) / weights))
    inverse = torch.cholesky_inverse(lower)
    return torch.cholesky_solve(residuals, lower) / inverse.diagonal()[:, None]


def _checked(kernel: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 and symmetric to the last bit. Raises RegularizationError, NonFiniteError."""
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise RegularizationError(f"a kernel is square, got {tuple(kernel.shape)}")
    if residuals.ndim != 2 or len(residuals) != len(kernel):
        raise RegularizationError(f"{len(kernel)} images have residuals of shape {tuple(residuals.shape)}")
    if not (torch.isfinite(kernel).all() and torch.isfinite(residuals).all()):
        raise NonFiniteError("the kernel or the residuals have values that are not finite")
    kernel = kernel.double()
    return (kernel + kernel.t()) / 2, residuals.double()


def _positive(value: float) -> float:
    """Raises RegularizationError."""
    if not (math.isfinite(value) and value > 0):
        raise RegularizationError(f"a ridge is a positive number, got {value}")
    return value
