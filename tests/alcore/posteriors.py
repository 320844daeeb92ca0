"""Drawn pools and labels, and the posterior of either form on them."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from alcore.posterior import Posterior, make_posterior
from tests.alcore import reference

FORMS = ("pairwise", "frobenius")


@dataclass(frozen=True)
class Pool:
    """Features with identical, zero and rescaled rows among them, outputs, and an absolute ridge."""

    features: Tensor
    outputs: Tensor
    ridge: float

    @property
    def kernel(self) -> Tensor:
        return reference.kernel_of(self.features)

    def posterior(self, form: str, dtype: torch.dtype = torch.float64) -> Posterior:
        features, outputs = self.features.to(dtype), self.outputs.to(dtype)
        if form == "pairwise":
            return make_posterior(kernel=features @ features.t(), outputs=outputs, ridge=self.ridge)
        return make_posterior(features=features, outputs=outputs, ridge=self.ridge)

    def one_hot(self, label: int) -> Tensor:
        target = torch.zeros(self.outputs.shape[1], dtype=torch.float64)
        target[label % len(target)] = 1
        return target


@st.composite
def pools(draw, *, min_images: int = 1, max_images: int = 12, classes: int | None = None):
    images = draw(st.integers(min_images, max_images))
    width = draw(st.integers(1, 8))
    count = draw(st.integers(2, 4)) if classes is None else classes
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    features = torch.randn(images, width, generator=generator, dtype=torch.float64)
    if images > 2 and draw(st.booleans()):
        features[1] = features[0]
        features[2] = 0
    features *= draw(st.sampled_from([0.1, 1.0, 30.0]))
    mean = float(features.square().sum(1).mean())
    outputs = torch.randn(images, count, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.0, 0.5]))
    return Pool(features, outputs, draw(st.sampled_from([1e-3, 1e-1, 1.0, 10.0])) * max(mean, 1e-6))


@st.composite
def labels_for(draw, pool: Pool, *, min_size: int = 0, max_size: int = 14):
    """Labels in order; rows may come again, and there may be more of them than features."""
    rows = st.integers(0, len(pool.features) - 1)
    pairs = draw(st.lists(st.tuples(rows, st.integers(0, 3)), min_size=min_size, max_size=max_size))
    return [(row, pool.one_hot(label)) for row, label in pairs]


@st.composite
def labelled_pools(draw, *, min_labels: int = 0, max_labels: int = 14, min_images: int = 1):
    pool = draw(pools(min_images=min_images))
    return pool, draw(labels_for(pool, min_size=min_labels, max_size=max_labels))


def absorb(posterior: Posterior, labels: list[tuple[int, Tensor]]) -> None:
    """One at a time."""
    for row, target in labels:
        posterior.condition_([row], target[None])


def assert_close(found: Tensor, expected: Tensor, *, rtol: float, scale: float = 0.0) -> None:
    """Relative to the largest expected value, or to a given scale where that is larger."""
    found, expected = found.double(), expected.double()
    assert found.shape == expected.shape
    size = max(float(expected.abs().max()) if expected.numel() else 0.0, scale)
    error = float((found - expected).abs().max()) if expected.numel() else 0.0
    assert error <= rtol * size, f"error {error} at size {size}"


def assert_agrees(posterior: Posterior, pool: Pool, labels: list, pending: tuple[int, ...] = (), *, rtol: float):
    """Mean, variance, every column and the sums of squares against the slow twin."""
    mean, covariance = reference.posterior(pool.kernel, pool.outputs, labels, posterior.ridge, pending)
    prior = float(pool.kernel.diagonal().max())
    everything = range(len(mean))
    assert_close(posterior.mean, mean, rtol=rtol, scale=1.0)
    assert_close(posterior.variance(), covariance.diagonal(), rtol=rtol, scale=prior)
    assert_close(posterior.columns(list(everything)), covariance, rtol=rtol, scale=prior)
    squares = covariance.square().sum(1)
    assert_close(posterior.covariance().square_sums(), squares, rtol=rtol, scale=len(mean) * prior**2)
