"""Forgetting, relabelling and votes are exact, and what was undone leaves no trace."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.posterior import LabelNotAbsorbedError
from tests.alcore import reference
from tests.alcore.posteriors import FORMS, Pool, absorb, assert_agrees, assert_close, labelled_pools

EXACT = 1e-7


def spread_pool(classes: int = 3) -> Pool:
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(80, 30, generator=generator, dtype=torch.float64)
    features /= features.square().sum(1).mean().sqrt()
    return Pool(features, torch.randn(80, classes, generator=generator, dtype=torch.float64) * 0.3, 0.1)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=80)
@given(labelled_pools(min_labels=1), st.data())
def test_forgetting_any_label_is_never_having_had_it(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    pending = data.draw(st.integers(0, len(pool.outputs) - 1))
    posterior.pend_(pending)
    while labels and data.draw(st.booleans()):
        row, target = labels.pop(data.draw(st.integers(0, len(labels) - 1)))
        posterior.forget_(row, target)
    assert_agrees(posterior, pool, labels, (pending,), rtol=EXACT)
    assert sum(len(votes) for votes in posterior.votes.values()) == len(labels)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_undoing_the_newest_label_gives_the_numbers_from_before(form, dtype):
    pool = spread_pool()
    posterior = pool.posterior(form, dtype)
    posterior.condition_([1, 2, 3], torch.eye(3))
    posterior.pend_(5)
    posterior.pend_(9)
    mean, variance, squares = posterior.mean.clone(), posterior.variance(), posterior.covariance().square_sums()
    posterior.condition_([5], pool.one_hot(2)[None])
    assert float((posterior.mean - mean).abs().max()) > 0.1
    posterior.forget_(5, pool.one_hot(2))
    posterior.pend_(5)
    exact = 4 * torch.finfo(dtype).eps
    assert_close(posterior.mean, mean, rtol=exact, scale=1.0)
    assert_close(posterior.variance(), variance, rtol=8 * exact, scale=1.0)
    assert_close(posterior.covariance().square_sums(), squares, rtol=20 * exact)


@pytest.mark.parametrize("form", FORMS)
def test_undoing_an_older_label_in_float32_moves_no_prediction_by_more_than_a_millionth(form):
    pool = spread_pool()
    posterior, plain = pool.posterior(form, torch.float32), pool.posterior(form, torch.float32)
    for row in range(20):
        target = pool.one_hot(row)[None]
        posterior.condition_([row], target)
        if row != 4:
            plain.condition_([row], target)
    posterior.forget_(4, pool.one_hot(4))
    assert float((posterior.mean - plain.mean).abs().max()) < 2e-6
    assert float((posterior.variance() - plain.variance()).abs().max()) < 2e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [0, 40, 68, 69])
def test_predictions_before_a_label_and_after_its_undo_agree_to_a_millionth_whichever_label_it_was(form, place):
    generator = torch.Generator().manual_seed(9)
    scales = torch.arange(1, 129, dtype=torch.float64) ** -0.5
    features = torch.randn(2000, 128, generator=generator, dtype=torch.float64) * scales
    features = (features / features.square().sum(1).mean().sqrt()).float().double()
    pool = Pool(features, torch.zeros(2000, 10, dtype=torch.float64), 0.1)
    labels = [(int(row), pool.one_hot(int(row) % 10)) for row in torch.randperm(2000, generator=generator)[:70]]
    undone = labels.pop(place)
    posterior = pool.posterior(form, torch.float32)
    absorb(posterior, labels[:place])
    before = posterior.mean.clone()
    absorb(posterior, [undone, *labels[place:]])
    posterior.forget_(*undone)
    kernel = posterior.kernel.double() if form == "pairwise" else pool.kernel  # as the posterior was given it
    without, _ = reference.posterior(kernel, pool.outputs, labels, pool.ridge)
    assert_close(posterior.mean, without, rtol=1e-6, scale=1.0)
    for row, target in reversed(labels[place:]):
        posterior.forget_(row, target)
    assert_close(posterior.mean, before, rtol=1e-6, scale=1.0)


@pytest.mark.parametrize("form", FORMS)
def test_a_label_undone_twice_is_refused_the_second_time(form):
    posterior = spread_pool().posterior(form)
    target = torch.eye(3)[1].double()
    posterior.condition_([4], target[None])
    posterior.forget_(4, target)
    assert posterior.votes == {}
    with pytest.raises(LabelNotAbsorbedError, match="row 4"):
        posterior.forget_(4, target)


@pytest.mark.parametrize("form", FORMS)
def test_a_label_under_another_class_is_not_the_one_to_forget(form):
    posterior = spread_pool().posterior(form)
    posterior.condition_([4], torch.eye(3)[[1]])
    before = posterior.mean.clone()
    with pytest.raises(LabelNotAbsorbedError, match=r"0\.0, 1\.0, 0\.0"):
        posterior.forget_(4, torch.eye(3)[2])
    with pytest.raises(LabelNotAbsorbedError):
        posterior.relabel_(4, torch.eye(3)[2], torch.eye(3)[0])
    assert torch.equal(posterior.mean, before)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=60)
@given(labelled_pools(min_labels=1), st.data())
def test_a_corrected_label_is_as_if_it_had_come_right(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    place = data.draw(st.integers(0, len(labels) - 1))
    row, old = labels[place]
    new = pool.one_hot(data.draw(st.integers(0, 3)))
    posterior.relabel_(row, old, new)
    labels[place] = (row, new)
    assert_agrees(posterior, pool, labels, rtol=EXACT)
    posterior.refactor_()
    assert_agrees(posterior, pool, labels, rtol=EXACT)


@pytest.mark.parametrize("form", FORMS)
def test_after_a_correction_the_newest_label_is_still_forgotten_rightly(form):
    pool = spread_pool()
    posterior = pool.posterior(form)
    posterior.condition_([4], pool.one_hot(0)[None])
    posterior.relabel_(4, pool.one_hot(0), pool.one_hot(1))
    posterior.forget_(4, pool.one_hot(1))
    assert_agrees(posterior, pool, [], rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_one_of_two_equal_votes_that_came_together_is_taken_back_alone(form):
    pool = spread_pool()
    posterior = pool.posterior(form)
    posterior.condition_([4, 4], torch.stack([pool.one_hot(1)] * 2))
    posterior.forget_(4, pool.one_hot(1))
    assert_agrees(posterior, pool, [(4, pool.one_hot(1))], rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_votes_equal_their_mean_with_the_noise_divided(form):
    pool = spread_pool()
    several, mean_vote = pool.posterior(form), Pool(pool.features, pool.outputs, 0.1 / 3).posterior(form)
    votes = torch.stack([pool.one_hot(label) for label in (0, 0, 2)])
    several.condition_([6, 6, 6], votes)
    mean_vote.condition_([6], votes.mean(0, keepdim=True))
    assert_close(several.mean, mean_vote.mean, rtol=1e-12)
    assert_close(several.variance(), mean_vote.variance(), rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_where_taking_a_label_out_would_amplify_rounding_the_posterior_is_rebuilt(form, monkeypatch):
    pool = spread_pool()
    pool = Pool(pool.features, pool.outputs, 1e-3)
    posterior = pool.posterior(form, torch.float32)
    rebuilds = []
    original = posterior._rebuild_
    monkeypatch.setattr(posterior, "_rebuild_", lambda labels: (rebuilds.append(1), original(labels)))
    labels = [(row, pool.one_hot(row)) for row in range(6)]
    absorb(posterior, labels)
    posterior.forget_(*labels.pop(2))
    assert rebuilds == [1]
    assert_agrees(posterior, pool, labels, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ridge", [1e-6, 1e-8])
def test_a_label_given_and_undone_again_and_again_at_a_tiny_ridge_leaves_nothing(form, ridge):
    pool = spread_pool()
    pool = Pool(pool.features, pool.outputs, ridge)
    posterior = pool.posterior(form)
    labels = [(row, pool.one_hot(row)) for row in range(3)]
    absorb(posterior, labels)
    for _ in range(10):
        posterior.condition_([9], pool.one_hot(2)[None])
        posterior.forget_(9, pool.one_hot(2))
    mean, _ = reference.posterior(pool.kernel, pool.outputs, labels, ridge)
    assert_close(posterior.mean, mean, rtol=1e-6, scale=1.0)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=60)
@given(labelled_pools(max_labels=8), st.data())
def test_any_sequence_of_operations_ends_where_its_labels_say(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    pending: list[int] = []
    rows = st.integers(0, len(pool.outputs) - 1)
    for _ in range(data.draw(st.integers(0, 10))):
        move = data.draw(st.sampled_from(["label", "votes", "forget", "relabel", "pend", "cancel", "refactor"]))
        target = pool.one_hot(data.draw(st.integers(0, 3)))
        if move == "label":
            labels.append((data.draw(rows), target))
            posterior.condition_([labels[-1][0]], target[None])
            pending = [row for row in pending if row != labels[-1][0]]
        elif move == "votes":
            row = data.draw(rows)
            labels += [(row, target)] * 2
            posterior.condition_([row] * 2, torch.stack([target] * 2))
            pending = [other for other in pending if other != row]
        elif move == "forget" and labels:
            posterior.forget_(*labels.pop(data.draw(st.integers(0, len(labels) - 1))))
        elif move == "relabel" and labels:
            place = data.draw(st.integers(0, len(labels) - 1))
            posterior.relabel_(*labels[place], target)
            labels[place] = (labels[place][0], target)
        elif move == "pend":
            row = data.draw(rows)
            pending += [row] if row not in pending else []
            posterior.pend_(row)
        elif move == "cancel" and pending:
            posterior.cancel_(pending.pop(0))
        elif move == "refactor":
            posterior.refactor_()
    assert posterior.pending == tuple(pending)
    assert_agrees(posterior, pool, labels, tuple(pending), rtol=EXACT)
