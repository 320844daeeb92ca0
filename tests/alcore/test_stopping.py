"""How many labels are still needed: the posterior over learning curves, and what it is when little is known."""

import math

import numpy as np
import pytest

from alcore import stopping
from alcore.stopping import Audited, LeftOut, StoppingError, learning_curves


def true_accuracy(labels: int) -> float:
    return 0.95 - 0.75 * (1 + labels / 25) ** -0.9


def audit(counts, *, seed: int = 0) -> list[Audited]:
    chance = np.random.default_rng(seed)
    return [Audited(count, bool(chance.random() < true_accuracy(count))) for count in counts]


def test_without_answers_nearly_everything_is_possible():
    point = learning_curves([], classes=10).accuracy([100])[0]
    assert point.low < 0.45
    assert point.high > 0.85


def test_many_answers_find_the_curve_they_came_from():
    curves = learning_curves(audit(range(10, 2000, 2)), classes=10)
    for point in curves.accuracy([50, 200, 1000]):
        assert point.accuracy == pytest.approx(true_accuracy(point.labels), abs=0.07)
        assert point.high - point.low < 0.15
    need = curves.need(0.92, labels=200)
    truth = next(n for n in range(2000) if true_accuracy(n) >= 0.92) - 200
    assert need.low < truth < (need.high or math.inf)


def test_the_posterior_is_bayes_rule_by_the_slow_way():
    answers = audit(range(10, 120, 3))
    curves = learning_curves(answers, [LeftOut(90, 0.7)], classes=10, seed=1)
    draws = stopping._curves(np.random.default_rng(5).standard_normal((400_000, 5)), 0.9)
    weights = np.exp(stopping._log_likelihood(draws, answers, [LeftOut(90, 0.7)]))
    weights /= weights.sum()
    slow = 1 - stopping._errors(draws, np.array([300]))[:, 0]
    mean = float(weights @ slow)
    fast = 1 - curves._errors(np.array([300]))[:, 0]
    assert float(curves.weights @ fast) == pytest.approx(mean, abs=0.004)
    assert float(curves.weights @ np.square(fast - mean)) == pytest.approx(
        float(weights @ np.square(slow - mean)), rel=0.1
    )


def test_an_answer_counts_as_its_probability_says():
    curves = learning_curves([], classes=4)
    parameters = (curves.start, curves.scale, curves.rate, curves.bend, curves.floor)
    found = stopping._log_likelihood(parameters, [Audited(30, True), Audited(30, False), Audited(70, True)], [])
    for place in (0, 17):
        start, scale, rate, bend, floor = (float(values[place]) for values in parameters)
        error = {n: floor + (start - floor) * (1 + (n / scale) ** bend) ** (-rate / bend) for n in (30, 70)}
        expected = math.log(1 - error[30]) + math.log(error[30]) + math.log(1 - error[70])
        assert found[place] == pytest.approx(expected, rel=1e-9)


def test_labels_needed_bring_each_curve_to_its_target():
    curves = learning_curves(audit(range(10, 100, 5)), classes=10)
    found = curves._labels_at(0.2)
    finite = np.flatnonzero(np.isfinite(found))[:50]
    assert len(finite) == 50
    for place in finite:
        one = [
            np.array([values[place]]) for values in (curves.start, curves.scale, curves.rate, curves.bend, curves.floor)
        ]
        error = stopping._errors(tuple(one), np.array([found[place]]))[0, 0]
        assert error == pytest.approx(0.2, abs=1e-6)
    assert np.isinf(found[curves.floor >= 0.2]).all()


def test_a_higher_target_needs_more_labels():
    curves = learning_curves(audit(range(10, 300, 4)), classes=10)
    needs = [curves.need(target, labels=300) for target in (0.8, 0.9, 0.94, 0.99)]
    middles = [math.inf if need.labels is None else need.labels for need in needs]
    assert middles == sorted(middles)
    assert needs[-1].high is None
    assert needs[0].reached > needs[1].reached > needs[2].reached


def test_a_target_that_was_reached_needs_nothing_more():
    need = learning_curves([Audited(n, True) for n in range(20, 200, 2)], classes=3).need(0.7, labels=200)
    assert (need.low, need.labels, need.high) == (0, 0, 0)
    assert need.reached > 0.95


def test_a_model_that_is_always_wrong_promises_nothing():
    need = learning_curves([Audited(n, False) for n in range(20, 400, 4)], classes=2).need(0.9, labels=400)
    assert need.high is None
    assert need.reached < 0.01


def test_more_answers_make_the_interval_narrower():
    few, many = (learning_curves(audit(range(10, 200, step)), classes=10).accuracy([200])[0] for step in (20, 1))
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_leave_one_out_says_a_little_and_less_than_the_same_number_of_audits():
    def width(*given):
        point = learning_curves(*given, classes=10).accuracy([100])[0]
        return point.high - point.low

    nothing = width([])
    weak = width([], [LeftOut(100, 0.8)])
    audited = width([Audited(100, n % 5 != 0) for n in range(100)])
    assert audited < 0.6 * weak
    assert weak < 0.95 * nothing


def test_leave_one_out_accuracies_share_one_offset():
    twice = learning_curves([], [LeftOut(100, 0.8)] * 20, classes=10).accuracy([100])[0]
    once = learning_curves([], [LeftOut(100, 0.8)], classes=10).accuracy([100])[0]
    assert twice.high - twice.low > 0.75 * (once.high - once.low)


def test_leave_one_out_of_all_or_none_is_no_infinity():
    for accuracy in (0.0, 1.0):
        point = learning_curves([], [LeftOut(20, accuracy)], classes=10).accuracy([20])[0]
        assert 0 < point.accuracy < 1


def test_the_seed_decides_everything():
    answers = audit(range(10, 100, 5))
    first, again, other = (learning_curves(answers, classes=10, seed=seed).need(0.9, labels=100) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_curves_that_agree_with_thousands_of_answers_are_still_many():
    assert learning_curves(audit(range(10, 6000, 2)), classes=10).effective > 100


@pytest.mark.parametrize("target", [0.0, 1.0, math.nan, 7])
def test_a_target_that_is_no_accuracy_is_refused(target):
    with pytest.raises(StoppingError, match="between 0 and 1"):
        learning_curves([], classes=3).need(target, labels=10)


@pytest.mark.parametrize(
    ("audited", "left_out", "classes", "words"),
    [
        ([], [], 1, "fewer than two"),
        ([Audited(-1, True)], [], 3, "not negative, got .-1."),
        ([], [LeftOut(-2, 0.5)], 3, "not negative, got .-2."),
        ([], [LeftOut(5, 1.5)], 3, "between 0 and 1, got .1.5."),
        ([], [LeftOut(5, math.nan)], 3, "between 0 and 1"),
        ([], [LeftOut(0, 0.5)], 3, "are of labels"),
    ],
)
def test_what_no_curve_can_be_fitted_to_is_refused(audited, left_out, classes, words):
    with pytest.raises(StoppingError, match=words):
        learning_curves(audited, left_out, classes=classes)
