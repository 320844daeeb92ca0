"""What may enter a posterior, and the errors that say what was wrong with it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.cholesky import NonFiniteError


class PosteriorError(ValueError):
    """Input that a posterior refuses; values that are not finite have a NonFiniteError of their own."""


class PoolError(PosteriorError):
    """Kernel or features and outputs do not describe the same, non-empty pool."""


class RowError(PosteriorError):
    """A row is outside the pool, or is not pending."""


class TargetError(PosteriorError):
    """A target does not have one value for each class."""


class RidgeError(PosteriorError):
    """The ridge is not a positive finite number."""


class LabelNotAbsorbedError(PosteriorError):
    """The label to be taken back is not among the labels of that row."""


def require_finite(values: Tensor, what: str) -> None:
    """Raises NonFiniteError that names the first bad row. A sum finds them in one pass without a mask of the pool."""
    if torch.isfinite(values.sum()):
        return
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        place = tuple(int(index) for index in bad[0])
        raise NonFiniteError(f"{what} hold {values[place].item()} in row {place[0]}; {len(bad)} values are not finite")


def checked_ridge(ridge: float) -> float:
    """Raises RidgeError."""
    if not (math.isfinite(ridge) and ridge > 0):
        raise RidgeError(f"the ridge must be a positive number, got {ridge}")
    return float(ridge)


def checked_row(row: int, size: int) -> int:
    """Raises RowError."""
    if not 0 <= row < size:
        raise RowError(f"row {row} is outside the pool of {size} images")
    return int(row)


def checked_targets(targets: Tensor, count: int, like: Tensor) -> Tensor:  # (count, K) in the dtype of (N, K) `like`
    """Raises TargetError and NonFiniteError."""
    expected = (count, like.shape[1])
    if tuple(targets.shape) != expected:
        raise TargetError(f"targets should have shape {expected}, labels by classes; got {tuple(targets.shape)}")
    require_finite(targets, "targets")
    return targets.to(like)


def check_outputs(outputs: Tensor) -> None:
    """Raises PoolError and NonFiniteError."""
    if outputs.ndim != 2 or 0 in outputs.shape or not outputs.is_floating_point():
        raise PoolError(f"outputs are images by classes in floating point, got {outputs.dtype} {tuple(outputs.shape)}")
    require_finite(outputs, "outputs")


def check_pool(given: Tensor, outputs: Tensor, *, what: str) -> None:
    """`given` is a kernel or features. Raises PoolError and NonFiniteError."""
    check_outputs(outputs)
    if given.ndim != 2 or len(given) != len(outputs) or given.shape[1] == 0 or not given.is_floating_point():
        raise PoolError(
            f"{what} of shape {tuple(given.shape)} and type {given.dtype} do not fit outputs of {len(outputs)} images"
        )
    require_finite(given, what)


def checked_rows(rows: Sequence[int], size: int) -> list[int]:
    """Raises RowError."""
    return [checked_row(row, size) for row in rows]
