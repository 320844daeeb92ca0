"""The full kernel's posterior against its slow twin, its laws, and the pairwise posterior it must agree with."""

import copy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.acquisition.lookahead import look_ahead_scores
from alcore.posterior import (
    FullPosterior,
    LabelNotAbsorbedError,
    NonFiniteError,
    PoolError,
    RidgeError,
    RowError,
    TargetError,
    make_posterior,
)
from tests.alcore import reference, reference_full
from tests.alcore.posteriors import assert_close, labelled_pools


@dataclass(frozen=True)
class Drawn:
    kernel: torch.Tensor
    outputs: torch.Tensor
    ridge: float
    labels: list

    def posterior(self, labels=None):
        posterior = FullPosterior(self.kernel, self.outputs, ridge=self.ridge)
        for row, target in self.labels if labels is None else labels:
            posterior.condition_([row], target[None])
        return posterior


@st.composite
def problems(draw, min_labels=0):
    images, classes = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    features = torch.randn(images * classes, draw(st.integers(1, 9)), generator=generator).double()
    outputs = torch.randn(images, classes, generator=generator).double() * draw(st.sampled_from([0.0, 0.5]))
    pairs = st.tuples(st.integers(0, images - 1), st.integers(0, classes - 1))
    labels = [
        (row, torch.eye(classes).double()[k]) for row, k in draw(st.lists(pairs, min_size=min_labels, max_size=6))
    ]
    return Drawn(features @ features.T, outputs, draw(st.sampled_from([1e-2, 1.0, 30.0])), labels)


def covariance_of(posterior):
    side = posterior.size * posterior.classes
    return posterior.columns(range(posterior.size)).reshape(side, side)


def assert_same(one, other, *, rtol=1e-9):
    assert_close(one.mean, other.mean, rtol=rtol, scale=1.0)
    assert_close(covariance_of(one), covariance_of(other), rtol=rtol, scale=float(one.kernel.abs().max()))


@settings(deadline=None, max_examples=60)
@given(problems(), st.data())
def test_mean_covariance_and_look_ahead_follow_their_definitions(drawn, data):
    posterior = drawn.posterior()
    pending = data.draw(st.lists(st.integers(0, posterior.size - 1), unique=True, max_size=2))
    for row in pending:
        posterior.pend_(row)
    mean, covariance = reference_full.full_posterior(drawn.kernel, drawn.outputs, drawn.labels, drawn.ridge, pending)
    scale = float(drawn.kernel.abs().max())
    assert_close(posterior.mean, mean, rtol=1e-9, scale=1.0)
    assert_close(covariance_of(posterior), covariance, rtol=1e-9, scale=scale)
    for row in range(posterior.size):
        block = slice(row * posterior.classes, (row + 1) * posterior.classes)
        assert_close(posterior.variance()[row], covariance[block, block], rtol=1e-9, scale=scale)
        target = reference.likely_label(mean, row)
        change = reference_full.full_change(mean, covariance, drawn.ridge, row, target)
        assert_close(posterior.look_ahead_change(row), change, rtol=1e-8, scale=1.0)
    everything = torch.ones(posterior.size, dtype=torch.bool)
    for form, before in (("linear", mean), ("network", drawn.outputs)):
        scores = posterior.look_ahead_scores(everything, form)
        for row in range(posterior.size):
            after = mean + posterior.look_ahead_change(row)
            assert float(scores[row]) == pytest.approx(float((after - before).norm(dim=1).sum()), abs=1e-8)


@settings(deadline=None, max_examples=40)
@given(labelled_pools(), st.data())
def test_with_one_kernel_for_every_class_it_is_the_pairwise_posterior(drawn, data):
    pool, labels = drawn
    classes = pool.outputs.shape[1]
    whole = FullPosterior(torch.kron(pool.kernel, torch.eye(classes).double()), pool.outputs, ridge=pool.ridge)
    pairwise = make_posterior(kernel=pool.kernel, outputs=pool.outputs, ridge=pool.ridge)
    for posterior in (whole, pairwise):
        for row, target in labels:
            posterior.condition_([row], target[None])
    assert_close(whole.mean, pairwise.mean, rtol=1e-6, scale=1.0)
    expected = pairwise.variance()[:, None, None] * torch.eye(classes).double()
    assert_close(whole.variance(), expected, rtol=1e-6, scale=float(pool.kernel.max()))
    mean, covariance = reference.posterior(pool.kernel, pool.outputs, labels, pool.ridge)
    row = data.draw(st.integers(0, whole.size - 1))
    change = reference.look_ahead_change(mean, covariance, pool.ridge, row)
    assert_close(whole.change(row, reference.likely_label(mean, row)), change, rtol=1e-6, scale=1.0)


def test_its_scores_are_the_pairwise_ones_where_the_kernels_agree():
    generator = torch.Generator().manual_seed(0)
    features, outputs = torch.randn(9, 4, generator=generator).double(), torch.randn(9, 3, generator=generator).double()
    kernel = features @ features.T
    whole = FullPosterior(torch.kron(kernel, torch.eye(3).double()), outputs, ridge=0.5)
    pairwise = make_posterior(kernel=kernel, outputs=outputs, ridge=0.5)
    candidates = torch.tensor([True] * 8 + [False])
    for posterior in (whole, pairwise):
        posterior.condition_([8], torch.tensor([[0.0, 1.0, 0.0]]).double())
        posterior.pend_(0)
    for form in ("linear", "network"):
        found = whole.look_ahead_scores(candidates, form)
        torch.testing.assert_close(found, look_ahead_scores(pairwise, candidates, form), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(problems(min_labels=1), st.randoms())
def test_neither_order_nor_blocks_matter_and_forgetting_leaves_no_trace(drawn, random):
    posterior = drawn.posterior()
    shuffled = list(drawn.labels)
    random.shuffle(shuffled)
    assert_same(drawn.posterior(shuffled), posterior)
    block = drawn.posterior([])
    block.condition_([row for row, _ in drawn.labels], torch.stack([target for _, target in drawn.labels]))
    assert_same(block, posterior)
    gone = random.choice(drawn.labels)
    posterior.forget_(*gone)
    left = list(drawn.labels)
    left.pop(max(place for place, (row, y) in enumerate(left) if row == gone[0] and torch.equal(y, gone[1])))
    assert_same(posterior, drawn.posterior(left))


@settings(deadline=None, max_examples=30)
@given(problems(min_labels=1))
def test_variance_never_grows_and_a_fantasy_is_what_the_label_does(drawn):
    posterior = drawn.posterior(drawn.labels[:-1])
    row, target = drawn.labels[-1]
    before, mean, change = covariance_of(posterior), posterior.mean.clone(), posterior.change(row, target)
    posterior.condition_([row], target[None])
    assert_close(posterior.mean, mean + change, rtol=1e-8, scale=1.0)
    shrunk = before - covariance_of(posterior)
    assert float(torch.linalg.eigvalsh((shrunk + shrunk.T) / 2).min()) >= -1e-8 * float(drawn.kernel.abs().max())


def test_a_corrected_label_a_new_ridge_and_a_cancelled_lease_equal_a_fresh_start():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(8, 5, generator=generator).double()
    first, second = torch.eye(2).double()
    drawn = Drawn(features @ features.T, torch.zeros(4, 2).double(), 0.3, [(0, first), (2, second), (2, first)])
    posterior = drawn.posterior()
    posterior.relabel_(2, second, first)
    posterior.pend_(1)
    posterior.pend_(1)
    assert posterior.pending == (1,)
    posterior.cancel_(1)
    posterior.set_ridge_(0.7)
    fresh = Drawn(drawn.kernel, drawn.outputs, 0.7, [(0, first), (2, first), (2, first)]).posterior()
    assert_same(posterior, fresh)
    posterior.pend_(3)
    posterior.condition_([3], second[None])
    fresh.condition_([3], second[None])
    assert posterior.pending == ()
    assert_same(posterior, fresh)


def test_wrong_input_is_refused_and_changes_nothing():
    outputs = torch.zeros(3, 2).double()
    posterior = FullPosterior(torch.eye(6).double(), outputs, ridge=1.0)
    posterior.condition_([0], torch.tensor([[1.0, 0.0]]).double())
    before = copy.deepcopy(posterior)
    for error, words, call in (
        (RowError, "row 3", lambda: posterior.condition_([3], torch.zeros(1, 2))),
        (TargetError, r"\(1, 2\)", lambda: posterior.condition_([1], torch.zeros(1, 3))),
        (NonFiniteError, "nan", lambda: posterior.condition_([1], torch.full((1, 2), torch.nan))),
        (LabelNotAbsorbedError, "row 1 has no label", lambda: posterior.forget_(1, torch.zeros(2))),
        (RowError, "not pending", lambda: posterior.cancel_(2)),
        (RowError, "3 truth values", lambda: posterior.look_ahead_scores(torch.ones(3))),
        (ValueError, "'flips'", lambda: posterior.look_ahead_scores(torch.ones(3, dtype=torch.bool), "flips")),
        (RidgeError, "-1", lambda: posterior.set_ridge_(-1)),
        (PoolError, "6 rows", lambda: FullPosterior(torch.eye(3).double(), outputs, ridge=1.0)),
        (NonFiniteError, "inf", lambda: FullPosterior(torch.full((6, 6), torch.inf), outputs, ridge=1.0)),
    ):
        with pytest.raises(error, match=words):
            call()
    assert_same(posterior, before, rtol=0)
