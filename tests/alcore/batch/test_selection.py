"""Every selection method against its slow twin, in both modes, from features and from a kernel."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.batch import METHODS, ahead, frank_wolfe, max_dist, select_batch, shortlist
from tests.alcore.batch import reference_batch as reference

SHAPES = {
    "size": st.integers(2, 14),
    "trained": st.integers(0, 5),
    "width": st.integers(2, 6),
    "seed": st.integers(0, 10_000),
}
DETERMINISTIC = ("max_dist", "lcmd", "max_det", "bait", "frank_wolfe")


def draw(size, trained, width, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(size + trained, width, dtype=torch.float64, generator=generator)
    return features, list(range(size, size + trained))


def twin(method, features, size, trained, count, noise):
    kernel = features @ features.T
    if method == "frank_wolfe":
        return reference.frank_wolfe(features, size, trained, count)
    if method in ("max_det", "bait"):
        return getattr(reference, method)(kernel, size, trained, count, noise)
    return getattr(reference, method)(kernel, size, trained, count)


@pytest.mark.parametrize("method", DETERMINISTIC)
@pytest.mark.parametrize("mode", ["P", "TP"])
@settings(deadline=None, max_examples=30)
@given(data=st.data(), **SHAPES)
def test_picks_and_scores_are_those_of_the_slow_twin(method, mode, data, size, trained, width, seed):
    features, train = draw(size, trained, width, seed)
    # Beyond the width nothing is left but rounding in a kernel without noise, and Frank-Wolfe has arrived.
    count = data.draw(st.integers(1, min(size, width) if method == "frank_wolfe" else size))
    noise = data.draw(st.sampled_from([0.3, 1.0]))
    known = train if mode == "TP" else []
    rows, scores = twin(method, features, size, known, count, noise)
    choices = {"train": train, "count": count, "selection": method, "mode": mode, "noise": noise}
    for given_as in ({"features": features}, {"kernel": features @ features.T}):
        batch = select_batch(**given_as, **choices)
        torch.testing.assert_close(batch.scores, torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-8)
        assert list(batch.rows) == rows


@settings(deadline=None, max_examples=30)
@given(over=st.sampled_from([1.5, 2.0, 3.0]), mode=st.sampled_from(["P", "TP"]), **SHAPES)
def test_bait_puts_back_what_it_can_spare(over, mode, size, trained, width, seed):
    features, train = draw(size, trained, width, seed)
    count = max(1, size // 2)
    rows, scores = reference.bait(features @ features.T, size, train if mode == "TP" else [], count, 0.5, over)
    batch = select_batch(
        features=features, train=train, count=count, selection="bait", mode=mode, noise=0.5, over_selection=over
    )
    torch.testing.assert_close(batch.scores, torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert list(batch.rows) == rows


@pytest.mark.parametrize("method", ["max_det", "max_dist", "lcmd", "bait", "frank_wolfe"])
@pytest.mark.parametrize("trained", [0, 40])
def test_passing_over_the_pool_for_many_picks_at_once_changes_no_pick(method, trained):
    """A pool that is larger than the shortlist, so that the next picks must be found among few images."""
    features, train = draw(1500, trained, 24, 3)
    features *= torch.linspace(0.2, 2, len(features))[torch.randperm(len(features))][:, None]
    batch = select_batch(features=features, train=train, count=12, selection=method, mode="TP", noise=0.2)
    rows, scores = twin(method, features, 1500, train, 12, 0.2) if method != "bait" else quick_bait(features, train)
    assert list(batch.rows) == rows
    torch.testing.assert_close(batch.scores, torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-8)


def quick_bait(features, trained):
    """The twin's rule for a pool too large for it: the drop is ||C[:, j]||^2 / (C_jj + noise^2)."""
    kernel, picks, scores = features @ features.T, [], []
    for _ in range(12):
        left = reference.posterior(kernel, [*trained, *picks], 0.2)[:, :1500]
        values = left.square().sum(0) / (left.diagonal() + 0.04)
        picks.append(reference.best(values, picks))
        scores.append(float(values[picks[-1]]))
    return picks, scores


@pytest.fixture
def looks(monkeypatch):
    """How many picks Frank-Wolfe has scored by each pass over the pool."""
    counts = []

    def missing(self, places, features=None):
        if features is None:
            counts.append(len(places))
        return original(self, places, features)

    original = frank_wolfe._FeatureSum.missing
    monkeypatch.setattr(frank_wolfe._FeatureSum, "missing", missing)
    return counts


@pytest.mark.parametrize("trained", [0, 9])
@pytest.mark.parametrize("seed", range(3))
def test_frank_wolfe_foretells_picks_and_changes_none(monkeypatch, looks, trained, seed):
    """Among 12 likely images many picks are foretold wrongly; the last 5 images have no features."""
    monkeypatch.setattr(frank_wolfe, "LIKELY", 12)
    monkeypatch.setattr(frank_wolfe, "AHEAD", 5)
    features, train = draw(60, trained, 48, seed)
    rows, scores = twin("frank_wolfe", features, 60, train, 40, 0.2)
    features = torch.cat([features[:60], torch.zeros(5, 48, dtype=torch.float64), features[60:]])
    train = [row + 5 for row in train]
    batch = select_batch(features=features, train=train, count=40, selection="frank_wolfe", mode="TP")
    assert list(batch.rows) == rows
    torch.testing.assert_close(batch.scores, torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert max(looks) == 5
    assert len(looks) < 30 < sum(looks)
    everything = select_batch(features=features, train=train, count=65, selection="frank_wolfe", mode="TP").rows
    assert everything[60:] == (60, 61, 62, 63, 64)
    assert sorted(everything) == list(range(65))


def test_frank_wolfe_foretells_less_where_it_was_wrong(monkeypatch, looks):
    """The likely images are all of one group, the best picks are of another each time."""
    monkeypatch.setattr(frank_wolfe, "LIKELY", 30)
    generator = torch.Generator().manual_seed(0)
    groups = torch.eye(6, 40, dtype=torch.float64).repeat_interleave(50, 0)
    features = groups + 1e-3 * torch.rand(300, 40, dtype=torch.float64, generator=generator)
    batch = select_batch(features=features, count=40, selection="frank_wolfe")
    assert list(batch.rows) == reference.frank_wolfe(features, 300, [], 40)[0]
    assert looks[1] == frank_wolfe.AHEAD
    assert sum(looks) < 2.5 * 40


@pytest.mark.parametrize("method", DETERMINISTIC)
def test_single_precision_features_give_the_same_picks(method):
    features, train = draw(900, 30, 16, 8)
    choices = {"train": train, "count": 40, "selection": method, "mode": "TP"}
    exact = select_batch(features=features, **choices)
    assert select_batch(features=features.float(), **choices).rows == exact.rows


def test_max_diag_takes_the_largest_diagonal_first():
    kernel = torch.diag(torch.tensor([1.0, 3.0, 2.0, 3.0]))
    batch = select_batch(kernel=kernel, count=3, selection="max_diag")
    assert batch.rows == (1, 3, 2)
    assert batch.scores.tolist() == [3, 3, 2]


def test_bait_in_single_precision_compares_the_best_images_in_double():
    features = draw(900, 0, 24, 0)[0] * torch.linspace(1, 24, 24, dtype=torch.float64).reciprocal()
    exact = select_batch(features=features, count=90, selection="bait", noise=0.3)
    assert select_batch(features=features.float(), count=90, selection="bait", noise=0.3).rows == exact.rows


def test_random_is_a_sample_of_the_pool_that_depends_on_the_seed_alone():
    choices = {"features": torch.ones(50, 1), "train": [0, 7], "selection": "random", "count": 48}
    batch = select_batch(**choices, seed=4)
    assert sorted(batch.rows) == [row for row in range(50) if row not in (0, 7)]
    assert select_batch(**choices, seed=4).rows == batch.rows
    assert select_batch(**choices, seed=5).rows != batch.rows


def test_k_means_pp_draws_by_squared_distance_also_within_one_pass():
    """Exact probabilities of pairs, from training image 0: the second draw must count what the first has taken."""
    positions = torch.tensor([[0.0], [1.0], [1.5], [4.0]], dtype=torch.float64)
    squares = reference.distances(positions @ positions.T)
    near = squares[1:, 0]
    expected = {}
    for first in range(3):
        left = torch.minimum(near, squares[1:, first + 1])
        for second in range(3):
            expected[first + 1, second + 1] = float(near[first] / near.sum() * left[second] / left.sum())
    trials = 4000
    seen = Counter(
        select_batch(features=positions, train=[0], count=2, selection="k_means_pp", seed=seed).rows
        for seed in range(trials)
    )
    for pair, share in expected.items():
        margin = 4 * (share * (1 - share) / trials) ** 0.5
        assert abs(seen[pair] / trials - share) <= margin, pair


def test_k_means_pp_starts_anywhere_without_training_images():
    features = torch.eye(4)
    first = Counter(
        select_batch(features=features, count=1, selection="k_means_pp", seed=seed).rows[0] for seed in range(400)
    )
    assert sorted(first) == [0, 1, 2, 3]
    assert min(first.values()) > 60


def test_k_means_pp_scores_are_squared_distances_when_picked():
    features, train = draw(300, 5, 4, 2)
    batch = select_batch(features=features, train=train, count=100, selection="k_means_pp", seed=1)
    squares = reference.distances(features @ features.T)
    for place, row in enumerate(batch.rows):
        near = float(squares[row, [*train, *batch.rows[:place]]].min())
        assert float(batch.scores[place]) == pytest.approx(near, rel=1e-9)


def test_distance_methods_count_training_images_by_default_and_the_others_do_not():
    features, train = draw(60, 20, 5, 1)
    for method in METHODS:
        given_mode = "TP" if method in ("max_dist", "k_means_pp", "lcmd") else "P"
        other = "P" if given_mode == "TP" else "TP"
        choices = {"features": features, "train": train, "count": 10, "selection": method}
        default = select_batch(**choices)
        assert default.rows == select_batch(**choices, mode=given_mode).rows
        if method not in ("random", "max_diag"):
            assert default.rows != select_batch(**choices, mode=other).rows


def test_lcmd_says_which_cluster_an_image_was_picked_from():
    features = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0, 5], [0, 6]])
    batch = select_batch(features=features, train=[0, 3], count=1, selection="lcmd")
    assert batch.rows == (2,)
    assert batch.steps[0].details == {"cluster_sum": 5.0, "cluster_size": 2.0}


@pytest.mark.parametrize("method", ["max_dist", "lcmd", "max_diag"])
def test_ties_of_whole_numbers_go_to_the_lower_row(method):
    """Norms and distances of words are sums of ones: that of three is 3, not the square of its root."""
    for seed in range(10):
        pairs = torch.randint(0, 5, (40, 3), generator=torch.Generator().manual_seed(seed))
        words = torch.nn.functional.one_hot(pairs, 5).flatten(1).float()
        kernel = (words @ words.T).double()
        batch = select_batch(features=words, count=10, selection=method)
        if method == "max_diag":
            assert batch.rows == tuple(range(10))
        else:
            assert list(batch.rows) == twin(method, words.double(), 40, [], 10, 0.1)[0]
        assert batch.rows == select_batch(kernel=kernel, count=10, selection=method).rows
        assert all(score == round(score) for score in batch.scores.tolist())


@pytest.mark.parametrize("method", ["max_dist", "max_det"])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_shortlist_that_is_too_short_only_takes_longer(monkeypatch, method, size):
    monkeypatch.setattr(shortlist, "SHORTLIST", size)
    features, train = draw(70, 6, 5, 4)
    batch = select_batch(features=features, train=train, count=40, selection=method, mode="TP", noise=0.3)
    rows, scores = twin(method, features, 70, train, 40, 0.3)
    assert list(batch.rows) == rows
    torch.testing.assert_close(batch.scores, torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    alike = select_batch(features=torch.ones(40, 2), count=1, selection=method)
    assert alike.rows == (0,)


@pytest.mark.parametrize("method", ["lcmd", "max_dist"])
def test_distances_that_cancel_in_single_precision_keep_their_digits(monkeypatch, method):
    monkeypatch.setattr(shortlist, "SHORTLIST", 3)
    features = (draw(40, 0, 3, 6)[0] / 100 + 1000).float()
    batch = select_batch(features=features, count=20, selection=method)
    exact = features.double() - features.double().mean(0)
    kernel = exact @ exact.T
    chosen = list(batch.rows)
    for place in range(1, 20):
        near = float(reference.distances(kernel)[chosen[place], chosen[:place]].min())
        assert float(batch.scores[place]) == pytest.approx(near, rel=1e-6)


def test_columns_that_were_not_foretold_are_formed_all_the_same(monkeypatch):
    features, train = draw(400, 10, 6, 5)
    batch = select_batch(features=features, train=train, count=60)
    monkeypatch.setattr(ahead, "AHEAD", 1)
    monkeypatch.setattr(ahead, "HELD", 2)
    assert select_batch(features=features, train=train, count=60).rows == batch.rows


def test_a_pass_for_every_pick_gives_the_same_batch(monkeypatch):
    features, train = draw(2000, 10, 6, 5)
    batch = select_batch(features=features, train=train, count=60, selection="max_dist")
    monkeypatch.setattr(max_dist, "PICKS", 1)
    assert select_batch(features=features, train=train, count=60, selection="max_dist").rows == batch.rows
