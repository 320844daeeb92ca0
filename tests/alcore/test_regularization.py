"""The ridge by one-step-ahead errors, cross-validation and leave-one-out, against fitting again and again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.cholesky import NonFiniteError
from alcore.posterior import make_posterior
from alcore.regularization import (
    FIRST_RIDGE,
    RIDGE_GRID,
    RegularizationError,
    choose_ridge,
    choose_ridge_left_out,
    gcv,
    leave_one_out_residuals,
    mean_diagonal,
    one_step_ahead_errors,
)
from tests.alcore import reference

sizes = st.tuples(st.integers(1, 10), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))


def problem(sizes: tuple[int, int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    count, width, classes, seed = sizes
    generator = torch.Generator().manual_seed(seed)
    kernel = reference.kernel_of(torch.randn(count, width, generator=generator))
    return kernel, torch.randn(count, classes, generator=generator).double()


@settings(deadline=None, max_examples=60)
@given(sizes, st.data())
def test_one_step_ahead_errors_predict_each_label_from_those_before_it(drawn, data):
    kernel, residuals = problem(drawn)
    skip = data.draw(st.integers(0, len(kernel) - 1))
    ridges = [0.01, 1.0, 30.0]
    found = one_step_ahead_errors(kernel, residuals, ridges=ridges, skip=skip)
    expected = [reference.one_step_ahead(kernel, residuals, ridge, skip) for ridge in ridges]
    assert found.tolist() == pytest.approx(expected, rel=1e-8)


def test_one_step_ahead_errors_are_what_a_posterior_makes_label_by_label():
    kernel, residuals = problem((9, 4, 3, 5))
    posterior = make_posterior(kernel=kernel, outputs=torch.zeros(9, 3).double(), ridge=0.3)
    errors = []
    for row in range(9):
        errors.append(float((residuals[row] - posterior.mean[row]).square().sum()))
        posterior.condition_([row], residuals[[row]])
    found = one_step_ahead_errors(kernel, residuals, ridges=[0.3], skip=4)
    assert float(found) == pytest.approx(sum(errors[4:]) / 5, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(sizes)
def test_gcv_is_the_training_error_over_the_degrees_of_freedom_left(drawn):
    kernel, residuals = problem(drawn)
    found = gcv(kernel, residuals, ridges=[0.01, 1.0])
    assert found.tolist() == pytest.approx([reference.gcv(kernel, residuals, ridge) for ridge in (0.01, 1.0)], rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(sizes, st.data())
def test_leave_one_out_residuals_are_those_of_fitting_again(drawn, data):
    kernel, residuals = problem(drawn)
    weights = torch.tensor([data.draw(st.integers(1, 3)) for _ in range(len(kernel))]).double()
    found = leave_one_out_residuals(kernel, residuals, 0.2, weights)
    assert torch.allclose(found, reference.leave_one_out(kernel, residuals, 0.2 / weights), rtol=1e-7, atol=1e-9)
    plain = leave_one_out_residuals(kernel, residuals, 0.2)
    assert torch.allclose(plain, leave_one_out_residuals(kernel, residuals, 0.2, torch.ones(len(kernel))))


def test_the_mean_diagonal_is_the_same_from_kernel_and_features():
    features = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1))
    expected = float(features.double().square().sum(1).mean())
    assert mean_diagonal(features=features) == pytest.approx(expected, rel=1e-6)
    kernel = features[:50] @ features[:50].t()
    assert mean_diagonal(kernel=kernel) == pytest.approx(float(features[:50].square().sum(1).mean()), rel=1e-6)


def smooth_problem(noise: float, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    places = torch.rand(count, 1, generator=generator, dtype=torch.float64) * 4
    kernel = torch.exp(-(places - places.t()).square())
    clean = torch.cat([places.sin(), (2 * places).cos()], 1)
    return kernel, clean + noise * torch.randn(count, 2, generator=generator, dtype=torch.float64)


def test_noisier_labels_choose_a_larger_ridge():
    chosen = [choose_ridge(*smooth_problem(noise), mean_diagonal=1.0, skip=0).rho for noise in (0.01, 0.3, 3.0)]
    assert chosen[0] < chosen[1] < chosen[2]
    assert set(chosen) <= set(RIDGE_GRID)


def test_the_choice_has_the_smallest_error_on_the_unseen_labels_and_is_relative():
    kernel, residuals = smooth_problem(0.3)
    choice = choose_ridge(kernel, residuals, mean_diagonal=1.0, skip=25)
    assert choice.labels == 35
    assert list(choice.errors) == list(RIDGE_GRID)
    assert choice.errors[choice.rho] == min(choice.errors.values())
    expected = reference.one_step_ahead(kernel, residuals, 0.1, 25)
    assert choice.errors[0.1] == pytest.approx(expected, rel=1e-9)
    assert choose_ridge(kernel * 50, residuals, mean_diagonal=50.0, skip=25).rho == choice.rho


def test_with_too_few_unseen_labels_the_ridge_stays_where_it_was():
    kernel, residuals = smooth_problem(0.01)
    choice = choose_ridge(kernel, residuals, mean_diagonal=1.0, skip=41)
    assert (choice.rho, choice.labels, choice.errors) == (FIRST_RIDGE, 19, {})
    assert choose_ridge(kernel, residuals, mean_diagonal=1.0, skip=41, current=3.0).rho == 3.0
    assert choose_ridge(kernel, residuals, mean_diagonal=1.0, skip=40).labels == 20
    assert choose_ridge(kernel, residuals, mean_diagonal=1.0, skip=40).errors
    assert choose_ridge(kernel, residuals, mean_diagonal=1.0, skip=100).labels == 0


def test_equal_errors_choose_the_larger_ridge():
    choice = choose_ridge(torch.eye(30), torch.zeros(30, 2), mean_diagonal=1.0, skip=0)
    assert choice.rho == max(RIDGE_GRID)


def test_wrong_questions_are_refused_in_words():
    kernel, residuals = smooth_problem(0.1, count=5)
    for call in (
        lambda: one_step_ahead_errors(kernel[:4], residuals, ridges=[1.0], skip=0),
        lambda: one_step_ahead_errors(kernel, residuals[:4], ridges=[1.0], skip=0),
        lambda: one_step_ahead_errors(kernel, residuals, ridges=[1.0], skip=-1),
        lambda: one_step_ahead_errors(kernel, residuals, ridges=[1.0], skip=5),
        lambda: one_step_ahead_errors(kernel, residuals, ridges=[0.0], skip=0),
        lambda: gcv(kernel, residuals, ridges=[float("nan")]),
        lambda: gcv(kernel[:0, :0], residuals[:0], ridges=[1.0]),
        lambda: leave_one_out_residuals(kernel, residuals, 1.0, torch.zeros(5)),
        lambda: leave_one_out_residuals(kernel, residuals, 1.0, torch.ones(4)),
        lambda: mean_diagonal(),
        lambda: mean_diagonal(kernel=kernel, features=kernel),
        lambda: mean_diagonal(kernel=torch.zeros(3, 3)),
        lambda: mean_diagonal(features=torch.full((3, 3), float("nan"))),
    ):
        with pytest.raises(RegularizationError):
            call()
    broken = kernel.clone()
    broken[0, 1] = float("nan")
    with pytest.raises(NonFiniteError):
        gcv(broken, residuals, ridges=[1.0])


def test_leave_one_out_of_no_labels_is_empty():
    assert leave_one_out_residuals(torch.zeros(0, 0), torch.zeros(0, 3), 1.0).shape == (0, 3)


def test_where_f0_has_seen_no_label_the_ridge_is_that_of_the_least_leave_one_out_error_and_ties_go_to_the_larger():
    generator = torch.Generator().manual_seed(8)
    features = torch.randn(24, 30, generator=generator).double()
    kernel, residuals = features @ features.T, torch.randn(24, 3, generator=generator).double()
    residuals += features[:, :3] * 2
    choice = choose_ridge_left_out(kernel, residuals, mean_diagonal=30.0, current=7.0)
    left_out = {}
    for rho in RIDGE_GRID:
        total = 0.0
        for row in range(24):
            rest = [other for other in range(24) if other != row]
            weights = torch.linalg.solve(kernel[rest][:, rest] + rho * 30 * torch.eye(23).double(), residuals[rest])
            total += float((residuals[row] - kernel[row, rest] @ weights).square().sum())
        left_out[rho] = total / 24
    assert choice.errors == pytest.approx(left_out, rel=1e-9)
    assert choice.rho == min(left_out, key=left_out.get)
    assert choice.labels == 24
    same = choose_ridge_left_out(torch.zeros(24, 24), torch.ones(24, 2), mean_diagonal=1.0, current=7.0)
    assert same.rho == max(RIDGE_GRID)
    few = choose_ridge_left_out(kernel[:19, :19], residuals[:19], mean_diagonal=30.0, current=7.0)
    assert (few.rho, few.errors, few.labels) == (7.0, {}, 19)
