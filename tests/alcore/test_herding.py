"""Herding against the formula written out, and the random order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.acquisition import herding
from alcore.acquisition.herding import HerdingError, herding_order
from alcore.acquisition.random import random_scores
from tests.alcore import reference_gradients


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 12), width=st.integers(1, 6), seed=st.integers(0, 1000), data=st.data())
def test_every_row_taken_from_features_or_kernel_has_the_best_score_of_the_formula(rows, width, seed, data):
    count = data.draw(st.integers(0, rows))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, dtype=torch.float64, generator=generator)
    if width == 1:
        features = torch.cat([features, torch.ones(rows, 1, dtype=torch.float64)], dim=1)
    kernel = features @ features.T
    for order in (herding_order(features=features, count=count), herding_order(kernel=kernel, count=count)):
        assert len(order) == count
        for step, row in enumerate(order.tolist()):
            scores = reference_gradients.herding_scores(kernel, order[:step].tolist())
            assert scores[row] >= max(scores.values()) - 1e-9


def test_the_order_covers_clusters_before_it_returns_to_one():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(10, dim=0)
    features = centres + 0.05 * torch.randn(40, 4, generator=generator)
    first = herding_order(features=features, count=8) // 10
    assert sorted(first[:4].tolist()) == [0, 1, 2, 3]
    assert sorted(first[4:].tolist()) == [0, 1, 2, 3]


def test_no_row_comes_twice_and_the_length_of_the_features_does_not_matter():
    features = torch.randn(15, 3, generator=torch.Generator().manual_seed(1))
    order = herding_order(features=features, count=15)
    assert sorted(order.tolist()) == list(range(15))
    lengths = torch.rand(15, 1, generator=torch.Generator().manual_seed(2)) + 0.5
    assert torch.equal(herding_order(features=features * lengths, count=15), order)


def test_equal_rows_are_taken_from_the_lowest_up():
    assert herding_order(features=torch.ones(4, 2), count=4).tolist() == [0, 1, 2, 3]


def test_progress_is_told_for_every_row():
    seen = []
    herding_order(features=torch.eye(3), count=2, progress=lambda share, message: seen.append((share, message)))
    assert seen == [(0.5, "ordered 1 of 2 images"), (1.0, "ordered 2 of 2 images")]


def test_impossible_requests_are_explained():
    with pytest.raises(HerdingError, match="only one of them"):
        herding_order(count=1)
    with pytest.raises(HerdingError, match="only one of them"):
        herding_order(kernel=torch.eye(2), features=torch.eye(2), count=1)
    with pytest.raises(HerdingError, match="5 images were asked for from a pool of 2"):
        herding_order(kernel=torch.eye(2), count=5)
    with pytest.raises(HerdingError, match="not finite"):
        herding_order(features=torch.full((2, 2), torch.nan), count=1)


def test_random_scores_depend_on_the_seed_alone_and_fill_the_unit_interval():
    scores = random_scores(5000, seed=3)
    assert torch.equal(scores, random_scores(5000, seed=3))
    assert not torch.equal(scores, random_scores(5000, seed=4))
    assert abs(scores.mean() - 0.5) < 0.02
    assert scores.min() >= 0
    assert scores.max() < 1
    with pytest.raises(ValueError, match="-1"):
        random_scores(-1, seed=0)


@pytest.mark.parametrize("by_kernel", [False, True])
def test_blocks_stay_far_closer_to_the_pool_than_chance(monkeypatch, by_kernel):
    features = torch.randn(300, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.3
    given = {"kernel": features @ features.T} if by_kernel else {"features": features}
    single = herding_order(**given, count=150)
    monkeypatch.setattr(herding, "ONE_BY_ONE", 20)
    blocks = herding_order(**given, count=150)
    assert torch.equal(blocks[:20], single[:20])
    assert len(set(blocks.tolist())) == 150
    assert sorted(herding_order(**given, count=300).tolist()) == list(range(300))
    rows = torch.nn.functional.normalize(features)

    def distance(order):
        return (rows[order].mean(0) - rows.mean(0)).norm()

    for count in (40, 80, 150):
        assert distance(blocks[:count]) < 0.5 * distance(torch.arange(count))
