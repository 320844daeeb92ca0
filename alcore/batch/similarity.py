"""How alike images are to each other, as far as a selection method asks: columns of a kernel, never all of it.

Points are numbered over the pool first, 0 to N - 1, then over the training images, N to N + n - 1. Everything that
grows with the pool keeps the type of the input; diagonals and small blocks are float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from alcore.batch.errors import BatchInputError

BLOCK = 2048  # rows of the pool at a time
PAIRS = 64  # of points at a time where a kernel only knows blocks
LARGEST_EIGENPROBLEM = 5000  # points up to which a kernel is turned into features


class Similarity(ABC):
    """A positive semidefinite kernel on N pool and n training images."""

    size: int  # N
    trained: int  # n
    device: torch.device
    dtype: torch.dtype

    @property
    def points(self) -> int:
        """N + n."""
        return self.size + self.trained

    @abstractmethod
    def diagonal(self) -> Tensor:  # (N + n,) float64
        """Every point's similarity to itself."""

    @abstractmethod
    def side(self, points: Tensor) -> Any:  # (m,)
        """What `between` needs of some points, gathered once."""

    @abstractmethod
    def between(self, left: Any, right: Any) -> Tensor:  # (a, b)
        """The kernel of two sides."""

    def pool_side(self, start: int, stop: int) -> Any:
        """The side of neighbouring points, without a copy where there is a cheaper way."""
        return self.side(torch.arange(start, stop, device=self.device))

    def columns(self, points: Tensor) -> Tensor:  # (m,) -> (N, m)
        """The kernel of the whole pool with some points, in the type of the input."""
        right = self.side(points)
        return torch.cat([self.between(self.pool_side(*rows), right) for rows in blocks(self.size)])

    @abstractmethod
    def block(self, left: Tensor, right: Tensor) -> Tensor:  # (a,), (b,) -> (a, b) float64
        """The kernel of a few points, from the input in float64."""

    def distances(self, left: Tensor, right: Tensor) -> Tensor:  # (m,), (m,) -> (m,) float64
        """Squared distances of pairs, never negative, and 0 of a point to itself."""
        diagonal = self.diagonal()
        found = torch.zeros(len(left), dtype=torch.float64, device=self.device)
        apart = (left != right).nonzero()[:, 0]
        for rows in blocks(len(apart), PAIRS):
            pairs = apart[slice(*rows)]
            one, other = left[pairs], right[pairs]
            found[pairs] = diagonal[one] + diagonal[other] - 2 * self.block(one, other).diagonal()
        return found.clamp_min_(0)

    def sums(self, with_train: bool) -> Tensor:  # (N + n,) float64
        """Every point's similarities added up over the pool, or over pool and training images."""
        last = self.points if with_train else self.size
        found = torch.zeros(self.points, dtype=torch.float64, device=self.device)
        for rows in blocks(self.points):
            left = self.pool_side(*rows)
            for others in blocks(last):
                found[slice(*rows)] += self.between(left, self.pool_side(*others)).double().sum(1)
        return found

    @abstractmethod
    def scaled(self, factor: float) -> "Similarity":
        """The kernel times factor^2: features times the factor."""


def blocks(count: int, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Starts and stops that cover range(count)."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


class FeatureRows(Similarity):
    """Inner products of features. `owned` arrays were made by a transform and may be changed in place."""

    def __init__(self, pool: Tensor, train: Tensor, *, owned: bool = False) -> None:  # (N, S), (n, S)
        self.pool, self.train, self.owned = pool, train, owned
        self.size, self.trained, self.width = len(pool), len(train), pool.shape[1]
        self.device, self.dtype = pool.device, pool.dtype
        self._diagonal: Tensor | None = None

    def diagonal(self) -> Tensor:
        """Squared norms, summed in float64: exact for whole numbers, whose ties would else be decided by rounding."""
        if self._diagonal is None:
            copies = (rows.to(torch.float64, copy=True) for rows in self.each_block())
            self._diagonal = torch.cat([copy.square_().sum(1) for copy in copies])
        return self._diagonal

    def each_block(self) -> Iterator[Tensor]:
        """Rows of the pool, then of the training images."""
        yield from torch.split(self.pool, BLOCK)
        if self.trained:
            yield from torch.split(self.train, BLOCK)

    def side(self, points: Tensor) -> Tensor:  # (m, S)
        """Their features."""
        if not self.trained:
            return self.pool[points]
        of_pool = points < self.size
        rows = self.pool[torch.where(of_pool, points, 0)]
        others = ~of_pool
        rows[others] = self.train[points[others] - self.size]
        return rows

    def pool_side(self, start: int, stop: int) -> Tensor:
        """A view where they lie in one array."""
        if stop <= self.size:
            return self.pool[start:stop]
        if start >= self.size:
            return self.train[start - self.size : stop - self.size]
        return torch.cat([self.pool[start:], self.train[: stop - self.size]])

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """One matrix product."""
        return left @ right.t()

    def columns(self, points: Tensor) -> Tensor:
        """One product over the whole pool."""
        if len(points) == 1:
            return torch.mv(self.pool, self.side(points)[0])[:, None]
        return self.pool @ self.side(points).t()

    def block(self, left: Tensor, right: Tensor) -> Tensor:
        """Features in float64."""
        return self.side(left).double() @ self.side(right).double().t()

    def distances(self, left: Tensor, right: Tensor) -> Tensor:
        """From the differences: nothing cancels."""
        parts = [
            (self.side(one).double() - self.side(other).double()).square_().sum(1)
            for one, other in zip(torch.split(left, BLOCK), torch.split(right, BLOCK), strict=True)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=self.device)

    def scaled(self, factor: float) -> "FeatureRows":
        """In place where the arrays are owned."""
        if self.owned:
            return FeatureRows(self.pool.mul_(factor), self.train.mul_(factor), owned=True)
        return FeatureRows(self.pool * factor, self.train * factor, owned=True)

    def mapped(self, matrix: Tensor) -> "FeatureRows":  # (S, S')
        """Features times a matrix: block by block in place where the arrays are owned and the width stays."""
        matrix = matrix.to(self.pool)
        in_place = self.owned and matrix.shape[1] == self.width
        mapped = []
        for part in (self.pool, self.train):
            target = part if in_place else part.new_empty(len(part), matrix.shape[1])
            for start, stop in blocks(len(part)):
                target[start:stop] = part[start:stop] @ matrix
            mapped.append(target)
        return FeatureRows(mapped[0], mapped[1], owned=True)

    def less(self, left: Tensor, right: Tensor) -> "FeatureRows":  # (S, r), (S, r)
        """Phi - Phi left right^T, block by block, in place where the arrays are owned."""
        left, right = left.to(self.pool), right.to(self.pool)
        changed = []
        for part in (self.pool, self.train):
            target = part if self.owned else part.new_empty(part.shape)
            for start, stop in blocks(len(part)):
                target[start:stop] = part[start:stop] - (part[start:stop] @ left) @ right.t()
            changed.append(target)
        return FeatureRows(changed[0], changed[1], owned=True)


class KernelRows(Similarity):
    """A kernel matrix that was given; pool and training images are some of its rows."""

    def __init__(self, kernel: Tensor, pool: Tensor, train: Tensor) -> None:  # (M, M), (N,), (n,)
        self.kernel, self.rows = kernel, torch.cat([pool, train])
        self.size, self.trained = len(pool), len(train)
        self.device, self.dtype = kernel.device, kernel.dtype

    def diagonal(self) -> Tensor:
        """As given; what rounding made negative is zero."""
        return self.kernel.diagonal()[self.rows].double().clamp_min(0)

    def side(self, points: Tensor) -> Tensor:
        """Their rows in the matrix."""
        return self.rows[points]

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """A part of the matrix."""
        return self.kernel[left[:, None], right[None]]

    def block(self, left: Tensor, right: Tensor) -> Tensor:
        """A part of the matrix."""
        return self.between(self.side(left), self.side(right)).double()

    def distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Diagonals less twice the entry."""
        one, other = self.side(left), self.side(right)
        diagonal = self.kernel.diagonal().double()
        return (diagonal[one] + diagonal[other] - 2 * self.kernel[one, other].double()).clamp_min(0)

    def scaled(self, factor: float) -> "ScaledRows":
        """The matrix stays as it is."""
        return ScaledRows(self, factor**2)


class FunctionRows(Similarity):
    """A kernel that is computed from inputs when it is asked for, such as Laplace's."""

    def __init__(self, pool: Tensor, train: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._inputs = FeatureRows(pool, train)
        self._function = function
        self.size, self.trained = len(pool), len(train)
        self.device, self.dtype = pool.device, pool.dtype
        self._diagonal: Tensor | None = None

    def diagonal(self) -> Tensor:
        """The diagonals of small blocks, formed once."""
        if self._diagonal is None:
            parts = []
            for rows in blocks(self.points, PAIRS):
                inputs = self._inputs.pool_side(*rows).double()
                parts.append(self._function(inputs, inputs).diagonal())
            self._diagonal = torch.cat(parts)
        return self._diagonal

    def side(self, points: Tensor) -> Tensor:
        """Their inputs."""
        return self._inputs.side(points)

    def pool_side(self, start: int, stop: int) -> Tensor:
        """Inputs, without a copy."""
        return self._inputs.pool_side(start, stop)

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """The function."""
        return self._function(left, right)

    def block(self, left: Tensor, right: Tensor) -> Tensor:
        """The function of inputs in float64."""
        return self._function(self.side(left).double(), self.side(right).double())

    def scaled(self, factor: float) -> "ScaledRows":
        """A factor on what the function gives."""
        return ScaledRows(self, factor**2)


class ScaledRows(Similarity):
    """Another kernel times a constant."""

    def __init__(self, inner: Similarity, factor: float) -> None:
        self.inner, self.factor = inner, factor
        self.size, self.trained, self.device, self.dtype = inner.size, inner.trained, inner.device, inner.dtype

    def diagonal(self) -> Tensor:
        """Scaled."""
        return self.factor * self.inner.diagonal()

    def side(self, points: Tensor) -> Any:
        """The other's."""
        return self.inner.side(points)

    def pool_side(self, start: int, stop: int) -> Any:
        """The other's."""
        return self.inner.pool_side(start, stop)

    def between(self, left: Any, right: Any) -> Tensor:
        """Scaled."""
        return self.inner.between(left, right).mul_(self.factor)

    def block(self, left: Tensor, right: Tensor) -> Tensor:
        """Scaled."""
        return self.factor * self.inner.block(left, right)

    def distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Scaled: the other may know them better than by its blocks."""
        return self.factor * self.inner.distances(left, right)

    def scaled(self, factor: float) -> "ScaledRows":
        """Factors multiply."""
        return ScaledRows(self.inner, self.factor * factor**2)


class ProductRows(Similarity):
    """The product of kernels on the same points: what features of both, multiplied out, would give."""

    def __init__(self, parts: list[Similarity]) -> None:
        self.parts = parts
        first = parts[0]
        self.size, self.trained, self.device, self.dtype = first.size, first.trained, first.device, first.dtype

    def diagonal(self) -> Tensor:
        """Multiplied."""
        return torch.stack([part.diagonal() for part in self.parts]).prod(0)

    def side(self, points: Tensor) -> list[Any]:
        """One of each kernel."""
        return [part.side(points) for part in self.parts]

    def pool_side(self, start: int, stop: int) -> list[Any]:
        """One of each kernel."""
        return [part.pool_side(start, stop) for part in self.parts]

    def between(self, left: list[Any], right: list[Any]) -> Tensor:
        """Multiplied."""
        sides = zip(self.parts, left, right, strict=True)
        return torch.stack([part.between(one, other) for part, one, other in sides]).prod(0)

    def block(self, left: Tensor, right: Tensor) -> Tensor:
        """Multiplied."""
        return torch.stack([part.block(left, right) for part in self.parts]).prod(0)

    def scaled(self, factor: float) -> "ProductRows":
        """The first kernel takes the factor."""
        return ProductRows([self.parts[0].scaled(factor), *self.parts[1:]])


class SumRows(ProductRows):
    """The sum of kernels on the same points, of several networks."""

    def diagonal(self) -> Tensor:
        """Added."""
        return torch.stack([part.diagonal() for part in self.parts]).sum(0)

    def between(self, left: list[Any], right: list[Any]) -> Tensor:
        """Added."""
        sides = zip(self.parts, left, right, strict=True)
        return torch.stack([part.between(one, other) for part, one, other in sides]).sum(0)

    def block(self, left: Tensor, right: Tensor) -> Tensor:
        """Added."""
        return torch.stack([part.block(left, right) for part in self.parts]).sum(0)

    def scaled(self, factor: float) -> "SumRows":
        """Every kernel takes the factor."""
        return SumRows([part.scaled(factor) for part in self.parts])


class ConditionedRows(Similarity):
    """Another kernel less the inner products of z: what is left of it once labels are known."""

    def __init__(self, inner: Similarity, explained: Tensor) -> None:  # (N + n, t) float64
        self.inner, self._explained = inner, explained
        self.size, self.trained, self.device, self.dtype = inner.size, inner.trained, inner.device, inner.dtype

    def diagonal(self) -> Tensor:
        """What rounding made negative is zero."""
        return (self.inner.diagonal() - self._explained.square().sum(1)).clamp_min(0)

    def side(self, points: Tensor) -> tuple[Any, Tensor]:
        """The other's, and z."""
        return self.inner.side(points), self._explained[points]

    def pool_side(self, start: int, stop: int) -> tuple[Any, Tensor]:
        """The other's, and z."""
        return self.inner.pool_side(start, stop), self._explained[start:stop]

    def between(self, left: tuple[Any, Tensor], right: tuple[Any, Tensor]) -> Tensor:
        """Subtracted in float64, given in the type of the input."""
        whole = self.inner.between(left[0], right[0])
        return (whole.double() - left[1] @ right[1].t()).to(self.dtype)

    def block(self, left: Tensor, right: Tensor) -> Tensor:
        """Subtracted."""
        return self.inner.block(left, right) - self._explained[left] @ self._explained[right].t()

    def scaled(self, factor: float) -> "ScaledRows":
        """A factor on the difference."""
        return ScaledRows(self, factor**2)


def as_features(similarity: Similarity, *, purpose: str) -> FeatureRows:
    """The similarity itself where it is of features; else features of its kernel by eigenvectors, for small pools.

    Raises BatchInputError above 5,000 points, naming the purpose.
    """
    if isinstance(similarity, FeatureRows):
        return similarity
    if similarity.points > LARGEST_EIGENPROBLEM:
        raise BatchInputError(
            f"{purpose} needs features: a kernel of {similarity.points:,} images is too large to be turned into them "
            f"(at most {LARGEST_EIGENPROBLEM:,}); give features, or sketch them"
        )
    everything = torch.arange(similarity.points, device=similarity.device)
    values, vectors = torch.linalg.eigh(similarity.block(everything, everything))
    kept = values > values.amax() * len(values) * torch.finfo(torch.float64).eps
    features = vectors[:, kept] * values[kept].sqrt()
    if features.shape[1] == 0:
        features = features.new_zeros(similarity.points, 1)
    return FeatureRows(features[: similarity.size], features[similarity.size :], owned=True)
