"""How one parameter's per-image gradient becomes a few columns: linear maps that keep inner products on average.

Signs belong to the parameter (its name and axes), not to the layer that uses it: the parts that several layers give to
one shared parameter just add up.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from alcore.sketch.count import CountSketch
from alcore.sketch.signs import axis_signs

Kind = Literal["exact", "factored", "dense", "counted"]


class Projection(Protocol):
    """A linear map of a parameter's flat gradient to `width` columns, another one for each sign row."""

    width: int

    def of_gradient(self, gradient: Tensor, row: int) -> Tensor:  # (n, numel) -> (n, width)
        """Project explicit per-image gradients."""

    def digest(self, rows: int) -> str:
        """Sha256 of the random numbers of the first `rows` sign rows."""


@dataclass
class _Held:
    """Signs on the device and in the type they were last asked for; drawn once, on the CPU."""

    drawn: dict[object, Tensor] = field(default_factory=dict)
    placed: dict[object, Tensor] = field(default_factory=dict)

    def get(self, key: object, like: Tensor, draw: Callable[[], Tensor], scale: float = 1.0) -> Tensor:
        if key not in self.drawn:
            self.drawn[key] = draw()
        full = (key, like.device, like.dtype)
        if full not in self.placed:
            self.placed[full] = self.drawn[key].to(like.device, like.dtype) * scale
        return self.placed[full]


class Exact:
    """The gradient as it is."""

    def __init__(self, numel: int) -> None:
        self.width = numel

    def of_gradient(self, gradient: Tensor, row: int) -> Tensor:  # noqa: ARG002 - the same for every row
        """Return the gradient itself."""
        return gradient

    def digest(self, rows: int) -> str:  # noqa: ARG002
        """Nothing is random here."""
        return ""


class Dense:
    """A matrix of random signs: for vectors. Source: Achlioptas 2003, Database-friendly random projections."""

    def __init__(self, numel: int, width: int, *, seed: int, name: str) -> None:
        self.numel, self.width, self.seed, self.name = numel, width, seed, name
        self._held = _Held()

    def _draw(self, row: int) -> Tensor:  # (width, numel)
        return axis_signs(self.width, self.numel, seed=self.seed, name=f"{self.name} axis 0 row {row}")

    def of_gradient(self, gradient: Tensor, row: int) -> Tensor:
        """g R^T / sqrt(width)."""
        return gradient @ self._held.get(row, gradient, lambda: self._draw(row), self.width**-0.5).t()

    def digest(self, rows: int) -> str:
        """Of all the signs."""
        return _sha256(*(self._draw(row) for row in range(rows)))


class Counted:
    """A CountSketch of the explicit gradient, one for each sign row."""

    def __init__(self, numel: int, width: int, *, seed: int, name: str) -> None:
        self.numel, self.width, self.seed, self.name = numel, width, seed, name
        self._sketches: dict[int, CountSketch] = {}

    def _sketch(self, row: int) -> CountSketch:
        if row not in self._sketches:
            self._sketches[row] = CountSketch(self.numel, self.width, seed=self.seed, name=f"{self.name} row {row}")
        return self._sketches[row]

    def of_gradient(self, gradient: Tensor, row: int) -> Tensor:
        """Every coordinate into its bucket."""
        return self._sketch(row).apply(gradient)

    def digest(self, rows: int) -> str:
        """Of all buckets and signs."""
        sketches = [
            CountSketch(self.numel, self.width, seed=self.seed, name=f"{self.name} row {r}") for r in range(rows)
        ]
        return _sha256(*(part for sketch in sketches for part in (sketch.buckets, sketch.signs)))


class Factored:
    """Khatri-Rao signs for a matrix (axis 0, all other axes): column d of a gradient G is r0_d^T G r1_d / sqrt(width).

    A layer whose gradient is sum_t g_t x_t^T never forms it: the column is sum_t <r0_d, g_t> <r1_d, x_t>. The signs of
    the other axes are shared between sign rows, so that inputs are projected once; those of axis 0 are not. Unbiased;
    the variance of an inner product is at most 8 / width for rank-one gradients.
    Source: Ahle et al. 2020, Oblivious sketching of high-degree polynomial kernels (the degree-2 tensored sketch).
    """

    def __init__(self, shape: tuple[int, int], width: int, *, seed: int, name: str) -> None:
        self.shape, self.width, self.seed, self.name = shape, width, seed, name
        self._held = _Held()

    def _draw_left(self, row: int) -> Tensor:
        return axis_signs(self.width, self.shape[0], seed=self.seed, name=f"{self.name} axis 0 row {row}")

    def _draw_right(self) -> Tensor:
        return axis_signs(self.width, self.shape[1], seed=self.seed, name=f"{self.name} axis 1")

    def left(self, like: Tensor, row: int) -> Tensor:  # (width, axis 0), divided by sqrt(width)
        """Signs along axis 0."""
        return self._held.get(row, like, lambda: self._draw_left(row), self.width**-0.5)

    def right(self, like: Tensor) -> Tensor:  # (width, other axes)
        """Signs along the other axes."""
        return self._held.get("right", like, self._draw_right)

    def of_gradient(self, gradient: Tensor, row: int) -> Tensor:
        """The slow way, from an explicit gradient."""
        matrices = gradient.reshape(len(gradient), *self.shape)
        return ((matrices @ self.right(gradient).t()) * self.left(gradient, row).t()).sum(1)

    def digest(self, rows: int) -> str:
        """Of all the signs."""
        return _sha256(self._draw_right(), *(self._draw_left(row) for row in range(rows)))


def _sha256(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_projection(kind: Kind, shape: tuple[int, ...], width: int, *, seed: int, name: str) -> Projection:
    """The projection of a parameter of this shape. Raises ValueError for an unknown kind or an exact width that is not
    the number of entries."""
    numel = 1
    for side in shape:
        numel *= side
    if kind == "exact":
        if width != numel:
            raise ValueError(f"an exact block of {name} has {numel} columns, not {width}")
        return Exact(numel)
    if kind == "dense":
        return Dense(numel, width, seed=seed, name=name)
    if kind == "counted":
        return Counted(numel, width, seed=seed, name=name)
    if kind == "factored":
        return Factored((shape[0], numel // shape[0]), width, seed=seed, name=name)
    raise ValueError(f"there is no projection of kind {kind!r}")
