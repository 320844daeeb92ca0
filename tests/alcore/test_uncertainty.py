"""Uncertainty scores by definition, and their rankings after every answer against really giving it."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.acquisition.uncertainty import (
    UncertaintyError,
    entropy_scores,
    least_confidence_scores,
    margin_scores,
    project_simplex,
    rank_uncertainty_after_answers,
    rank_uncertainty_now,
)
from tests.alcore import reference
from tests.alcore.posteriors import FORMS, Pool, absorb, labelled_pools

STRATEGIES = ("margin", "entropy", "least_confidence")

means = st.builds(
    lambda rows, classes, seed, scale: (
        scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ),
    st.integers(1, 6),
    st.integers(2, 6),
    st.integers(0, 2**31),
    st.sampled_from([1e-3, 1.0, 100.0]),
)


@settings(deadline=None, max_examples=60)
@given(means)
def test_the_projection_is_the_nearest_point_of_the_simplex(mean):
    found = project_simplex(mean)
    assert bool((found >= 0).all())
    assert torch.allclose(found.sum(1), torch.ones(len(mean)).double())
    for row in range(len(mean)):
        assert torch.allclose(found[row], reference.simplex(mean[row]), atol=1e-9)


def test_the_projection_of_large_predictions_still_sums_to_one():
    mean = torch.tensor([[1e30, 1e30, 0.0], [3e8, 3e8 - 1e3, -1e9]])
    assert project_simplex(mean).tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]


def test_probabilities_are_their_own_projection():
    given_mean = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(project_simplex(given_mean), given_mean)


@settings(deadline=None, max_examples=60)
@given(means)
def test_margin_entropy_and_least_confidence_follow_their_definitions(mean):
    for row in range(len(mean)):
        assert float(margin_scores(mean)[row]) == pytest.approx(reference.margin(mean[row]), abs=1e-12)
        assert float(least_confidence_scores(mean)[row]) == pytest.approx(1 - max(mean[row].tolist()), abs=1e-12)
        chances = reference.simplex(mean[row]).tolist()
        entropy = -sum(chance * math.log(chance) for chance in chances if chance > 0)
        assert float(entropy_scores(mean)[row]) == pytest.approx(entropy, abs=1e-6)


def test_the_least_sure_image_has_the_largest_score():
    mean = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]])
    assert int(margin_scores(mean).argmax()) == 1
    assert int(entropy_scores(mean).argmax()) == 2
    assert int(least_confidence_scores(mean).argmax()) == 2


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=25)
@given(labelled_pools(min_images=2), st.data())
def test_every_answer_ranks_as_really_giving_it(form, strategy, drawn, data):
    pool, labels = drawn
    posterior = pool.posterior(form)
    absorb(posterior, labels)
    row = data.draw(st.integers(0, len(pool.outputs) - 1))
    posterior.pend_(row)
    candidates = torch.ones(len(pool.outputs), dtype=torch.bool)
    answers = [*range(posterior.classes), None]
    rankings = rank_uncertainty_after_answers(
        posterior, row, answers=answers, candidates=candidates, top=3, strategy=strategy
    )
    candidates[row] = False
    for answer in answers:
        after = copy.deepcopy(posterior)
        if answer is None:
            after.cancel_(row)
        else:
            after.condition_([row], pool.one_hot(answer)[None])
        expected = rank_uncertainty_now(after, candidates=candidates, top=3, strategy=strategy)
        found = rankings[answer]
        assert found.certified
        scores = [entry.score for entry in expected.entries]
        assert [entry.score for entry in found.entries] == pytest.approx(scores, rel=1e-6, abs=1e-6)
        assert row not in [entry.row for entry in found.entries]


def test_margin_is_ranked_again_after_the_label_and_says_what_each_would_change():
    generator = torch.Generator().manual_seed(2)
    pool = Pool(torch.randn(40, 6, generator=generator).double(), torch.randn(40, 3, generator=generator).double(), 1.0)
    posterior = pool.posterior("frobenius")
    candidates = torch.ones(40, dtype=torch.bool)
    rankings = rank_uncertainty_after_answers(
        posterior, 8, answers=[0, 1, 2, None], candidates=candidates, top=4, strategy="margin"
    )
    for answer, ranking in rankings.items():
        labels = [] if answer is None else [(8, pool.one_hot(answer))]
        mean, covariance = reference.posterior(pool.kernel, pool.outputs, labels, 1.0)
        order = sorted((row for row in range(40) if row != 8), key=lambda row: -reference.margin(mean[row]))
        assert [entry.row for entry in ranking.entries] == order[:4]
        for entry in ranking.entries:
            assert (entry.moved, entry.flipped) == reference.moved_and_flipped(mean, covariance, 1.0, entry.row)
    assert len({tuple(entry.row for entry in ranking.entries) for ranking in rankings.values()}) > 1


def test_wrong_questions_are_refused_in_words():
    pool = Pool(torch.ones(4, 2).double(), torch.zeros(4, 1).double(), 1.0)
    candidates = torch.ones(4, dtype=torch.bool)
    with pytest.raises(UncertaintyError, match="two classes"):
        rank_uncertainty_now(pool.posterior("pairwise"), candidates=candidates, top=1, strategy="margin")
    with pytest.raises(UncertaintyError, match=r"'badge'.*margin, entropy"):
        rank_uncertainty_now(pool.posterior("pairwise"), candidates=candidates, top=1, strategy="badge")
    with pytest.raises(UncertaintyError, match="shape"):
        project_simplex(torch.zeros(3))
    for scores in (margin_scores, entropy_scores, least_confidence_scores):
        with pytest.raises(UncertaintyError, match="two classes"):
            scores(torch.zeros(3, 1))


def test_with_no_candidates_the_ranking_is_empty():
    pool = Pool(torch.ones(4, 2).double(), torch.zeros(4, 3).double(), 1.0)
    none = torch.zeros(4, dtype=torch.bool)
    ranking = rank_uncertainty_now(pool.posterior("frobenius"), candidates=none, top=3, strategy="entropy")
    assert ranking.entries == ()
