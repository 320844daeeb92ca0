"""Every strategy against its formula written out, label after label."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from alcore.acquisition import geometry
from alcore.acquisition.badge import Badge
from alcore.acquisition.bald import bald_scores
from alcore.acquisition.geometry import BLOCK, Embedded, Kernelled
from alcore.acquisition.lcmd import LargestClusterMaximumDistance
from alcore.acquisition.ll4al import loss_ranking
from alcore.acquisition.max_herding import MaxHerding
from alcore.acquisition.prob_cover import ProbCover, cover_radius
from alcore.acquisition.strategies import start
from alcore.acquisition.typiclust import TypiClust, clusters_of
from alcore.acquisition.uncertainty import UncertaintyError
from alcore.acquisition.uncertainty_herding import (
    TEMPERATURES,
    UncertaintyHerding,
    calibrated_temperature,
    label_radius,
    softmax_uncertainty,
)
from tests.alcore import reference_strategies as slow
from tests.alcore.situations import situation_of

drawn = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "images": st.integers(2, 14),
        "width": st.integers(1, 5),
        "labelled": st.lists(st.integers(0, 13), max_size=5, unique=True),
        "duplicates": st.booleans(),
    }
)


def draw_situation(values):
    images = max(values["images"], 5 if values["duplicates"] else 2)
    labelled = [row for row in values["labelled"] if row < images][: images - 1]
    return situation_of(**(values | {"images": images, "labelled": labelled}))


def assert_follows(selector, situation, scores_of, *, tolerance=1e-9):
    """Label after label, what is chosen has the best slow score, the lowest row among clear ties, and that score."""
    labelled, left = list(situation.labelled), situation.candidates.clone()
    while left.any():
        row, score = selector.choose(left)
        scores = scores_of(labelled, left.nonzero()[:, 0].tolist())
        best = max(scores.values())
        assert left[row]
        assert scores[row] == pytest.approx(best, rel=1e-9, abs=tolerance)
        assert score == pytest.approx(best, rel=1e-9, abs=tolerance)
        exact = [other for other, value in scores.items() if value == best]
        if scores[row] == best:
            assert row == min(exact)
        selector.label_(row)
        labelled.append(row)
        left[row] = False


def of_candidates(values, rows):
    return {row: float(values[row]) for row in rows}


@settings(deadline=None, max_examples=40)
@given(values=drawn)
def test_core_set_takes_the_candidate_farthest_from_its_nearest_label(values):
    situation = draw_situation(values)
    assume(situation.size > 2 or situation.labelled)  # two images are as far from their mean, but for rounding
    rows = situation.embeddings
    assert_follows(
        start("core_set", situation, count=1, seed=0),
        situation,
        lambda labelled, left: of_candidates(slow.core_set(rows, labelled), left),
    )


@settings(deadline=None, max_examples=40)
@given(values=drawn, by_kernel=st.booleans())
def test_lcmd_takes_the_farthest_of_the_largest_cluster(values, by_kernel):
    situation = draw_situation(values | {"duplicates": False})
    rows = torch.linalg.cholesky(situation.kernel + 1e-9 * torch.eye(situation.size))
    geometry = Kernelled(rows @ rows.t()) if by_kernel else Embedded(rows)
    assert_follows(
        LargestClusterMaximumDistance(geometry, situation.labelled),
        situation,
        lambda labelled, left: slow.lcmd(rows, labelled, left),
        tolerance=1e-6,
    )


# No radius of 1 (or 2): a row of zeros is that far from each unit row but for rounding, and both answers are right.
@settings(deadline=None, max_examples=40)
@given(values=drawn, radius=st.sampled_from([0.1, 0.5, 0.99, 1.9]))
def test_prob_cover_counts_what_a_ball_would_newly_cover(values, radius):
    situation = draw_situation(values)
    rows = situation.embeddings
    assert_follows(
        ProbCover(rows, situation.labelled, radius=radius),
        situation,
        lambda labelled, left: of_candidates(slow.prob_cover(rows, labelled, radius), left),
    )


@settings(deadline=None, max_examples=40)
@given(values=drawn, radius=st.sampled_from([0.3, 1.0]), weighted=st.booleans())
def test_max_herding_takes_the_largest_gain_of_coverage(values, radius, weighted):
    situation = draw_situation(values)
    rows = situation.embeddings
    generator = torch.Generator().manual_seed(values["seed"])
    weights = torch.rand(situation.size, generator=generator, dtype=torch.float64) if weighted else None
    plain = [1.0] * situation.size if weights is None else weights.tolist()
    assert_follows(
        MaxHerding(rows, situation.labelled, radius=radius, weights=weights),
        situation,
        lambda labelled, left: of_candidates(slow.coverage_gains(rows, labelled, radius=radius, weights=plain), left),
    )


def test_max_herding_evaluates_few_candidates_again_and_still_finds_the_best():
    rows = torch.randn(400, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lazy = MaxHerding(rows)
    evaluated = []
    gains = lazy._gains
    lazy._gains = lambda block: evaluated.append(len(block)) or gains(block)
    left = torch.ones(400, dtype=torch.bool)
    labelled = []
    for _ in range(12):
        evaluated.clear()
        row, score = lazy.choose(left)
        assert score == pytest.approx(MaxHerding(rows, labelled).choose(left)[1], rel=1e-12)
        lazy.label_(row)
        labelled.append(row)
        left[row] = False
    assert sum(evaluated) < 200


@settings(deadline=None, max_examples=25)
@given(values=drawn)
def test_uncertainty_herding_weighs_by_uncertainty_at_the_radius_of_the_labels(values):
    situation = draw_situation(values)
    rows, labelled = situation.embeddings, list(situation.labelled)
    weights = [1.0] * situation.size
    if labelled:
        shares = (situation.mean / 0.5).softmax(1)
        weights = [1 - float(p.sort().values[-1] - p.sort().values[-2]) for p in shares]
    points = slow.unit(rows)
    apart = [slow.distance(points[i], points[j]) for i in labelled for j in labelled if i < j]
    radius = min([d for d in apart if d > 1e-6], default=1.0)
    assert label_radius(rows, labelled) == pytest.approx(radius)
    assert_follows(
        UncertaintyHerding(rows, situation.mean, labelled, temperature=0.5),
        situation,
        lambda taken, left: of_candidates(slow.coverage_gains(rows, taken, radius=radius, weights=weights), left),
    )


class Largest(TorchDispatchMode):
    """Notes the most numbers that a tensor had which was made inside."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-5])
def test_uncertainty_herding_in_single_precision_stands_two_labels_that_are_nearly_copies(gap):
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(200, 64, generator=generator).relu()
    embeddings[1] = embeddings[0] * (1 + gap * torch.randn(64, generator=generator))
    mean = 3 * torch.rand(200, 5, generator=generator)
    single = UncertaintyHerding(embeddings, mean, (0, 1))
    exact = UncertaintyHerding(embeddings.double(), mean.double(), (0, 1))
    rows = torch.arange(200)
    assert torch.equal(single._similarities(rows).diagonal().double(), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(single._similarities(rows).double(), exact._similarities(rows))
    candidates = rows > 1
    for _ in range(20):
        (row, score), expected = single.choose(candidates), exact.choose(candidates)
        assert (row, score) == (expected[0], pytest.approx(expected[1]))
        candidates[row] = False
        single.label_(row)
        exact.label_(row)


def test_the_radius_of_many_labels_is_found_without_all_pairs_at_once():
    count = 2 * BLOCK + 300
    angles = torch.linspace(0, 3, count, dtype=torch.float64)
    angles[700] = angles[1200] + 1e-4  # the closest two are in different blocks,
    angles[1:3] = angles[0]  # and copies do not count
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    with Largest() as largest:
        radius = label_radius(rows, range(count))
    assert radius == pytest.approx(1e-4, rel=1e-6)
    assert largest.numbers <= BLOCK * count
    assert label_radius(rows[:3], range(3)) == 1


def test_the_temperature_is_the_one_at_which_confidence_agrees_with_accuracy():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    answers = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    assert calibrated_temperature(logits, answers) == pytest.approx(2, rel=0.2)
    assert calibrated_temperature(logits[:3], answers[:3]) == float(TEMPERATURES[-1])
    assert softmax_uncertainty(torch.zeros(2, 3), 1.0).tolist() == [1.0, 1.0]
    assert softmax_uncertainty(torch.zeros(2, 1), 1.0).tolist() == [1.0, 1.0]


@settings(deadline=None, max_examples=25)
@given(values=drawn)
def test_badge_starts_with_the_longest_gradient_and_draws_by_squared_distance(values):
    situation = draw_situation(values)
    rows = slow.gradients(situation.mean, situation.embeddings)
    badge = Badge(situation.mean, situation.embeddings, seed=values["seed"])
    left = situation.candidates.clone()
    row, score = badge.choose(left)
    norms = {other: float(rows[other].square().sum()) for other in left.nonzero()[:, 0].tolist()}
    assert score == pytest.approx(max(norms.values()))
    assert norms[row] == pytest.approx(max(norms.values()))
    badge.label_(row)
    expected = [slow.distance(line, rows[row]) ** 2 for line in rows]
    assert badge.nearest.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("cached", [1, 25, 70, 10_000])
def test_distances_are_the_same_in_whatever_parts_they_are_made(monkeypatch, cached):
    monkeypatch.setattr(geometry, "CACHED", cached)
    rows = torch.randn(37, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = Embedded(rows).squared_distances(5)
    assert found.tolist() == (rows - rows[5]).square().sum(1).tolist()


def test_badge_draws_as_often_as_the_squared_distances_say():
    mean = torch.tensor([[0.5, 0.5]], dtype=torch.float64).repeat(4, 1)
    embeddings = torch.tensor([[9.0], [8.0], [7.0], [5.0]], dtype=torch.float64)  # gradients: halves of these, twice
    drawn_rows = []
    for seed in range(2000):
        badge = Badge(mean, embeddings, seed=seed)
        badge.label_(0)
        drawn_rows.append(badge.choose(torch.tensor([False, True, True, True]))[0])
    shares = torch.bincount(torch.tensor(drawn_rows), minlength=4) / 2000
    assert shares.tolist() == pytest.approx([0, 1 / 21, 4 / 21, 16 / 21], abs=0.03)


@settings(deadline=None, max_examples=25)
@given(values=drawn)
def test_bald_is_the_information_of_an_answer_about_the_weights(values):
    samples = draw_situation(values).dropout_samples
    assert bald_scores(samples).tolist() == pytest.approx(slow.bald(samples), abs=1e-9)


def test_bald_needs_samples_of_classes():
    for shape in ((0, 4, 3), (2, 4, 1), (4, 3)):
        with pytest.raises(UncertaintyError, match="BALD takes samples"):
            bald_scores(torch.zeros(shape))


def test_typiclust_takes_the_most_typical_of_the_largest_clusters_without_a_label():
    generator = torch.Generator().manual_seed(0)
    sizes = (30, 22, 14, 9)
    centres = torch.eye(4, dtype=torch.float64).repeat_interleave(torch.tensor(sizes), dim=0)
    rows = centres + 0.05 * torch.randn(75, 4, generator=generator, dtype=torch.float64)
    starts = [0, 30, 52, 66]
    typiclust = TypiClust(rows, [3], count=3, seed=0)
    left = torch.ones(75, dtype=torch.bool)
    left[3] = False
    for place in (1, 2, 3):
        members = list(range(starts[place], starts[place] + sizes[place]))
        scores = {row: slow.typicality(rows, members, row) for row in members}
        row, score = typiclust.choose(left)
        assert score == pytest.approx(max(scores.values()))
        assert row == max(scores, key=scores.get)
        typiclust.label_(row)
        left[row] = False
    assert typiclust.choose(left)[0] < 30  # every cluster has a label now: the largest again


def test_small_clusters_wait_until_there_are_no_others():
    rows = torch.cat([torch.eye(3, dtype=torch.float64)[[0]].repeat(6, 1), torch.eye(3, dtype=torch.float64)[[1, 2]]])
    typiclust = TypiClust(rows, count=3, seed=0)
    order = []
    left = torch.ones(8, dtype=torch.bool)
    for _ in range(8):
        order.append(typiclust.choose(left)[0])
        typiclust.label_(order[-1])
        left[order[-1]] = False
    assert order[:6] == [0, 1, 2, 3, 4, 5]
    assert sorted(order[6:]) == [6, 7]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), purity=st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_the_radius_is_the_largest_at_which_enough_balls_are_pure(seed, purity):
    rows = torch.randn(30, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    clusters = clusters_of(slow.unit(rows), 3, seed=seed)
    radius = cover_radius(rows, classes=3, seed=seed, purity=purity)
    assert slow.impurity(rows, clusters, radius) <= 1 - purity + 1e-9
    assert slow.impurity(rows, clusters, radius * (1 + 1e-6)) > 1 - purity + 1e-9


def test_a_pool_of_one_cluster_is_covered_by_one_ball():
    assert cover_radius(torch.ones(6, 2), classes=3, seed=0) == 2


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.tuples(st.floats(-3, 3), st.floats(0, 3)), min_size=2, max_size=9))
def test_the_loss_module_learns_the_order_of_losses(values):
    predicted, losses = [[pair[place] for pair in values] for place in (0, 1)]
    found = loss_ranking(torch.tensor(predicted, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64))
    assert float(found) == pytest.approx(slow.ranking_loss(predicted, losses))
    assert float(loss_ranking(torch.ones(1), torch.ones(1))) == 0
