"""Metrics against written-out cases and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alcore.metrics import MetricError, accuracy, area_under_curve, labels_to_reach, t_interval, wilson_interval


def test_accuracy_is_the_share_of_largest_outputs_that_are_the_label():
    predictions = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.7]])
    assert accuracy(predictions, torch.tensor([0, 1, 1, 1])) == 0.75
    with pytest.raises(MetricError, match="4 predictions cannot be compared with 3 labels"):
        accuracy(predictions, torch.tensor([0, 1, 1]))
    with pytest.raises(MetricError):
        accuracy(predictions[:0], torch.tensor([]))


@settings(deadline=None)
@given(n=st.integers(1, 500), data=st.data(), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_the_wilson_ends_are_the_shares_at_which_the_score_test_just_rejects(n, data, level):
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n, level)
    z = stats.norm.ppf((1 + level) / 2)
    for end in (low, high):
        if 0 < end < 1:
            score = (successes / n - end) / math.sqrt(end * (1 - end) / n)
            assert abs(score) == pytest.approx(z, rel=1e-6)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1


def test_wilson_at_a_known_case_and_at_the_ends():
    low, high = wilson_interval(90, 100)
    assert (low, high) == (pytest.approx(0.8256, abs=1e-4), pytest.approx(0.9448, abs=1e-4))
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(MetricError, match="3 of 2"):
        wilson_interval(3, 2)


def test_the_t_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        low, high = t_interval(generator.normal(3, 2, size=5))
        covered += low <= 3 <= high
    assert abs(covered / 2000 - 0.95) < 0.02
    assert all(math.isnan(end) for end in t_interval([1.0]))
    with pytest.raises(MetricError):
        t_interval([])


def test_the_area_is_the_mean_height_of_the_curve():
    assert area_under_curve([20, 30, 50], [0.5, 0.7, 0.7]) == pytest.approx((10 * 0.6 + 20 * 0.7) / 30)
    assert area_under_curve([20], [0.4]) == 0.4
    with pytest.raises(MetricError, match="must grow"):
        area_under_curve([20, 20], [0.1, 0.2])
    with pytest.raises(MetricError, match="2 and 1"):
        area_under_curve([20, 30], [0.1])


def test_labels_to_reach_is_read_off_the_straight_lines_of_the_curve():
    labels, accuracies = [20, 40, 80], [0.5, 0.7, 0.8]
    assert labels_to_reach(labels, accuracies, 0.4) == 20
    assert labels_to_reach(labels, accuracies, 0.6) == pytest.approx(30)
    assert labels_to_reach(labels, accuracies, 0.75) == pytest.approx(60)
    assert labels_to_reach(labels, accuracies, 0.9) is None
    assert labels_to_reach([1, 2, 3], [0.5, 0.4, 0.6], 0.5) == 1
    assert labels_to_reach([1, 2, 3], [0.3, 0.6, 0.4], 0.6) == 2
