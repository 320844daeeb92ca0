"""Numbers instead of classes: the order of images, errors without a test set, a network with one output."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.acquisition.regression import label_free_scores
from alcore.acquisition.scanning import CriterionError
from alcore.datasets import Preprocessing
from alcore.estimates import leave_one_out_error
from alcore.network import build_network, outputs
from alcore.posterior import RowError, make_posterior
from alcore.training import OneAnswerError, TrainingOptions, train
from tests.alcore import reference
from tests.alcore.posteriors import FORMS, absorb, labelled_pools

pytestmark = pytest.mark.filterwarnings("error")


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = max(float(expected.abs().max()), 1e-3)
    assert (found - expected).abs().max() <= 1e-6 * scale


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(), st.data())
def test_the_share_of_uncertainty_is_what_really_conditioning_takes_away(form, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    out = (data.draw(st.integers(0, posterior.size - 1)),)
    _, before = reference.posterior(pool.kernel, pool.outputs, labels, pool.ridge, out)
    total = before.diagonal().clamp_min(0).sum()
    if total < 1e-6 * pool.ridge:
        return
    expected = []
    for row in range(posterior.size):
        after = before - torch.outer(before[:, row], before[:, row]) / (before[row, row] + pool.ridge)
        expected.append((before.diagonal() - after.diagonal()).sum() / total)
    scores = label_free_scores(posterior, criterion="variance_reduction", pending=out)
    assert_close(scores, torch.stack(expected))
    assert bool((scores <= 1 + 1e-9).all())


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools())
def test_greedy_max_det_picks_what_makes_the_determinant_largest(form, drawn):
    """Two greedy picks, the first one pending for the second, against the determinants written out."""
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    _, covariance = reference.posterior(pool.kernel, pool.outputs, labels, pool.ridge)
    chosen: list[int] = []
    for _ in range(min(2, posterior.size)):
        scores = label_free_scores(posterior, criterion="max_det", pending=chosen)
        system = [[*chosen, row] for row in range(posterior.size) if row not in chosen]
        noisy = covariance + pool.ridge * torch.eye(posterior.size, dtype=torch.float64)
        dets = {rows[-1]: float(torch.linalg.det(noisy[rows][:, rows] / pool.ridge)) for rows in system}
        best = max(dets, key=lambda row: float(scores[row]))
        assert dets[best] >= max(dets.values()) * (1 - 1e-6)
        chosen.append(best)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_does_not_depend_on_the_answers(form):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    scores = []
    for answer in (-1.0, 1.0):
        given = {"features": features} if form == "frobenius" else {"kernel": features @ features.t()}
        posterior = make_posterior(**given, outputs=torch.zeros(12, 1, dtype=torch.float64), ridge=0.3)
        posterior.condition_([2, 7], torch.full((2, 1), answer, dtype=torch.float64))
        scores.append(label_free_scores(posterior, criterion="variance_reduction"))
    assert torch.equal(*scores)


def test_what_cannot_be_scored_is_a_named_error():
    posterior = make_posterior(kernel=torch.eye(3), outputs=torch.zeros(3, 1), ridge=0.1)
    with pytest.raises(CriterionError, match="entropy"):
        label_free_scores(posterior, criterion="entropy")
    with pytest.raises(RowError):
        label_free_scores(posterior, criterion="max_det", pending=[3])


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=30)
@given(labelled_pools(min_labels=1))
def test_the_error_is_that_of_really_leaving_labels_out(form, drawn):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    squares = []
    for row in sorted({row for row, _ in labels}):
        others = [own for own in labels if own[0] != row]
        mean = reference.posterior(pool.kernel, pool.outputs, others, pool.ridge)[0][row]
        target = torch.stack([label for own, label in labels if own == row]).mean(0)
        squares.append((target - mean).square().sum())
    assert leave_one_out_error(posterior) == pytest.approx(float(torch.stack(squares).mean().sqrt()), rel=1e-5)


def test_without_labels_there_is_no_error_to_tell():
    posterior = make_posterior(kernel=torch.eye(3), outputs=torch.zeros(3, 1), ridge=0.1)
    assert leave_one_out_error(posterior) is None


def test_a_network_of_one_output_learns_a_number():
    """How bright a picture is, from -1 to 1."""
    generator = torch.Generator().manual_seed(0)
    shades = torch.linspace(0.1, 0.9, 16)
    images = shades[:, None, None, None] + 0.05 * torch.rand(16, 1, 32, 32, generator=generator)
    targets = (2.5 * shades - 1.25)[:, None]
    module = build_network("small_cnn", classes=1, preprocessing=Preprocessing.plain(channels=1), seed=0)
    report = train(module, images, targets, options=TrainingOptions(epochs=1, minimum_steps=80))
    found = outputs(module, images)
    assert report.training_error == pytest.approx(float((found - targets).square().mean().sqrt()))
    assert report.training_error < 0.25 * float(targets.std())
    with pytest.raises(OneAnswerError):
        train(module, images, torch.full((16, 1), 0.5), options=TrainingOptions(epochs=1, minimum_steps=1))
