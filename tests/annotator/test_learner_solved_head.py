"""A project whose network is frozen but for its head: the head is solved for, and the linear model goes on from it."""

from collections.abc import Callable

import pytest
import torch

from alcore.estimates import mean_votes
from alcore.linearization import load_linearization
from alcore.regularization import RIDGE_GRID, leave_one_out_residuals
from annotator import learner
from annotator.learner import regularizing
from annotator.learner.files import resolve
from annotator.models import Linearization, Project
from tests.annotator.learner_steps import (
    Float64Model,
    held,
    label_rows,
    live,
    request_preparation,
    restart_learner,
    votes_of,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]
TrainedProject = Callable[..., Project]


def test_the_first_network_and_its_linear_model_say_the_same_at_the_ridge_the_labels_chose(
    trained_project: TrainedProject,
) -> None:
    project = trained_project(freeze="all_but_head")
    now = live(project)
    metrics = now.network_version.metrics
    arrays = load_linearization(resolve(now.features_file))
    assert now.relative_ridge == pytest.approx(arrays.relative_ridge(metrics["head_ridge"]))
    assert now.relative_ridge != Linearization._meta.get_field("relative_ridge").default
    assert arrays.prior is not None
    posterior = held(project).posterior
    torch.testing.assert_close(posterior.mean, arrays.outputs, rtol=1e-3, atol=1e-3)
    assert torch.equal(posterior.network, arrays.outputs)
    assert metrics["steps"] == 0


def test_it_goes_on_after_a_restart_and_over_a_pool_that_is_prepared_again(
    trained_project: TrainedProject, run_jobs: Callable[[Project], None]
) -> None:
    project = trained_project(freeze="all_but_head")
    label_rows(project, range(24, 30))
    learner.absorb(project.pk)
    restart_learner()
    learner.absorb(project.pk)
    expected = Float64Model(project, votes_of(project)).mean
    assert (held(project).posterior.mean.double() - expected).abs().max() < 1e-4
    ridge = live(project).relative_ridge
    request_preparation(project)
    run_jobs(project)
    learner.absorb(project.pk)
    assert load_linearization(resolve(live(project).features_file)).prior is not None
    assert live(project).relative_ridge == ridge
    torch.testing.assert_close(held(project).posterior.mean.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("freeze", ["all_but_head", "none"])
def test_the_ridge_is_chosen_again_on_every_label_that_f0_has_not_seen(
    trained_project: TrainedProject, freeze: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = trained_project(freeze=freeze)
    monkeypatch.setattr(regularizing, "RIDGE_EVERY", 8)
    label_rows(project, range(24, 32))
    state = held(project)
    before = state.linearization.relative_ridge
    learner.absorb(project.pk)
    state = held(project)
    assert state.ridge_chosen_at == 32
    if freeze == "none":  # eight labels came after the training: too few to choose on
        assert state.linearization.relative_ridge == before
        return
    rows = list(range(32))
    kernel = regularizing.kernel_of(state.arrays, rows)
    residuals = mean_votes(state.posterior, rows) - state.posterior.initial[rows]
    errors = {
        rho: leave_one_out_residuals(kernel, residuals, rho * state.mean_diagonal).square().sum() for rho in RIDGE_GRID
    }
    assert state.linearization.relative_ridge == min(errors, key=lambda rho: float(errors[rho]))
    assert state.posterior.ridge == pytest.approx(state.linearization.relative_ridge * state.mean_diagonal)
