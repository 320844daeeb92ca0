"""A solved head against the normal equations and against really leaving each label out; and what follows from it."""

from collections.abc import Callable

import pytest
import torch

from alcore import heads
from alcore.acquisition.lookahead import exact_scores, look_ahead_scores
from alcore.datasets import Preprocessing
from alcore.heads import fit_head
from alcore.linearization import LinearizationError, linearize, load_linearization, save_linearization
from alcore.network import (
    LossPrediction,
    build_network,
    freeze_body_,
    outputs,
    split_network,
    weights_hash,
    with_new_head,
)
from alcore.posterior import PoolError, load_posterior, make_posterior
from alcore.regularization import RIDGE_GRID
from alcore.training import TrainingDataError, TrainingDivergedError, TrainingOptions, train
from tests.alcore import reference

FEW = TrainingOptions(epochs=1, minimum_steps=5)


def problem(labels: int, width: int, *, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features far from zero, of very different sizes, and three linear outputs in noise."""
    generator = torch.Generator().manual_seed(labels * 100 + width)
    features = torch.randn(labels, width, generator=generator) * torch.linspace(0.2, 2, width) + 3
    truth = torch.randn(width, 3, generator=generator) / width**0.5
    return features, features @ truth + noise * torch.randn(labels, 3, generator=generator)


def solved(features: torch.Tensor, targets: torch.Tensor, ridge: float) -> torch.Tensor:  # (d + 1, K)
    """Weights and a last row of free biases, from the normal equations."""
    padded = torch.cat([features.double(), torch.ones(len(features), 1).double()], 1)
    penalty = ridge * torch.eye(padded.shape[1]).double()
    penalty[-1, -1] = 0
    return torch.linalg.solve(padded.t() @ padded + penalty, padded.t() @ targets.double())


def left_out_error(features: torch.Tensor, targets: torch.Tensor, ridge: float) -> float:
    """Each label predicted by a head that was fitted without it."""
    total = 0.0
    for row in range(len(features)):
        others = [other for other in range(len(features)) if other != row]
        weights = solved(features[others], targets[others], ridge)
        found = torch.cat([features[row].double(), torch.ones(1).double()]) @ weights
        total += float((targets[row].double() - found).square().sum())
    return total / len(features)


@pytest.mark.parametrize(("labels", "width"), [(7, 20), (20, 20), (21, 20), (40, 6)])
def test_the_head_solves_the_normal_equations_at_the_ridge_with_the_least_left_out_error(labels, width, monkeypatch):
    monkeypatch.setattr(heads, "BLOCK_ROWS", 9)
    features, targets = problem(labels, width)
    head = fit_head(features, targets)
    spread = float((features - features.mean(0)).double().square().sum(1).mean())
    errors = {rho: left_out_error(features, targets, rho * spread) for rho in RIDGE_GRID}
    best = min(errors, key=lambda rho: errors[rho])
    assert head.ridge == pytest.approx(best * spread, rel=1e-6)
    assert head.error == pytest.approx(errors[best], rel=1e-6)
    expected = solved(features, targets, head.ridge).float()
    torch.testing.assert_close(head.weight.t(), expected[:-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.bias, expected[-1], rtol=1e-4, atol=1e-5)


def test_noise_asks_for_a_larger_ridge_and_a_picture_that_is_there_twice_does_not_ask_for_none():
    quiet, noisy = (fit_head(*problem(60, 40, noise=noise)) for noise in (0.01, 5.0))
    assert quiet.ridge < noisy.ridge
    features, targets = problem(60, 80, noise=5.0)
    once = fit_head(features, targets).ridge
    twice = fit_head(torch.cat([features, features[:1]]), torch.cat([targets, targets[:1]])).ridge
    assert once > 0
    assert twice == pytest.approx(once, rel=0.05)


def test_features_that_are_all_alike_leave_the_mean_target():
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    head = fit_head(torch.full((3, 4), 2.0), targets)
    assert head.ridge == 0
    assert head.weight.tolist() == [[0.0] * 4] * 2
    assert head.bias.tolist() == pytest.approx([2 / 3, 1 / 3])


def frozen(seed: int = 0) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A network of which only the head is trained, behind its frozen layers; activations and labels of 40 images."""
    whole = build_network("small_cnn", classes=3, preprocessing=Preprocessing.plain(size=16, channels=1), seed=1)
    prefix, rest = split_network(freeze_body_(whole))
    generator = torch.Generator().manual_seed(5)
    images, labels = torch.rand(40, 1, 16, 16, generator=generator), torch.arange(40) % 3
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 1 + 5 * label : 5 + 5 * label] += 0.3
    with torch.no_grad():
        return with_new_head(rest, classes=3, seed=seed), prefix(images), torch.eye(3)[labels]


def recorder(seen: list[tuple[float, str]]) -> Callable[[float, str], None]:
    return lambda share, words: seen.append((share, words))


def test_where_only_the_head_is_trained_it_is_solved_for_whatever_its_first_weights_strength_and_seed():
    found = set()
    for seed, strength in ((0, "gentle"), (1, "strong")):
        module, activations, targets = frozen(seed)
        seen: list[tuple[float, str]] = []
        options = TrainingOptions(strength=strength, epochs=1, minimum_steps=5, seed=seed)
        report = train(module, activations[:20], targets[:20], options=options, progress=recorder(seen))
        assert seen == [(1.0, "the head is solved for")]
        assert (report.steps, report.epochs, report.stopped) == (0, 1, False)
        found.add((weights_hash(module), report.head_ridge))
    assert len(found) == 1
    head = fit_head(activations[:20], targets[:20])
    assert report.head_ridge == head.ridge > 0
    assert torch.equal(module.head.weight, head.weight)
    fitted = outputs(module, activations[:20])
    assert report.losses[-1] == pytest.approx(float((fitted - targets[:20]).square().sum(1).mean()), rel=1e-5)
    assert report.energy == pytest.approx(float((fitted - targets[:20]).norm(dim=1).mean()), rel=1e-5)


def test_a_companion_dropped_units_and_a_body_that_is_trained_take_steps():
    module, activations, targets = frozen()
    assert (
        train(module, activations, targets, options=TrainingOptions(minimum_steps=5, epochs=1)).head_ridge is not None
    )
    companion = LossPrediction(module, activations[:1], seed=0)
    assert train(module, activations, targets, options=FEW, companion=companion).steps == 5
    stepped = TrainingOptions(epochs=1, minimum_steps=5, solve_head=False)
    assert train(module, activations, targets, options=stepped).head_ridge is None
    whole = build_network("small_cnn", classes=3, preprocessing=Preprocessing.plain(size=16, channels=1), seed=1)
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert train(whole, images, targets[:6], options=FEW).head_ridge is None


def test_smoothed_targets_are_what_the_head_is_solved_for_and_targets_it_cannot_hold_are_named():
    module, activations, targets = frozen()
    train(module, activations, targets, options=TrainingOptions(label_smoothing=0.3))
    expected = fit_head(activations, targets * 0.7 + 0.1)
    torch.testing.assert_close(module.head.weight, expected.weight)
    before = weights_hash(module)
    with pytest.raises(TrainingDivergedError, match="too large"):
        train(module, activations, targets * 1e30, options=FEW)
    module.body.append(torch.nn.Threshold(torch.inf, torch.inf))
    with pytest.raises(TrainingDataError, match="not finite"):
        train(module, activations, targets, options=FEW)
    assert weights_hash(module) == before


@pytest.mark.parametrize("limit", [3000, 0])
def test_the_linear_model_of_a_solved_head_is_that_network_and_after_a_label_the_one_trained_again(limit):
    module, activations, targets = frozen()
    report = train(module, activations[:20], targets[:20], options=FEW)
    linear = linearize(module, activations, seed=0, pairwise_limit=limit, prior=module.head.bias.detach())
    assert torch.equal(linear.initial, module.head.bias.detach().expand(40, 3))
    ridge = report.head_ridge * linear.manifest.scale**2
    posterior = make_posterior(
        kernel=linear.kernel, features=linear.features, outputs=linear.initial, network=linear.outputs, ridge=ridge
    )
    posterior.condition_(list(range(20)), targets[:20])
    torch.testing.assert_close(posterior.mean, outputs(module, activations), rtol=1e-3, atol=1e-4)
    posterior.condition_([20], targets[[20]])
    padded = torch.cat([activations, torch.ones(40, 1)], 1).double()
    kernel = padded[:21] @ padded[:21].t() + report.head_ridge * torch.eye(21).double()
    bias = module.head.bias.detach().double()
    again = bias + padded @ padded[:21].t() @ torch.linalg.solve(kernel, targets[:21].double() - bias)
    torch.testing.assert_close(posterior.mean.double(), again, rtol=1e-3, atol=1e-4)


def test_a_ridge_on_the_head_is_the_same_on_the_scaled_kernel_and_stays_within_the_grid():
    module, activations, _ = frozen()
    linear = linearize(module, activations, seed=0)
    mean = float(activations.double().square().sum(1).mean()) + 1  # the bias is one of the features
    assert linear.relative_ridge(0.2 * mean) == pytest.approx(0.2, rel=1e-5)
    assert [linear.relative_ridge(ridge) for ridge in (1e-9, 1e9)] == [RIDGE_GRID[0], RIDGE_GRID[-1]]


def test_a_prior_is_stored_with_the_linearisation_and_one_of_other_classes_is_refused(tmp_path):
    module, activations, _ = frozen()
    prior = torch.tensor([0.1, 0.2, 0.7])
    save_linearization(tmp_path / "with", linearize(module, activations, seed=0, prior=prior))
    save_linearization(tmp_path / "without", linearize(module, activations, seed=0))
    loaded = load_linearization(tmp_path / "with")
    assert torch.equal(loaded.prior, prior)
    assert not torch.equal(loaded.outputs, loaded.initial)
    plain = load_linearization(tmp_path / "without")
    assert plain.prior is None
    assert torch.equal(plain.initial, plain.outputs)
    save_linearization(tmp_path / "wrong", linearize(module, activations, seed=0, prior=prior[:2]))
    with pytest.raises(LinearizationError, match="should hold 40 images"):
        load_linearization(tmp_path / "wrong")


def test_look_ahead_against_the_network_measures_from_what_the_network_says_not_from_its_prior(tmp_path):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(15, 6, generator=generator).double()
    prior, network = torch.full((15, 3), 0.3).double(), torch.randn(15, 3, generator=generator).double()
    kernel, label = features @ features.t(), torch.eye(3).double()[1]
    posterior = make_posterior(kernel=kernel, outputs=prior, network=network, ridge=0.5)
    posterior.condition_([4], label[None])
    mean, covariance = reference.posterior(kernel, prior, [(4, label)], 0.5, ())
    expected = [
        reference.look_ahead_score(mean, covariance, 0.5, row, initial=network, form="network") for row in range(15)
    ]
    assert exact_scores(posterior, list(range(15)), "network").tolist() == pytest.approx(expected, rel=1e-6)
    large = make_posterior(features=features, outputs=prior, network=network, ridge=0.5)
    large.condition_([4], label[None])
    bounds = look_ahead_scores(large, torch.ones(15, dtype=torch.bool), "network").tolist()
    expected_bounds = [
        reference.frobenius_score(mean, covariance, 0.5, row, initial=network, form="network") for row in range(15)
    ]
    assert bounds == pytest.approx(expected_bounds, rel=1e-6)
    posterior.save(tmp_path / "labels", header={})
    again, _ = load_posterior(tmp_path / "labels", kernel=kernel, outputs=prior, network=network)
    assert exact_scores(again, [3], "network").tolist() == pytest.approx([expected[3]], rel=1e-6)
    with pytest.raises(PoolError, match=r"\(15, 2\)"):
        make_posterior(kernel=kernel, outputs=prior, network=network[:, :2], ridge=0.5)
