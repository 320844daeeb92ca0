"""One call for every strategy: the same for the same seed, ties by the lower row, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from alcore.acquisition.ranking import CandidateError
from alcore.acquisition.situation import Situation, SituationError
from alcore.acquisition.strategies import NEEDS, STRATEGIES, rank, start
from alcore.acquisition.uncertainty import UncertaintyError
from alcore.posterior import NonFiniteError, RowError, make_posterior
from tests.alcore.situations import situation_of

EVERY = tuple(STRATEGIES)
WITH_STATE = tuple(name for name, entry in STRATEGIES.items() if entry.start is not None)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("labelled", [(), (2,), (2, 7, 5)])
def test_every_strategy_ranks_each_candidate_once_the_same_for_the_same_seed(name, labelled):
    situation = situation_of(labelled=labelled)
    count = int(situation.candidates.sum())
    found = rank(name, situation, count=count, seed=3)
    assert sorted(found.rows) == situation.candidates.nonzero()[:, 0].tolist()
    assert found.scores.shape == (count,)
    assert torch.isfinite(found.scores).all()
    again = rank(name, situation_of(labelled=labelled), count=count, seed=3)
    assert again.rows == found.rows
    assert torch.equal(again.scores, found.scores)


@pytest.mark.parametrize("name", EVERY)
def test_every_strategy_ranks_a_pool_of_copies(name):
    situation = situation_of(images=6, duplicates=True)
    assert sorted(rank(name, situation, count=6, seed=0).rows) == list(range(6))


@pytest.mark.parametrize("name", EVERY)
def test_every_strategy_takes_a_pool_of_one_image(name):
    assert rank(name, situation_of(images=1), count=1, seed=0).rows == (0,)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("random", "badge")])
def test_images_that_cannot_be_told_apart_come_from_the_lowest_row_up(name):
    same = {
        "embeddings": torch.ones(4, 2),
        "kernel": torch.ones(4, 4),
        "dropout_samples": torch.zeros(2, 4, 3),
        "predicted_losses": torch.zeros(4),
        "posterior": make_posterior(kernel=torch.ones(4, 4), outputs=torch.zeros(4, 3), ridge=1.0),
        "classes": 3,
    }
    candidates = torch.tensor([False, True, True, True])
    assert rank(name, Situation(candidates, **same), count=2, seed=0).rows == (1, 2)


@pytest.mark.parametrize(
    "name", [name for name in WITH_STATE if name not in ("typiclust", "uncertainty_herding", "badge")]
)
def test_a_state_that_took_labels_one_by_one_chooses_as_one_that_was_made_with_them(name):
    before, after = situation_of(images=30), situation_of(images=30, labelled=(4, 9, 1))
    updated = start(name, before, count=5, seed=0)
    for row in (4, 9, 1):
        updated.choose(before.candidates)
        updated.label_(row)
    row, score = updated.choose(after.candidates)
    expected = start(name, after, count=5, seed=0).choose(after.candidates)
    assert row == expected[0]
    assert score == pytest.approx(expected[1])


def test_lcmd_is_the_same_from_features_and_from_their_kernel():
    situation = situation_of(images=40, labelled=(3, 8))
    features = torch.linalg.cholesky(situation.kernel + 1e-6 * torch.eye(40))
    one = situation_of(images=40, labelled=(3, 8), kernel=features @ features.t())
    other = situation_of(images=40, labelled=(3, 8), kernel=None, gradients=features)
    assert rank("lcmd", one, count=10, seed=0).rows == rank("lcmd", other, count=10, seed=0).rows


@pytest.mark.parametrize("name", [name for name in EVERY if NEEDS[name]])
def test_a_part_that_is_missing_is_named(name):
    for group in NEEDS[name]:
        lacking = dict.fromkeys(("posterior", "mean") if "mean" in group else group)
        situation = dataclasses.replace(situation_of(), **lacking)
        with pytest.raises(SituationError, match=f"{name} needs {' or '.join(group)}"):
            rank(name, situation, count=1, seed=0)


@pytest.mark.parametrize("name", EVERY)
def test_more_images_than_candidates_are_refused_and_none_too(name):
    with pytest.raises(CandidateError, match="10 images were asked for, 9 are candidates"):
        rank(name, situation_of(labelled=(0, 1, 2)), count=10, seed=0)
    with pytest.raises(CandidateError, match="1 images were asked for, 0 are candidates"):
        rank(name, situation_of(candidates=torch.zeros(12, dtype=torch.bool)), count=1, seed=0)
    with pytest.raises(CandidateError, match="ranking of 0 images"):
        rank(name, situation_of(), count=0, seed=0)


@pytest.mark.parametrize("part", ["embeddings", "kernel", "dropout_samples", "predicted_losses"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_with_their_row(part, value):
    broken = getattr(situation_of(), part).clone()
    broken[(slice(None), 5) if part == "dropout_samples" else 5] = value
    with pytest.raises(NonFiniteError, match=f"{part} of row 5"):
        situation_of(**{part: broken})


def test_a_situation_that_does_not_fit_itself_is_refused():
    whole = situation_of()
    with pytest.raises(SituationError, match=r"embeddings has shape \(11, 3\), the pool has 12"):
        situation_of(embeddings=whole.embeddings[:11])
    with pytest.raises(SituationError, match="square"):
        situation_of(kernel=whole.kernel[:, :5])
    with pytest.raises(SituationError, match="labelled twice"):
        Situation(whole.candidates, (1, 1))
    with pytest.raises(RowError):
        Situation(whole.candidates, (12,))
    with pytest.raises(CandidateError, match="one truth value an image"):
        Situation(torch.ones(3))
    with pytest.raises(SituationError, match="posterior of 12 images, candidates of 3"):
        Situation(torch.ones(3, dtype=torch.bool), posterior=whole.posterior)


@pytest.mark.parametrize(
    ("part", "broken", "words"),
    [
        ("mean", lambda part: part[:, 0], r"mean has shape \(12,\).*\(N, K\) is wanted"),
        ("mean", lambda part: part[:, :0], r"mean has shape \(12, 0\)"),
        ("embeddings", lambda part: part[:, 0], r"embeddings has shape \(12,\).*\(N, D\) is wanted"),
        ("embeddings", lambda part: part[:, :, None, None], r"embeddings has shape \(12, 3, 1, 1\)"),
        ("embeddings", lambda part: part[:, :0], r"embeddings has shape \(12, 0\)"),
        ("embeddings", lambda part: part.long(), "floating point, got torch.int64"),
        ("embeddings", lambda part: part.numpy(), "a tensor, got ndarray"),
        ("dropout_samples", lambda part: part[0], r"dropout_samples has shape \(12, 3\).*\(T, N, K\) is wanted"),
        ("predicted_losses", lambda part: part[:, None], r"predicted_losses has shape \(12, 1\).*\(N\) is wanted"),
    ],
)
def test_parts_are_tensors_of_their_shape_in_floating_point(part, broken, words):
    with pytest.raises(SituationError, match=words):
        situation_of(**{part: broken(getattr(situation_of(), part))})


@pytest.mark.parametrize("name", WITH_STATE)
def test_parts_with_gradients_are_taken_as_numbers(name):
    plain = situation_of(labelled=(2, 7))
    learned = {part: getattr(plain, part).clone().requires_grad_() for part in ("mean", "embeddings", "kernel")}
    expected = rank(name, plain, count=5, seed=0).rows
    assert rank(name, situation_of(labelled=(2, 7), **learned), count=5, seed=0).rows == expected


def test_badge_needs_two_classes_as_margin_does():
    one = {"posterior": None, "mean": torch.zeros(12, 1)}
    with pytest.raises(SituationError, match=r"badge needs at least two classes, got predictions of shape \(12, 1\)"):
        rank("badge", situation_of(**one), count=1, seed=0)
    with pytest.raises(UncertaintyError, match="at least two classes"):
        rank("margin", situation_of(**one), count=1, seed=0)


@pytest.mark.parametrize("name", ["random", "badge", "typiclust", "prob_cover"])
def test_whole_numbers_of_other_types_count_and_no_seed_is_too_large(name):
    expected = rank(name, situation_of(), count=4, seed=5).rows
    assert rank(name, situation_of(), count=np.int64(4), seed=np.int64(5)).rows == expected
    assert rank(name, situation_of(), count=4, seed=2**63 + 5).rows == expected
    assert len(rank(name, situation_of(), count=4, seed=10**30).rows) == 4
    with pytest.raises(CandidateError, match="ranking of True images"):
        rank(name, situation_of(), count=True, seed=0)


def test_names_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(SituationError, match="no strategy 'best'; there are lookahead-linear"):
        rank("best", situation_of(), count=1, seed=0)
    with pytest.raises(SituationError, match="margin rates every image by itself"):
        start("margin", situation_of(), count=1, seed=0)


def test_every_strategy_says_in_words_what_it_does_and_works_in_one_way():
    for name, entry in STRATEGIES.items():
        assert entry.title
        assert entry.explanation.endswith(".")
        assert (entry.scores is None) != (entry.start is None), name


def test_scores_come_with_the_rows_they_belong_to():
    situation = situation_of()
    found = rank("ll4al", situation, count=12, seed=0)
    assert found.scores.tolist() == situation.predicted_losses[list(found.rows)].tolist()
    assert found.scores.tolist() == sorted(situation.predicted_losses.tolist(), reverse=True)
