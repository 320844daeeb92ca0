"""What a posterior refuses, in words; and what it takes although it looks strange."""

import warnings

import numpy as np
import pytest
import torch

from alcore import posterior as posteriors
from alcore.posterior import make_posterior
from tests.alcore.posteriors import FORMS, Pool, assert_agrees


def pool(classes: int = 2) -> Pool:
    features = torch.arange(12, dtype=torch.float64).reshape(4, 3) / 10
    return Pool(features, torch.zeros(4, classes, dtype=torch.float64), 0.5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_named_with_their_row(form, value):
    broken = pool()
    broken.features[2, 1] = value
    with pytest.raises(posteriors.NonFiniteError, match=r"(kernel|features) hold .* in row"):
        broken.posterior(form)
    broken = pool()
    broken.outputs[3, 0] = value
    with pytest.raises(posteriors.NonFiniteError, match=r"outputs hold .* in row 3"):
        broken.posterior(form)
    posterior = pool().posterior(form)
    with pytest.raises(posteriors.NonFiniteError, match="targets hold"):
        posterior.condition_([1], torch.tensor([[value, 0.0]]))
    assert posterior.votes == {}


@pytest.mark.parametrize("form", FORMS)
def test_infinities_that_cancel_in_a_sum_are_still_seen(form):
    broken = pool()
    broken.outputs[1, 0], broken.outputs[2, 0] = float("inf"), -float("inf")
    with pytest.raises(posteriors.NonFiniteError, match="row 1"):
        broken.posterior(form)


@pytest.mark.parametrize("form", FORMS)
def test_large_finite_values_whose_sum_overflows_are_let_in(form):
    large = Pool(torch.full((4, 2), 1.0), torch.full((4, 2), 3e38), 1.0)
    assert bool(torch.isfinite(large.posterior(form, torch.float32).mean).all())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", [-1, 4, 10**9])
def test_a_row_outside_the_pool_is_refused_everywhere(form, row):
    posterior = pool().posterior(form)
    target = torch.tensor([1.0, 0.0])
    for call in (
        lambda: posterior.condition_([0, row], target.expand(2, 2)),
        lambda: posterior.forget_(row, target),
        lambda: posterior.relabel_(row, target, target),
        lambda: posterior.pend_(row),
        lambda: posterior.cancel_(row),
        lambda: posterior.columns([row]),
        lambda: posterior.fantasy_mean(row, target),
        lambda: posterior.covariance([row]),
    ):
        with pytest.raises(posteriors.RowError, match=str(row)):
            call()
    assert posterior.votes == {}
    assert posterior.pending == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", [1.5, True, torch.tensor(True), "1", None, float("nan")])
def test_a_row_that_is_no_whole_number_is_refused_so_that_a_mask_is_never_taken_for_rows(form, row):
    posterior = pool().posterior(form)
    target = torch.tensor([1.0, 0.0])
    posterior.condition_([1], target[None])
    for call in (
        lambda: posterior.condition_([row], target[None]),
        lambda: posterior.forget_(row, target),
        lambda: posterior.relabel_(row, target, target),
        lambda: posterior.pend_(row),
        lambda: posterior.gain(row),
        lambda: posterior.columns([row]),
    ):
        with pytest.raises(posteriors.RowError, match="row"):
            call()
    assert list(posterior.votes) == [1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [np.int64, torch.tensor])
def test_whole_numbers_of_numpy_and_torch_are_rows(form, kind):
    posterior = pool().posterior(form)
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    posterior.condition_([kind(2), kind(3)], torch.stack([first, first]))
    posterior.relabel_(kind(2), first, second)
    posterior.forget_(kind(3), first)
    assert_agrees(posterior, pool(), [(2, second)], rtol=1e-10)
    assert torch.equal(posterior.gain(kind(1)), posterior.gain(1))


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_refused_and_values_a_type_cannot_hold_are_named(form):
    with pytest.raises(posteriors.PoolError, match="float32 or float64"):
        pool().posterior(form, torch.float16)
    large = pool()
    given = {"kernel": large.kernel.float()} if form == "pairwise" else {"features": large.features.float()}
    with pytest.raises(posteriors.NonFiniteError, match="outputs hold inf in row 0"):
        make_posterior(outputs=torch.full((4, 2), 1e300, dtype=torch.float64), ridge=1.0, **given)
    posterior = pool().posterior(form, torch.float32)
    with pytest.raises(posteriors.NonFiniteError, match="targets hold inf"):
        posterior.condition_([0], torch.tensor([[1e300, 0.0]], dtype=torch.float64))
    assert posterior.votes == {}


@pytest.mark.parametrize("form", FORMS)
def test_inputs_with_gradients_leave_no_graph_behind(form):
    drawn = pool()
    drawn.features.requires_grad_()
    drawn.outputs.requires_grad_()
    posterior = drawn.posterior(form)
    posterior.condition_([1], torch.tensor([[1.0, 0.0]], requires_grad=True))
    assert not posterior.mean.requires_grad
    assert not posterior.variance().requires_grad
    assert not posterior.votes[1][0].requires_grad


def test_a_kernel_that_is_not_symmetric_is_refused():
    kernel = torch.eye(4)
    kernel[0, 2] = 0.5
    with pytest.raises(posteriors.PoolError, match="row 0 and its column differ by"):
        make_posterior(kernel=kernel, outputs=torch.zeros(4, 2), ridge=1.0)
    with pytest.raises(posteriors.PoolError, match="symmetric"):
        posteriors.FullPosterior(kernel, torch.zeros(2, 2), ridge=1.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_a_scale_whose_squares_leave_the_type_is_refused(form, scale):
    features = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) * scale
    strange = Pool(features, torch.zeros(9, 2), 0.1 * scale**2)
    with pytest.raises(posteriors.PoolError, match="cannot hold its square over a pool"):
        strange.posterior(form, torch.float32)
    assert strange.posterior(form, torch.float64).size == 9


def test_features_refuse_a_ridge_at_which_they_would_lose_their_digits():
    features, outputs = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(9, 2)
    with pytest.raises(posteriors.RidgeError, match="too small for features"):
        make_posterior(features=features, outputs=outputs, ridge=1e-13)
    posterior = make_posterior(features=features, outputs=outputs, ridge=0.1)
    with pytest.raises(posteriors.RidgeError, match="too small for features"):
        posterior.set_ridge_(1e-13)
    assert posterior.ridge == 0.1
    assert make_posterior(features=0 * features, outputs=outputs, ridge=1e-13).ridge == 1e-13


@pytest.mark.parametrize("full", [False, True])
def test_a_ridge_at_which_the_kernel_is_singular_leaves_the_old_one(full):
    kernel, outputs = torch.diag(torch.tensor([1.0, -5.0, 1.0, 1.0])).double(), torch.zeros(4, 2).double()
    posterior = make_posterior(kernel=kernel, outputs=outputs, ridge=9.0)
    if full:
        posterior = posteriors.FullPosterior(kernel, outputs[:2], ridge=9.0)
    posterior.condition_([0, 1], torch.eye(2).double())
    mean = posterior.mean.clone()
    with pytest.raises(posteriors.SingularKernelError):
        posterior.set_ridge_(0.1)
    assert posterior.ridge == 9.0
    assert torch.equal(posterior.mean, mean)


@pytest.mark.parametrize("form", FORMS)
def test_targets_of_another_width_or_count_are_refused(form):
    posterior = pool().posterior(form)
    for targets in (torch.zeros(1, 3), torch.zeros(2, 2), torch.zeros(2)):
        with pytest.raises(posteriors.TargetError, match=r"\(1, 2\)"):
            posterior.condition_([0], targets)
    with pytest.raises(posteriors.TargetError):
        posterior.fantasy_mean(0, torch.zeros(3))
    posterior.condition_([0], torch.tensor([[1.0, 0.0]]))
    with pytest.raises(posteriors.TargetError):
        posterior.relabel_(0, torch.tensor([1.0, 0.0]), torch.zeros(5))


@pytest.mark.parametrize("form", FORMS)
def test_no_labels_at_all_change_nothing(form):
    posterior = pool().posterior(form)
    posterior.condition_([], torch.zeros(0, 2))
    assert posterior.votes == {}
    assert_agrees(posterior, pool(), [], rtol=1e-12)
    assert posterior.drift() < 1e-12


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("form", FORMS)
def test_a_ridge_that_is_not_positive_is_refused(form, ridge):
    with pytest.raises(posteriors.RidgeError, match=str(ridge)):
        Pool(pool().features, pool().outputs, ridge).posterior(form)
    posterior = pool().posterior(form)
    with pytest.raises(posteriors.RidgeError):
        posterior.set_ridge_(ridge)
    assert posterior.ridge == 0.5


def test_shapes_that_do_not_fit_are_refused():
    outputs = torch.zeros(4, 2)
    for given in (
        {"kernel": torch.zeros(3, 3)},
        {"kernel": torch.zeros(4, 3)},
        {"features": torch.zeros(3, 2)},
        {"features": torch.zeros(4)},
        {"features": torch.zeros(4, 0)},
        {"features": torch.zeros(4, 2, dtype=torch.int64)},
        {},
        {"kernel": torch.eye(4), "features": torch.zeros(4, 2)},
    ):
        with pytest.raises(posteriors.PoolError):
            make_posterior(outputs=outputs, ridge=1.0, **given)
    for outputs in (torch.zeros(0, 2), torch.zeros(4, 0), torch.zeros(4), torch.zeros(4, 2, dtype=torch.int64)):
        with pytest.raises(posteriors.PoolError):
            make_posterior(outputs=outputs, features=torch.zeros(len(outputs), 2), ridge=1.0)


def test_a_kernel_that_is_far_from_positive_definite_is_refused_and_the_posterior_stays():
    kernel = torch.diag(torch.tensor([1.0, -5.0, 1.0])).double()
    posterior = make_posterior(kernel=kernel, outputs=torch.zeros(3, 2).double(), ridge=0.1)
    with pytest.raises(posteriors.SingularKernelError, match="2 images"):
        posterior.condition_([0, 1], torch.eye(2))
    with pytest.raises(posteriors.SingularKernelError, match="row 1 has a variance of -5"):
        posterior.condition_([1], torch.eye(2)[:1])
    assert posterior.votes == {}
    assert torch.equal(posterior.mean, torch.zeros(3, 2).double())


def test_a_kernel_that_misses_by_rounding_gets_jitter_and_a_warning():
    kernel = torch.ones(3, 3).double() - torch.diag(torch.tensor([0.0, 1e-9, 0.0])).double()
    posterior = make_posterior(kernel=kernel, outputs=torch.zeros(3, 2).double(), ridge=1e-13)
    with pytest.warns(posteriors.JitterWarning, match="added"):
        posterior.condition_([0, 1, 2], torch.eye(2)[[0, 0, 0]])
    assert bool(torch.isfinite(posterior.mean).all())


@pytest.mark.parametrize("form", FORMS)
def test_identical_images_and_more_labels_than_features_need_no_jitter(form):
    same = Pool(torch.ones(6, 2, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64), 1e-3)
    posterior = same.posterior(form)
    labels = [(row, same.one_hot(row % 2)) for row in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior.condition_([row for row, _ in labels], torch.stack([target for _, target in labels]))
    assert_agrees(posterior, same, labels, rtol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_pending_twice_is_once_and_cancelling_what_is_not_pending_is_refused(form):
    posterior = pool().posterior(form)
    posterior.pend_(1)
    posterior.pend_(1)
    assert posterior.pending == (1,)
    posterior.cancel_(1)
    with pytest.raises(posteriors.RowError, match="not pending"):
        posterior.cancel_(1)


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_never_written_to(form):
    drawn = pool()
    features, outputs = drawn.features.clone(), drawn.outputs.clone()
    given = {"features": drawn.features} if form == "frobenius" else {"kernel": drawn.kernel}
    kept = next(iter(given.values())).clone()
    target = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    posterior = make_posterior(outputs=drawn.outputs, ridge=0.5, **given)
    posterior.condition_([1], target)
    target.zero_()
    assert torch.equal(drawn.features, features)
    assert torch.equal(drawn.outputs, outputs)
    assert torch.equal(next(iter(given.values())), kept)
    assert posterior.votes[1][0].tolist() == [1.0, 0.0]
