"""The strategies against scikit-activeml's, an independent implementation, wherever it has them."""

import numpy as np
import pytest
import torch
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import Badge as OracleBadge
from skactiveml.pool import CoreSet as OracleCoreSet
from skactiveml.pool import MaxHerding as OracleMaxHerding
from skactiveml.pool import ProbCover as OracleProbCover
from skactiveml.pool import TypiClust as OracleTypiClust
from skactiveml.pool import batch_bald, uncertainty_scores
from sklearn.linear_model import LogisticRegression

from alcore.acquisition.badge import Badge
from alcore.acquisition.bald import bald_scores
from alcore.acquisition.core_set import CoreSet
from alcore.acquisition.geometry import unit_rows
from alcore.acquisition.max_herding import MaxHerding
from alcore.acquisition.prob_cover import ProbCover
from alcore.acquisition.typiclust import TypiClust
from alcore.acquisition.uncertainty import entropy_scores, least_confidence_scores, margin_scores

SEEDS = range(5)
COUNT = 60


def pool(seed, *, labelled=0):
    """Points around five centres, of length 1, and answers for the first few; the others have none (nan)."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(5, 6, generator=generator, dtype=torch.float64)
    rows = centres[torch.arange(COUNT) % 5] + torch.randn(COUNT, 6, generator=generator, dtype=torch.float64)
    answers = np.full(COUNT, np.nan)
    answers[:labelled] = np.arange(labelled) % 3
    return unit_rows(rows), answers


def chosen(selector, *, labelled, count):
    left = torch.ones(COUNT, dtype=torch.bool)
    left[:labelled] = False
    rows, scores = [], []
    for _ in range(count):
        row, score = selector.choose(left)
        selector.label_(row)
        left[row] = False
        rows.append(row)
        scores.append(score)
    return rows, scores


@pytest.mark.parametrize("seed", SEEDS)
def test_core_set_picks_and_scores(seed):
    rows, answers = pool(seed, labelled=4)
    picks, utilities = OracleCoreSet(random_state=0).query(rows.numpy(), answers, batch_size=12, return_utilities=True)
    mine, scores = chosen(CoreSet(rows, range(4)), labelled=4, count=12)
    assert mine == picks.tolist()
    assert scores == pytest.approx([utilities[step, row] for step, row in enumerate(picks)])


@pytest.mark.parametrize("seed", SEEDS)
def test_max_herding_picks_and_gains_of_a_cold_start(seed):
    rows, answers = pool(seed)
    oracle = OracleMaxHerding(metric_dict={"gamma": 1.0}, random_state=0)
    picks, utilities = oracle.query(rows.numpy(), answers, batch_size=12, return_utilities=True)
    mine, scores = chosen(MaxHerding(rows), labelled=0, count=12)
    best = np.nanmax(utilities, axis=1)
    assert scores == pytest.approx(best)
    assert [utilities[step, row] for step, row in enumerate(mine)] == pytest.approx(best)  # two may cover each other
    assert sum(row == pick for row, pick in zip(mine, picks, strict=True)) >= 11


@pytest.mark.parametrize("labelled", [0, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_prob_cover_counts(seed, labelled):
    rows, answers = pool(seed, labelled=labelled)
    oracle = OracleProbCover(deltas=[0.6], n_classes=3, random_state=0)
    with pytest.warns(UserWarning, match="purity"):
        picks, utilities = oracle.query(rows.numpy(), answers, batch_size=1, return_utilities=True)
    mine = ProbCover(rows, range(labelled), radius=0.6)
    assert mine.degrees[labelled:].tolist() == utilities[0][labelled:].tolist()
    assert utilities[0][mine.choose(torch.arange(COUNT) >= labelled)[0]] == utilities[0][picks[0]]


@pytest.mark.parametrize("labelled", [0, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_typiclust_picks(seed, labelled):
    rows, answers = pool(seed, labelled=labelled)
    oracle = OracleTypiClust(cluster_algo_dict={"n_init": 1, "random_state": seed}, k=20, random_state=seed)
    picks, utilities = oracle.query(rows.numpy(), answers, batch_size=1, return_utilities=True)
    mine, scores = chosen(TypiClust(rows, range(labelled), count=1, seed=seed), labelled=labelled, count=1)
    assert mine == picks.tolist()
    assert scores[0] == pytest.approx(utilities[0, picks[0]], rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_badge_starts_alike_and_draws_with_the_same_chances_but_for_the_origin(seed):
    """scikit-activeml goes on counting the origin as a centre after the first pick; the paper's own code does not."""
    rows, answers = pool(seed, labelled=9)
    classifier = SklearnClassifier(LogisticRegression(), classes=[0, 1, 2], random_state=0)
    classifier.fit(rows.numpy(), answers)
    picks, utilities = OracleBadge(random_state=0).query(
        rows.numpy(), answers, classifier, fit_clf=False, batch_size=2, return_utilities=True
    )
    mine = Badge(torch.from_numpy(classifier.predict_proba(rows.numpy())), rows, seed=0)
    left = torch.arange(COUNT) >= 9
    assert mine.choose(left)[0] == picks[0]
    mine.label_(int(picks[0]))
    with_origin = torch.minimum(mine.nearest, mine.gradients.squared_norms())
    chances = with_origin / with_origin[left].sum()
    left[picks[0]] = False
    assert chances[left].tolist() == pytest.approx(utilities[1][left.numpy()].tolist(), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_bald_scores(seed):
    samples = torch.rand(7, COUNT, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    samples /= samples.sum(2, keepdim=True)
    assert bald_scores(samples).tolist() == pytest.approx(
        batch_bald(samples.numpy(), batch_size=1)[0].tolist(), abs=1e-6
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_uncertainty_scores(seed):
    mean = torch.rand(COUNT, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean /= mean.sum(1, keepdim=True)
    for score, method, shift in (
        (entropy_scores, "entropy", 0),
        (least_confidence_scores, "least_confident", 0),
        (margin_scores, "margin_sampling", 1),  # theirs is one more: 1 - gap
    ):
        expected = uncertainty_scores(mean.numpy(), method=method) - shift
        assert score(mean).tolist() == pytest.approx(expected.tolist())
