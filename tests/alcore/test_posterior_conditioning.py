"""Absorbing labels, in float64 against the slow twin and its laws; float32 at a stated tolerance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.posterior import features as features_module
from alcore.posterior import model
from tests.alcore import reference
from tests.alcore.posteriors import (
    FORMS,
    Pool,
    absorb,
    assert_agrees,
    assert_close,
    labelled_pools,
    pools,
)

EXACT = 1e-8
FLOAT32 = 1e-4  # of the prior, or its largest entry's rounding against the ridge where that is more


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=60)
@given(labelled_pools())
def test_labels_one_at_a_time_agree_with_solving_from_scratch(form, drawn):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    assert_agrees(posterior, pool, labels, rtol=EXACT)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=60)
@given(labelled_pools(min_labels=1), st.data())
def test_labels_in_blocks_agree_with_one_at_a_time(form, drawn, data):
    pool, labels = drawn
    cut = data.draw(st.integers(0, len(labels)))
    posterior = pool.posterior(form)
    for block in (labels[:cut], labels[cut:]):
        targets = torch.stack([target for _, target in block]) if block else torch.zeros(0, pool.outputs.shape[1])
        posterior.condition_([row for row, _ in block], targets)
    assert_agrees(posterior, pool, labels, rtol=EXACT)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(min_labels=1), st.data())
def test_a_block_while_images_are_pending_agrees_with_solving_from_scratch(form, drawn, data):
    pool, labels = drawn
    cut = data.draw(st.integers(0, len(labels)))
    out = data.draw(st.lists(st.integers(0, len(pool.outputs) - 1), unique=True, max_size=6))
    posterior = pool.posterior(form)
    absorb(posterior, labels[:cut])
    posterior.pend_(*out)
    block = labels[cut:]
    if block:
        posterior.condition_([row for row, _ in block], torch.stack([target for _, target in block]))
    pending = [row for row in out if row not in {row for row, _ in block}]
    assert posterior.pending == tuple(pending)
    assert_agrees(posterior, pool, labels, tuple(pending), rtol=EXACT)
    posterior.cancel_(*pending)
    assert_agrees(posterior, pool, labels, rtol=EXACT)


def test_blocks_in_float32_round_no_more_than_one_label_at_a_time(monkeypatch):
    monkeypatch.setattr(model, "DRIFT_INTERVAL", 10_000)  # nothing is repaired on the way
    generator = torch.Generator().manual_seed(3)
    pool = Pool(torch.randn(600, 24, generator=generator, dtype=torch.float64), torch.zeros(600, 3), 0.5)
    drifts = []
    for few in (features_module.FEW_LABELS, 1000):
        monkeypatch.setattr(features_module, "FEW_LABELS", few)
        posterior = pool.posterior("frobenius", torch.float32)
        posterior.pend_(590, 591, 592)
        for start in range(0, 160, 16):
            posterior.condition_(range(start, start + 16), torch.eye(3)[torch.arange(16) % 3])
        held = posterior.columns([590, 591, 592])
        posterior.cancel_(590, 591, 592)
        posterior.pend_(590, 591, 592)
        assert_close(held, posterior.columns([590, 591, 592]), rtol=FLOAT32, scale=posterior.ridge)
        drifts.append(posterior.drift())
    assert drifts[0] <= drifts[1]


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(min_labels=2), st.data())
def test_the_order_of_labels_leaves_no_trace(form, drawn, data):
    pool, labels = drawn
    posterior, other = pool.posterior(form), pool.posterior(form)
    absorb(posterior, labels)
    absorb(other, data.draw(st.permutations(labels)))
    assert_close(posterior.mean, other.mean, rtol=1e-6, scale=1.0)
    assert_close(posterior.variance(), other.variance(), rtol=1e-6, scale=posterior.ridge)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools())
def test_variance_never_grows_with_a_label_and_is_never_negative(form, drawn):
    pool, labels = drawn
    posterior = pool.posterior(form)
    slack = 1e-9 * float(pool.kernel.diagonal().max())
    for row, target in labels:
        before = posterior.variance()
        posterior.condition_([row], target[None])
        assert bool((posterior.variance() <= before + slack).all())
        assert bool((posterior.variance() >= 0).all())


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(), st.data())
def test_float32_agrees_with_float64_at_the_stated_tolerance(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form, torch.float32)
    absorb(posterior, labels)
    pending = data.draw(st.integers(0, len(pool.outputs) - 1))
    posterior.pend_(pending)
    assert posterior.mean.dtype == posterior.variance().dtype == torch.float32
    rounding = torch.finfo(torch.float32).eps * float(pool.kernel.diagonal().max()) / pool.ridge
    assert_agrees(posterior, pool, labels, (pending,), rtol=max(FLOAT32, rounding))


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=60)
@given(labelled_pools(), st.data())
def test_pending_images_shrink_the_covariance_and_wait_for_the_mean(form, drawn, data):
    pool, labels = drawn
    rows = data.draw(st.lists(st.integers(0, len(pool.outputs) - 1), unique=True, min_size=1, max_size=4))
    when = data.draw(st.integers(0, len(labels)))
    posterior = pool.posterior(form)
    absorb(posterior, labels[:when])
    for row in rows:
        posterior.pend_(row)
    absorb(posterior, labels[when:])
    answered = {row for row, _ in labels[when:]}
    left = tuple(row for row in rows if row not in answered)
    assert posterior.pending == left
    assert_agrees(posterior, pool, labels, left, rtol=EXACT)
    _, covariance = reference.posterior(pool.kernel, pool.outputs, labels, pool.ridge)
    prior = float(pool.kernel.diagonal().max())
    assert_close(posterior.answer_variance(), covariance.diagonal(), rtol=EXACT, scale=prior)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(min_images=2), st.data())
def test_a_cancelled_pending_image_leaves_no_trace_at_all(form, drawn, data):
    pool, labels = drawn
    posterior, plain = pool.posterior(form), pool.posterior(form)
    row = data.draw(st.integers(0, len(pool.outputs) - 1))
    labels = [(labelled, target) for labelled, target in labels if labelled != row]
    posterior.pend_(row)
    absorb(posterior, labels)
    absorb(plain, labels)
    posterior.cancel_(row)
    assert posterior.pending == ()
    assert torch.equal(posterior.mean, plain.mean)
    assert torch.equal(posterior.variance(), plain.variance())


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(), st.data())
def test_a_fantasy_is_the_mean_that_the_label_then_gives(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    row = data.draw(st.integers(0, len(pool.outputs) - 1))
    if data.draw(st.booleans()):
        posterior.pend_(row)
    target = pool.one_hot(data.draw(st.integers(0, 3)))
    before = posterior.mean.clone()
    fantasy = posterior.fantasy_mean(row, target)
    assert torch.equal(posterior.mean, before)
    posterior.condition_([row], target[None])
    assert_close(fantasy, posterior.mean, rtol=EXACT, scale=1.0)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_another_ridge_is_a_posterior_made_with_it_pendings_kept(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    row = data.draw(st.integers(0, len(pool.outputs) - 1))
    posterior.pend_(row)
    posterior.set_ridge_(pool.ridge * 7)
    assert_agrees(posterior, Pool(pool.features, pool.outputs, pool.ridge * 7), labels, (row,), rtol=EXACT)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_a_ridge_chosen_before_the_labels_counts_for_them(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    row = data.draw(st.integers(0, len(pool.outputs) - 1))
    posterior.pend_(row)
    posterior.set_ridge_(pool.ridge * 7)
    posterior.cancel_(row)
    absorb(posterior, labels)
    posterior.pend_(row)
    assert_agrees(posterior, Pool(pool.features, pool.outputs, pool.ridge * 7), labels, (row,), rtol=EXACT)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=20)
@given(pools(min_images=2), st.integers(0, 2**31))
def test_a_block_of_many_votes_on_few_images_is_rebuilt_and_right(form, pool, seed):
    generator = torch.Generator().manual_seed(seed)
    count = model.BLOCK_LABELS + 5
    rows = torch.randint(len(pool.outputs), (count,), generator=generator).tolist()
    labels = [(row, pool.one_hot(place)) for place, row in enumerate(rows)]
    posterior = pool.posterior(form)
    posterior.pend_(0)
    posterior.condition_(rows, torch.stack([target for _, target in labels]))
    assert_agrees(posterior, pool, labels, () if 0 in rows else (0,), rtol=EXACT)
    assert sum(len(votes) for votes in posterior.votes.values()) == count


@pytest.mark.parametrize("form", FORMS)
def test_long_sequences_in_float32_are_rebuilt_and_do_not_drift(form, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(300, 40, generator=generator, dtype=torch.float64) / 40**0.5
    pool = Pool(features, torch.zeros(300, 3, dtype=torch.float64), 1e-2)
    posterior = pool.posterior(form, torch.float32)
    rebuilds = []
    original = posterior.refactor_
    monkeypatch.setattr(posterior, "refactor_", lambda: (rebuilds.append(1), original()))
    labels = [(int(row), pool.one_hot(int(row))) for row in torch.randperm(300, generator=generator)[:290]]
    absorb(posterior, labels)
    assert rebuilds == [1], "once: pairwise at 256 labels, features where the drift of q asks for it"
    assert posterior.drift() < model.DRIFT_LIMIT
    assert_agrees(posterior, pool, labels, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_drift_is_seen_and_repaired(form):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(60, 10, generator=generator, dtype=torch.float64)
    pool = Pool(features, torch.zeros(60, 3, dtype=torch.float64), 1.0)
    posterior = pool.posterior(form)
    labels = [(row, pool.one_hot(row)) for row in range(31)]
    absorb(posterior, labels)
    posterior.mean += 0.01
    assert posterior.drift() == pytest.approx(0.01, rel=1e-6)
    labels.append((40, pool.one_hot(1)))
    posterior.condition_([40], labels[-1][1][None])
    assert_agrees(posterior, pool, labels, rtol=EXACT)


def test_every_part_of_a_pool_of_features_is_brought_up_to_date_in_turn():
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(601, 20, generator=generator, dtype=torch.float64)
    pool = Pool(features, torch.zeros(601, 3, dtype=torch.float64), 1.0)
    posterior = pool.posterior("frobenius")
    spoiled = torch.ones(601, dtype=torch.bool)
    spoiled[posterior.probes] = False  # where the look at the drift would see it
    posterior._variance[spoiled] += 0.5
    posterior._square_sums[spoiled] += 0.5
    posterior.mean[spoiled] += 0.5
    labels = [(row, pool.one_hot(row)) for row in range(model.REFACTOR_LABELS)]
    absorb(posterior, labels[: -model.DRIFT_INTERVAL])
    with pytest.raises(AssertionError):
        assert_agrees(posterior, pool, labels[: -model.DRIFT_INTERVAL], rtol=EXACT)
    absorb(posterior, labels[-model.DRIFT_INTERVAL :])
    assert_agrees(posterior, pool, labels, rtol=EXACT)


def test_the_drift_of_the_sums_of_squares_and_of_the_variance_is_seen():
    generator = torch.Generator().manual_seed(5)
    pool = Pool(torch.randn(40, 6, generator=generator).double(), torch.zeros(40, 2).double(), 1.0)
    for array in ("_square_sums", "_variance"):
        posterior = pool.posterior("frobenius")
        posterior.condition_([3], pool.one_hot(1)[None])
        getattr(posterior, array).mul_(1.1)
        assert posterior.drift() > 1e-2
    pairwise = pool.posterior("pairwise")
    pairwise.condition_([3], pool.one_hot(1)[None])
    pairwise._covariance.mul_(1.1)
    assert pairwise.drift() > 1e-2


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(labelled_pools(min_labels=1))
def test_leave_one_out_residuals_agree_with_fitting_again_without_each_image(form, drawn):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    rows, residuals = posterior.leave_one_out()
    assert rows == sorted({row for row, _ in labels})
    for row, residual in zip(rows, residuals, strict=True):
        own = torch.stack([target for labelled, target in labels if labelled == row]).mean(0)
        others = [(labelled, target) for labelled, target in labels if labelled != row]
        mean, _ = reference.posterior(pool.kernel, pool.outputs, others, pool.ridge)
        assert_close(residual, own - mean[row], rtol=1e-7, scale=1.0)


def test_a_pool_with_many_images_for_each_feature_is_rebuilt_with_one_product_and_right():
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(features_module.TURNED_RATIO * 3 + 1, 3, generator=generator).double()
    pool = Pool(features, torch.zeros(len(features), 2).double(), 0.5)
    posterior = pool.posterior("frobenius")
    labels = [(row, pool.one_hot(row)) for row in range(9)]
    posterior.pend_(40)
    absorb(posterior, labels[:5])
    posterior.refactor_()
    off_diagonal = posterior._factored_gram - torch.diag(posterior._factored_gram.diagonal())
    assert float(off_diagonal.abs().max()) == 0
    absorb(posterior, labels[5:])
    assert_agrees(posterior, pool, labels, (40,), rtol=EXACT)


def test_columns_are_held_for_pending_images_and_for_no_others():
    pool = Pool(torch.eye(6).double(), torch.zeros(6, 2).double(), 1.0)
    posterior = pool.posterior("frobenius")
    posterior.pend_(1)
    posterior.pend_(2)
    posterior.pend_(3)
    posterior.condition_([2, 4, 5], pool.one_hot(0).expand(3, 2))
    posterior.forget_(4, pool.one_hot(0))
    posterior.cancel_(3)
    assert posterior._held.rows == [1] == list(posterior.pending)


@pytest.mark.parametrize("form", FORMS)
def test_leave_one_out_without_labels_is_empty(form):
    posterior = Pool(torch.ones(3, 2).double(), torch.zeros(3, 2).double(), 1.0).posterior(form)
    rows, residuals = posterior.leave_one_out()
    assert rows == []
    assert residuals.shape == (0, 2)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_the_covariance_among_a_few_images_is_that_of_their_columns(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    rows = data.draw(st.lists(st.integers(0, posterior.size - 1), min_size=1, unique=True))
    assert_close(posterior.answer_block(rows), posterior.answer_columns(rows)[rows], rtol=EXACT, scale=posterior.ridge)
