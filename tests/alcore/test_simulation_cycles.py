"""Labels in batches: the same first images and subsets for all, the best of each subset, networks from scratch."""

import dataclasses
import functools

import pytest
import torch

from alcore.comparison import Contender, Plan, compare, from_json, summarise, to_json
from alcore.datasets import Preprocessing
from alcore.linearization import linearize
from alcore.metrics import accuracy
from alcore.network import build_network, outputs
from alcore.regularization import FIRST_RIDGE
from alcore.simulation import Cycles, SimulationError, cycles, simulate_cycles
from alcore.simulation.networks import Networks
from alcore.training import TrainingOptions, train
from tests.alcore.test_simulation import bars

QUICK = TrainingOptions(epochs=1, minimum_steps=3)
CYCLES = Cycles(first=8, step=6, subset=20)
POOL = 60


def run(**options):
    defaults = {"classes": 3, "strategy": "margin", "cycles": CYCLES, "budget": 20, "seed": 5, "training": QUICK}
    return simulate_cycles(*bars(POOL, seed=0), *bars(30, seed=1), **(defaults | options))


def trained_on(rows):
    """The network of these labels, trained here."""
    images, labels = bars(POOL, seed=0)
    seed = 5 * 100_003 + len(rows)
    module = build_network("small_cnn", classes=3, preprocessing=Preprocessing.plain(size=16, channels=1), seed=seed)
    train(module, images[rows], torch.eye(3)[labels[rows]], options=dataclasses.replace(QUICK, seed=seed))
    return module


def subset_of(rows):
    order = torch.randperm(POOL, generator=torch.Generator().manual_seed(5 * 100_003 + len(rows))).tolist()
    return [row for row in order if row not in rows][:20]


def believed(rows, subset):
    """The linear model's predictions for the subset, by one dense solve."""
    images, labels = bars(POOL, seed=0)
    found = linearize(trained_on(rows), images[[*rows, *subset]], seed=5)
    kernel, f0, n = found.kernel.double(), found.outputs.double(), len(rows)
    ridge = FIRST_RIDGE * float(kernel.diagonal().mean()) * torch.eye(n, dtype=torch.float64)
    residuals = torch.eye(3, dtype=torch.float64)[labels[rows]] - f0[:n]
    return f0[n:] + kernel[n:, :n] @ torch.linalg.solve(kernel[:n, :n] + ridge, residuals)


def test_each_cycle_takes_the_best_of_its_subset_and_measures_its_network():
    curve = run()
    assert curve.labels == curve.trainings == (8, 14, 20)
    assert len(set(curve.rows)) == 20
    first = torch.randperm(POOL, generator=torch.Generator().manual_seed(5))[:8].tolist()
    assert list(curve.rows[:8]) == first
    for count, share in zip(curve.labels, curve.accuracies, strict=True):
        rows = list(curve.rows[:count])
        test_images, test_labels = bars(30, seed=1)
        assert share == accuracy(outputs(trained_on(rows), test_images), test_labels)
        if count < 20:
            subset = subset_of(rows)
            best = believed(rows, subset).topk(2, dim=1).values
            wanted = (best[:, 0] - best[:, 1]).argsort()[:6]
            assert set(curve.rows[count : count + 6]) == {subset[place] for place in wanted.tolist()}


@pytest.mark.parametrize("strategy", ["lookahead", "random", "lcmd", "badge", "typiclust", "bald", "ll4al"])
def test_a_run_goes_on_from_any_cycle_as_if_never_stopped(strategy):
    kept = []
    whole = run(strategy=strategy, checkpoint=kept.append)
    assert [len(curve.rows) for curve in kept] == [14, 20, 20]
    assert kept[-1] == whole
    for curve in kept:
        assert run(strategy=strategy, resume=curve) == whole


def test_strategies_begin_with_the_same_images_and_choose_from_the_same():
    curves = [run(strategy=strategy) for strategy in ("random", "entropy", "max_herding")]
    assert len({curve.rows[:8] for curve in curves}) == 1
    assert len({curve.accuracies[0] for curve in curves}) == 1
    subset = subset_of(list(curves[0].rows[:8]))
    assert all(set(curve.rows[8:14]) <= set(subset) for curve in curves)
    assert len({frozenset(curve.rows[8:14]) for curve in curves}) == 3


def test_the_last_images_of_a_pool_are_taken_too():
    assert sorted(run(budget=POOL, cycles=Cycles(first=8, step=26, subset=30)).rows) == list(range(POOL))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"budget": 21}, "21 labels are not 8 and whole steps of 6"),
        ({"budget": 62}, "62 labels are more than 60 images"),
        ({"budget": 2}, "2 labels are not 8"),
        ({"strategy": "margn"}, "no strategy 'margn'"),
        ({"strategy": "lookahead", "form": "cubes"}, "no form 'cubes'"),
        ({"classes": 2}, "labels must be from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_training(monkeypatch, wrong, words):
    monkeypatch.setattr(Networks, "trained", None)
    with pytest.raises(SimulationError, match=words):
        run(**wrong)


@pytest.mark.parametrize("wrong", [{"first": 0}, {"step": 0}, {"step": 30}])
def test_cycles_without_labels_or_larger_than_their_subset_are_refused(wrong):
    with pytest.raises(SimulationError, match="no larger than the subset"):
        dataclasses.replace(CYCLES, **wrong)


def test_a_run_of_something_else_is_not_gone_on_with():
    curve = run(strategy="random")
    for other in ({"seed": 6}, {"strategy": "margin"}, {"cycles": Cycles(first=8, step=12, subset=20)}):
        with pytest.raises(SimulationError, match=r"cannot go on|networks are due"):
            run(**({"strategy": "random", "resume": curve} | other))


@pytest.mark.parametrize(
    "damage",
    [
        lambda curve: {"accuracies": ()},
        lambda curve: {"accuracies": (float("nan"),)},
        lambda curve: {"rows": (*curve.rows[:-1], POOL)},
        lambda curve: {"rows": (*curve.rows[:-1], -1)},
        lambda curve: {"rows": (*curve.rows[:-1], curve.rows[0])},
    ],
)
@pytest.mark.parametrize("place", [0, -1])
def test_a_damaged_run_is_not_gone_on_with(damage, place):
    kept = []
    run(strategy="random", checkpoint=kept.append)
    damaged = dataclasses.replace(kept[place], **damage(kept[place]))
    with pytest.raises(SimulationError, match="damaged"):
        run(strategy="random", resume=damaged)


def test_images_and_labels_that_do_not_fit_are_refused():
    images, labels = bars(POOL, seed=0)
    with pytest.raises(SimulationError, match="60 images have 50 labels"):
        simulate_cycles(images, labels[:50], *bars(30, seed=1), classes=3, strategy="random", cycles=CYCLES, budget=20)


@pytest.mark.parametrize("strategy", ["lookahead", "margin", "lcmd", "epig"])
def test_a_large_pool_is_chosen_from_by_its_sketched_features(monkeypatch, strategy):
    monkeypatch.setattr(cycles, "linearize", functools.partial(linearize, pairwise_limit=0))
    kept = []
    curve = run(strategy=strategy, checkpoint=kept.append)
    assert len(set(curve.rows)) == 20
    assert run(strategy=strategy, resume=kept[0]) == curve


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"labels": 21}, "whole steps"),
        ({"first": 8}, "in cycles it is they"),
        ({"growth": 2.0}, "in cycles it is they"),
        ({"pool": 19}, "20 labels are more than a pool of 19"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(wrong, words):
    plan = Plan((Contender("random"),), seeds=1, labels=20, held_out=5, cycles=CYCLES)
    with pytest.raises(SimulationError, match=words):
        dataclasses.replace(plan, **wrong)


def test_cycles_start_from_no_trained_network():
    images, labels = bars(POOL, seed=0)
    start = build_network("small_cnn", classes=3, preprocessing=Preprocessing.plain(size=16, channels=1), seed=0)
    plan = Plan((Contender("random"),), seeds=1, labels=20, held_out=5, cycles=CYCLES)
    with pytest.raises(SimulationError, match="from scratch"):
        compare(images, labels, classes=3, plan=plan, start=start)


def test_a_comparison_in_cycles_is_summarised_like_any_other():
    images, labels = bars(90, seed=0)
    contenders = (Contender("random"), Contender("lookahead", "squares"))
    plan = Plan(contenders, seeds=2, labels=20, held_out=30, training=QUICK, cycles=CYCLES)
    assert plan.checkpoints(3) == (8, 14, 20)
    kept = []
    curves = compare(images, labels, classes=3, plan=plan, keep=lambda curves: kept.append(to_json(curves)))
    assert compare(images, labels, classes=3, plan=plan, kept=from_json(kept[4])) == curves
    results = summarise(curves)
    assert results["random"]["curve"]["labels"] == [8, 14, 20]
    assert results["random"]["linear_model_auc"] is results["random"]["linear_model_auc_ci"] is None
    assert results["lookahead-squares"]["auc_gain_over_random"] is not None


def test_any_network_can_be_trained_in_cycles(monkeypatch):
    """Its batch norms have seen images of the pool."""
    norms = []

    def measure(module, images):
        norms.append(next(layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)))
        return outputs(module, images)

    monkeypatch.setattr(cycles, "outputs", measure)
    curve = simulate_cycles(
        *bars(16, seed=0, size=32),
        *bars(6, seed=1, size=32),
        classes=3,
        strategy="lookahead",
        cycles=Cycles(first=4, step=2, subset=5, network="resnet18"),
        budget=6,
        training=TrainingOptions(epochs=1, minimum_steps=1, batch_size=4),
    )
    assert curve.labels == (4, 6)
    assert len(norms) == 2
    assert norms[0].running_mean.abs().max() > 0.01
    assert len(set(curve.rows)) == 6
