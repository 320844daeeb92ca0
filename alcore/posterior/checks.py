"""What may enter a posterior, and the errors that say what was wrong with it."""

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from alcore.cholesky import NonFiniteError

ASYMMETRY = 1e-3  # of the largest value: far above what rounding does


class PosteriorError(ValueError):
    """Input that a posterior refuses; values that are not finite have a NonFiniteError of their own."""


class PoolError(PosteriorError):
    """Kernel or features and outputs do not describe the same, non-empty pool."""


class RowError(PosteriorError):
    """A row is outside the pool, is no whole number, or is not pending."""


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
    try:
        value = float(ridge)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise RidgeError(f"the ridge must be a positive number, got {ridge!r}")
    return value


def whole_number(value: object) -> int | None:
    """As a plain one whatever its type, NumPy's or torch's; None for what is none, as a truth value is."""
    if isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return None


def checked_row(row: int, size: int) -> int:
    """The row as a plain whole number; a truth value is none: a mask is never taken for rows. Raises RowError."""
    found = whole_number(row)
    if found is None or not 0 <= found < size:
        raise RowError(f"row {row!r} is outside the pool of {size} images")
    return found


def checked_targets(targets: Tensor, count: int, like: Tensor) -> Tensor:  # (count, K) in the dtype of (N, K) `like`
    """Raises TargetError and NonFiniteError, also for what the dtype cannot hold."""
    expected = (count, like.shape[1])
    if not isinstance(targets, Tensor) or tuple(targets.shape) != expected:
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise TargetError(f"targets should have shape {expected}, labels by classes; got {shape}")
    converted = targets.detach().to(like)
    require_finite(converted, "targets")
    return converted


def check_outputs(outputs: Tensor) -> None:
    """Raises PoolError and NonFiniteError."""
    if outputs.ndim != 2 or 0 in outputs.shape or not outputs.is_floating_point():
        raise PoolError(f"outputs are images by classes in floating point, got {outputs.dtype} {tuple(outputs.shape)}")
    require_finite(outputs, "outputs")


def check_pool(given: Tensor, outputs: Tensor, *, what: str) -> tuple[Tensor, Tensor]:
    """`given`, a kernel or features in float32 or float64, and outputs in its dtype, without gradients.

    Half precision is refused: with 11 bits a posterior would be wrong by whole percents. Raises PoolError and
    NonFiniteError, also for outputs that the dtype cannot hold.
    """
    check_outputs(outputs)
    wrong = given.ndim != 2 or len(given) != len(outputs) or given.shape[1] == 0
    if wrong or given.dtype not in (torch.float32, torch.float64):
        raise PoolError(
            f"{what} of shape {tuple(given.shape)} and type {given.dtype} do not fit outputs of {len(outputs)} images: "
            f"one row each is needed, in float32 or float64"
        )
    require_finite(given, what)
    outputs = outputs.detach().to(given)
    require_finite(outputs, "outputs")
    return given.detach(), outputs


def check_scale(mean: float, dtype: torch.dtype) -> None:
    """Scores add up squares of covariances over the pool, in this dtype. `mean` of the diagonal; raises PoolError."""
    largest = torch.finfo(dtype).max ** 0.4
    if mean and not 1 / largest <= abs(mean) <= largest:
        raise PoolError(
            f"the mean of the kernel's diagonal is {mean:.3g}: {dtype} cannot hold its square over a pool, "
            f"scale kernel, features and ridge to between {1 / largest:.1g} and {largest:.1g}"
        )


def check_symmetric(kernel: Tensor, rows: Tensor) -> None:
    """Compare these rows with their columns. Raises PoolError."""
    difference = (kernel[rows] - kernel[:, rows].t()).abs().amax(1)
    worst = int(difference.argmax())
    if float(difference[worst]) > ASYMMETRY * float(kernel[rows].abs().max()):
        raise PoolError(
            f"a kernel is symmetric: row {int(rows[worst])} and its column differ by {difference[worst]:.3g}"
        )


def checked_rows(rows: Sequence[int], size: int) -> list[int]:
    """Raises RowError."""
    return [checked_row(row, size) for row in rows]
