"""The loop asks for what its formulas say, one label at a time, and measures every strategy alike."""

import dataclasses
from typing import get_args

import pytest
import torch

from alcore.acquisition.herding import herding_order
from alcore.acquisition.strategies import STRATEGIES
from alcore.curves import Strategy
from alcore.datasets import Preprocessing
from alcore.linearization import linearize
from alcore.network import build_network
from alcore.posterior import NonFiniteError
from alcore.simulation import Schedule, SimulationError, simulate
from alcore.training import TrainingOptions, train

ALL_STRATEGIES = get_args(Strategy)
QUICK = TrainingOptions(epochs=1, minimum_steps=3)
LATE = Schedule(first=1000)


def bars(count, *, seed, size=16):
    """Three classes: a bright bar on top, in the middle or at the bottom, in noise."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.6 * torch.rand(count, 1, size, size, generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 1 + 5 * label : 5 + 5 * label] += 0.3
    return images, labels


def run(*, strategy="lookahead", form="linear", pool=24, **options):
    images, labels = bars(pool, seed=0)
    held_out, held_out_labels = bars(9, seed=1)
    defaults = {"classes": 3, "budget": 10, "initial": 3, "seed": 5, "training": QUICK, "schedule": Schedule(first=6)}
    return simulate(images, labels, held_out, held_out_labels, strategy=strategy, form=form, **(defaults | options))


def model_of(curve, *, trained_on=0, pool=24):
    """Kernel and outputs of pool and held-out images, float64, for the network that was live in the simulation."""
    images, labels = bars(pool, seed=0)
    together = torch.cat([images, bars(9, seed=1)[0]])
    seed = 5 * 100_003 + trained_on if trained_on else 5
    module = build_network("small_cnn", classes=3, preprocessing=Preprocessing.plain(size=16, channels=1), seed=seed)
    if trained_on:
        rows = list(curve.rows[:trained_on])
        train(module, images[rows], torch.eye(3)[labels[rows]], options=dataclasses.replace(QUICK, seed=seed))
    found = linearize(module, together, seed=5, zero_outputs=not trained_on)
    return found.kernel.double(), found.outputs.double()


def believed(model, rows, rho, *, pool=24):
    """Posterior mean and covariance by one solve, and the absolute ridge."""
    kernel, f0 = model
    ridge = rho * float(kernel[:pool, :pool].diagonal().mean())
    residuals = torch.eye(3, dtype=torch.float64)[bars(pool, seed=0)[1][rows]] - f0[rows]
    solve = torch.linalg.solve(kernel[rows][:, rows] + ridge * torch.eye(len(rows)), kernel[rows])
    return f0 + solve.T @ residuals, kernel - kernel[:, rows] @ solve, ridge


def slow_look_ahead(mean, covariance, ridge, f0):
    """Sum over the pool of how far each prediction would be from the present one (or from f0), image by image."""
    scores = []
    for j in range(len(mean)):
        target = torch.zeros(3, dtype=torch.float64)
        target[mean[j].argmax()] = 1
        total = 0.0
        for x in range(len(mean)):
            after = mean[x] + covariance[x, j] / (covariance[j, j] + ridge) * (target - mean[j])
            total += float((after - (mean[x] if f0 is None else f0[x])).norm())
        scores.append(total)
    return scores


def slow_margin(mean):
    tops = [sorted(row, reverse=True) for row in mean.tolist()]
    return [second - first for first, second, *_ in tops]


def entropy_of_projection(mean):
    """Entropy of the closest point of the simplex, found by bisection on the shift."""
    scores = []
    for row in mean:
        low, high = float(row.min()) - 1, float(row.max())
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if (row - middle).clamp_min(0).sum() > 1 else (low, middle)
        share = (row - low).clamp_min(0)
        scores.append(-sum(p * torch.log(p) for p in share if p > 0))
    return scores


def assert_best_by_the_slow_formula(curve, model, count, *, rho=0.1, pool=24):
    """The image labelled after `count` labels is the best of those without a label."""
    rows = list(curve.rows[:count])
    mean, covariance, ridge = believed(model, rows, rho, pool=pool)
    mean, covariance = mean[:pool], covariance[:pool, :pool]
    if curve.strategy == "lookahead":
        scores = slow_look_ahead(mean, covariance, ridge, model[1] if curve.form == "network" else None)
    else:
        scores = slow_margin(mean) if curve.strategy == "margin" else entropy_of_projection(mean)
    best = max(scores[row] for row in range(pool) if row not in rows)
    assert float(scores[curve.rows[count]]) == pytest.approx(float(best), rel=1e-4, abs=1e-5)


EVERY_STRATEGY = pytest.mark.parametrize(
    "strategy, form", [("lookahead", "linear"), ("lookahead", "network"), ("margin", "linear"), ("entropy", "linear")]
)


@EVERY_STRATEGY
def test_every_image_asked_for_is_the_best_by_the_slow_formula_on_the_labels_so_far(strategy, form):
    curve = run(strategy=strategy, form=form, schedule=LATE)
    model = model_of(curve)
    for count in range(3, 10):
        assert_best_by_the_slow_formula(curve, model, count)


@EVERY_STRATEGY
def test_after_a_training_images_are_asked_for_by_the_new_network_with_all_labels_taken_in(strategy, form):
    curve = run(strategy=strategy, form=form, schedule=Schedule(first=6, growth=10))
    assert curve.trainings == (6,)
    model = model_of(curve, trained_on=6)
    for count in range(6, 10):
        assert_best_by_the_slow_formula(curve, model, count)


def test_after_the_ridge_was_chosen_images_are_asked_for_at_that_ridge():
    curve = run(pool=50, budget=25, schedule=LATE)
    [(count, rho)] = curve.ridges
    assert count == 20
    assert rho != 0.1
    model = model_of(curve, pool=50)
    for count in range(20, 25):
        assert_best_by_the_slow_formula(curve, model, count, rho=rho, pool=50)


def test_the_linear_accuracy_is_that_of_one_solve_on_the_labels_so_far():
    curve = run(schedule=Schedule(first=6, growth=10))
    untrained, trained = model_of(curve), model_of(curve, trained_on=6)
    held_out_labels = bars(9, seed=1)[1]
    for count, accuracy in enumerate(curve.linear_accuracies, start=1):
        mean, _, _ = believed(trained if count >= 6 else untrained, list(curve.rows[:count]), 0.1)
        assert accuracy == pytest.approx(float((mean[24:].argmax(dim=1) == held_out_labels).double().mean()))


def herding_rows(count):
    return herding_order(kernel=model_of(None)[0][:24, :24], count=count)


def test_the_first_labels_come_in_herding_order_and_no_image_is_labelled_twice():
    curve = run(strategy="margin")
    assert list(curve.rows[:3]) == herding_rows(3).tolist()
    assert len(curve.linear_accuracies) == 10
    for strategy in ("random", "lookahead"):
        assert sorted(run(strategy=strategy, budget=24).rows) == list(range(24))


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    assert run() == run()
    assert run(strategy="random").rows != run(strategy="random", seed=6).rows


def test_networks_are_measured_at_the_scheduled_counts_and_at_the_end():
    assert run().labels == (6, 9, 10)
    assert run(schedule=LATE).labels == (10,)
    assert Schedule.of_the_app(10).counts(200) == (20, 30, 45, 68, 102, 153, 200)
    assert Schedule.of_the_app(30).counts(100) == (60, 90, 100)


def test_equal_labels_give_every_strategy_the_same_networks():
    curves = [run(strategy=name, initial=10) for name in ("lookahead", "margin", "entropy", "random")]
    assert len({curve.rows for curve in curves}) == 1
    assert len({curve.accuracies for curve in curves}) == 1


def test_a_pool_of_one_class_is_not_trained_on_until_a_second_class_is_seen():
    images, labels = bars(24, seed=0)
    order = herding_rows(24)
    labels[:] = 0
    labels[order[8:]] = 1
    curve = simulate(
        images, labels, *bars(9, seed=1), classes=3, strategy="random", budget=12, initial=12, seed=5, training=QUICK,
        schedule=Schedule(first=6),
    )  # fmt: skip
    assert curve.trainings == (9,)
    assert curve.labels == (6, 9, 12)
    assert run(pool=24, budget=12).trainings == (6, 9)


def test_the_ridge_is_chosen_again_every_twenty_labels_between_trainings():
    curve = run(pool=50, budget=45, schedule=LATE)
    assert [count for count, _ in curve.ridges] == [20, 40]
    late = run(pool=50, budget=45, schedule=Schedule(first=22, growth=10))
    assert [count for count, _ in late.ridges] == [20, 42]


def test_beyond_the_pairwise_limit_the_loop_runs_on_sketched_features():
    curve = run(pairwise_limit=10, sketch_size=64)
    assert len(set(curve.rows)) == 10
    assert curve.labels == (6, 9, 10)
    assert curve.rows[:3] != run().rows[:3] or curve.rows != run().rows


def test_progress_is_told_after_every_label():
    seen = []
    run(strategy="random", budget=4, progress=lambda share, words: seen.append((share, words)))
    assert seen[0] == (0.25, "random: 1 of 4 labels")
    assert [share for share, _ in seen] == [0.25, 0.5, 0.75, 1.0]


def test_simulations_that_cannot_be_run_are_explained():
    with pytest.raises(SimulationError, match="got 3, 30 and 24"):
        run(budget=30)
    with pytest.raises(SimulationError, match="got 11, 10 and 24"):
        run(initial=11)
    with pytest.raises(SimulationError, match="from 0 to 1, got up to 2"):
        run(classes=2)
    images, labels = bars(4, seed=0)
    with pytest.raises(SimulationError, match="4 images have 3 labels"):
        simulate(images, labels[:3], images, labels, classes=3, strategy="random", budget=2)


@pytest.mark.parametrize("strategy", ALL_STRATEGIES)
def test_every_strategy_labels_each_image_once(strategy):
    curve = run(strategy=strategy)
    assert len(set(curve.rows)) == len(curve.rows) == 10
    assert curve.strategy == strategy


def test_a_strategy_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(SimulationError, match="no strategy 'best'; there are lookahead, margin, entropy, random"):
        run(strategy="best")


@pytest.mark.parametrize("stopped_after", [2, 6, 7, 9])
@pytest.mark.parametrize("pool", [24, 40])
def test_a_run_that_was_stopped_goes_on_to_the_same_curve(pool, stopped_after, monkeypatch):
    monkeypatch.setattr("alcore.simulation.loop.RIDGE_EVERY", 2)
    options = {"pool": pool, "pairwise_limit": 24, "sketch_size": 32, "budget": 12}
    kept = []
    whole = run(**options, checkpoint=kept.append)
    assert [len(curve.rows) for curve in kept] == list(range(1, 13))
    again = []
    assert run(**options, resume=kept[stopped_after - 1], checkpoint=again.append) == whole
    assert again == kept[stopped_after:]


def test_a_finished_run_is_given_back_as_it_is():
    whole = run()
    assert run(resume=whole) == whole


def test_a_curve_of_another_run_is_refused():
    curve = run()
    with pytest.raises(SimulationError, match="cannot go on from"):
        run(resume=curve, seed=6)
    with pytest.raises(SimulationError, match="cannot go on from"):
        run(resume=curve, strategy="margin")
    with pytest.raises(SimulationError, match="10 labels up to row"):
        run(resume=curve, budget=8)
    with pytest.raises(SimulationError, match="networks are due at"):
        run(resume=curve, schedule=Schedule(first=5))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rows": (0, 0, 1, 2)}, "damaged"),
        ({"rows": (-1, 2, 3, 4)}, "damaged"),
        ({"linear_accuracies": (0.5,)}, "damaged"),
        ({"trainings": (9,)}, "damaged"),
        ({"ridges": ((9, 0.1),)}, "damaged"),
        ({"labels": (4,), "accuracies": (0.5,)}, "networks are due at"),
    ],
)
def test_a_damaged_curve_is_refused(changes, words):
    kept = []
    run(checkpoint=kept.append, budget=8)
    with pytest.raises(SimulationError, match=words):
        run(resume=dataclasses.replace(kept[3], **changes), budget=8)


def test_a_curve_whose_measurements_are_missing_is_refused():
    kept = []
    run(checkpoint=kept.append, budget=8)
    with pytest.raises(SimulationError, match="networks are due at"):
        run(resume=dataclasses.replace(kept[6], labels=(), accuracies=()), budget=8)
    with pytest.raises(SimulationError, match="damaged"):
        run(resume=dataclasses.replace(kept[6], accuracies=()), budget=8)


def test_a_curve_of_other_images_is_refused():
    kept = []
    run(checkpoint=kept.append, budget=8)
    other = dataclasses.replace(kept[4], rows=tuple((row + 1) % 24 for row in kept[4].rows))
    with pytest.raises(SimulationError, match="first labels of the run so far are others"):
        run(resume=other, budget=8)


def test_scores_that_are_no_numbers_stop_a_run(monkeypatch):
    broken = dataclasses.replace(
        STRATEGIES["margin"], scores=lambda situation, _: torch.full((situation.size,), torch.nan)
    )
    monkeypatch.setitem(STRATEGIES, "margin", broken)
    with pytest.raises(NonFiniteError, match="score of nan"):
        run(strategy="margin")


def test_a_form_that_does_not_exist_is_refused_at_once():
    with pytest.raises(SimulationError, match="no form 'other'"):
        run(form="other", budget=3)
