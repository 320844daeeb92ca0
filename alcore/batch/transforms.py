"""Transforms of a kernel before images are selected with it, applied in the order they are given.

Source of all: Holzmueller et al. 2023, arXiv 2203.09410.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from alcore.batch.errors import TransformError
from alcore.batch.posterior import conditioned, conditioned_features
from alcore.batch.similarity import FeatureRows, ProductRows, ScaledRows, Similarity, SumRows, as_features, blocks

KnownImages = Literal["train", "pool"]
Draw = Callable[[int, int], Tensor]  # standard normal numbers (rows, columns), float64, the same on every machine


@dataclass(frozen=True)
class Scale:
    """Features times `factor`; by default what makes the mean of k(x, x) over the training images 1.

    Without training images the pool's mean counts. Raises TransformError.
    """

    factor: float | None = None

    def __post_init__(self) -> None:
        if self.factor is not None:
            _check_positive("scale", "factor", self.factor)

    def apply(self, similarity: Similarity, draw: Draw) -> Similarity:  # noqa: ARG002
        """A constant factor."""
        if self.factor is not None:
            return similarity.scaled(self.factor)
        diagonal = similarity.diagonal()
        mean = float(diagonal[similarity.size if similarity.trained else 0 :].mean())
        if not mean > 0:
            raise TransformError("scale: the kernel's diagonal is zero for all images that the scale is taken from")
        return similarity.scaled(mean**-0.5)


@dataclass(frozen=True)
class Sketch:
    """`size` Gaussian random features, whose inner products are unbiased for the kernel.

    As the first transform of a network's gradients it is the layer-by-layer sketch of alcore.sketch. A product of
    kernels is sketched factor by factor. Raises TransformError, and BatchInputError for a large kernel without
    features.
    """

    size: int = 512

    def __post_init__(self) -> None:
        _check_size("sketch", self.size)

    def apply(self, similarity: Similarity, draw: Draw) -> FeatureRows:
        """By kind: sums are added, products multiplied."""
        if isinstance(similarity, SumRows):
            parts = [self.apply(part, draw) for part in similarity.parts]
            return _combined(parts, lambda one, other: one.add_(other))
        if isinstance(similarity, ProductRows):
            parts = [self.apply(part, draw) for part in similarity.parts]
            root = float(self.size**0.5)
            return _combined(parts, lambda one, other: one.mul_(other).mul_(root))
        if isinstance(similarity, ScaledRows):
            return self.apply(similarity.inner, draw).scaled(similarity.factor**0.5)
        rows = as_features(similarity, purpose="sketch")
        return rows.mapped(draw(rows.width, self.size) / self.size**0.5)


@dataclass(frozen=True)
class Posterior:
    """The covariance once the labels of the training images, or of the whole pool, are known with noise `sigma`.

    Raises TransformError.
    """

    of: KnownImages = "train"
    sigma: float = 0.1

    def __post_init__(self) -> None:
        if self.of not in get_args(KnownImages):
            raise TransformError(f"posterior: of is train or pool, got {self.of!r}")
        _check_positive("posterior", "sigma", self.sigma)

    def apply(self, similarity: Similarity, draw: Draw) -> Similarity:  # noqa: ARG002
        """Without such images nothing changes."""
        size = similarity.size
        first, last = (size, similarity.points) if self.of == "train" else (0, size)
        return conditioned(similarity, torch.arange(first, last, device=similarity.device), noise=self.sigma)


@dataclass(frozen=True)
class AcsGradient:
    """k(x, x') k_post(x, x') / sigma^4: gradients of the expected log likelihoods under the posterior.

    Raises TransformError. Source: Pinsler et al. 2019, arXiv 1908.02144.
    """

    sigma: float = 0.1

    def __post_init__(self) -> None:
        _check_positive("acs_gradient", "sigma", self.sigma)

    def apply(self, similarity: Similarity, draw: Draw) -> ProductRows:  # noqa: ARG002
        """A product; sketch it for methods that need features."""
        if isinstance(similarity, FeatureRows):
            similarity = FeatureRows(similarity.pool, similarity.train)  # the posterior must not be made in its place
        known = conditioned(similarity, _trained(similarity), noise=self.sigma)
        return ProductRows([similarity, known]).scaled(self.sigma**-2)


@dataclass(frozen=True)
class AcsRandomFeatures:
    """`size` samples of expected log likelihoods, log(1 + k_post / sigma^2) / 2 - (z^2 + k_post) / (2 sigma^2).

    Entropies are added. z = phi^T theta for theta drawn from the posterior, centred; all over sqrt(size). Raises
    TransformError, and BatchInputError for a large kernel without features.
    Source: Pinsler et al. 2019, arXiv 1908.02144, with theta's covariance sigma^2 (...)^-1.
    """

    size: int = 512
    sigma: float = 0.1

    def __post_init__(self) -> None:
        _check_size("acs_random_features", self.size)
        _check_positive("acs_random_features", "sigma", self.sigma)

    def apply(self, similarity: Similarity, draw: Draw) -> FeatureRows:
        """Features of the posterior first: k_post is their squared norm, z their product with normal numbers."""
        rows = as_features(similarity, purpose="acs_random_features")
        known = conditioned_features(rows, _trained(rows), noise=self.sigma)
        variances = known.diagonal() / self.sigma**2
        sampled = known.mapped(draw(known.width, self.size) / self.sigma)
        start = 0
        for part in (sampled.pool, sampled.train):
            for first, last in blocks(len(part)):
                variance = variances[start + first : start + last, None].to(part)
                block = part[first:last].square_().add_(variance).mul_(-0.5).add_(variance.log1p() / 2)
                part[first:last] = block / self.size**0.5
            start += len(part)
        return sampled


@dataclass(frozen=True)
class Ensemble:
    """The sum of the kernels of several networks: their features side by side."""

    def join(self, similarities: Sequence[Similarity]) -> Similarity:
        """One similarity of all."""
        rows = [each for each in similarities if isinstance(each, FeatureRows)]
        if len(rows) < len(similarities):
            return SumRows(list(similarities))
        return FeatureRows(
            torch.cat([each.pool for each in rows], 1), torch.cat([each.train for each in rows], 1), owned=True
        )


Transform = Scale | Sketch | Posterior | AcsGradient | AcsRandomFeatures | Ensemble
TRANSFORMS: Mapping[str, type[Transform]] = {
    "scale": Scale,
    "sketch": Sketch,
    "posterior": Posterior,
    "acs_gradient": AcsGradient,
    "acs_random_features": AcsRandomFeatures,
    "ensemble": Ensemble,
}


def make_transform(name: str, options: Mapping[str, object] | None = None) -> Transform:
    """A transform by its name and options, as a setting or a request holds them. Raises TransformError."""
    if name not in TRANSFORMS:
        raise TransformError(f"there is no transform {name!r}; there are {', '.join(TRANSFORMS)}")
    made = TRANSFORMS[name]
    known = [each.name for each in fields(made)]
    if unknown := sorted(set(options or {}) - set(known)):
        raise TransformError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    return made(**(options or {}))  # type: ignore[arg-type]  # each checks its own values


def apply_transforms(similarities: Sequence[Similarity], transforms: Sequence[Transform], *, seed: int) -> Similarity:
    """All transforms in their order, on each network's kernel until Ensemble joins them. Raises TransformError."""
    held = list(similarities)
    for place, transform in enumerate(transforms):
        if isinstance(transform, Ensemble):
            held = [transform.join(held)]
            continue
        if not isinstance(transform, Transform):
            raise TransformError(f"{transform!r} is no transform; make_transform makes one from a name")
        held = [each_apply(transform, each, seed=seed, place=place, of=of) for of, each in enumerate(held)]
    if len(held) != 1:
        raise TransformError(f"the kernels of {len(held)} networks need an Ensemble transform that joins them")
    return held[0]


def each_apply(
    transform: Scale | Sketch | Posterior | AcsGradient | AcsRandomFeatures,
    similarity: Similarity,
    *,
    seed: int,
    place: int,
    of: int,
) -> Similarity:
    """One transform of one network's kernel, with random numbers of its own."""
    numbers = np.random.Generator(np.random.Philox(key=[seed % 2**64, place * 2**32 + of]))
    return transform.apply(similarity, lambda rows, columns: torch.from_numpy(numbers.standard_normal((rows, columns))))


def _trained(similarity: Similarity) -> Tensor:
    return torch.arange(similarity.size, similarity.points, device=similarity.device)


def _combined(parts: list[FeatureRows], combine: Callable[[Tensor, Tensor], Tensor]) -> FeatureRows:
    pool, train = parts[0].pool, parts[0].train
    for part in parts[1:]:
        pool, train = combine(pool, part.pool), combine(train, part.train)
    return FeatureRows(pool, train, owned=True)


def _check_positive(name: str, option: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise TransformError(f"{name}: {option} is a positive number, got {value!r}")


def _check_size(name: str, size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise TransformError(f"{name}: size is a whole number of at least 1, got {size!r}")
