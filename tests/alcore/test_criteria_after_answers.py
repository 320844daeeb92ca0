"""Criteria after an answer: what is worked out without a copy is what a posterior that has the answer would give."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from alcore.acquisition import geometry
from alcore.acquisition.criteria import SCORES, rank_by_criterion_after_answers, rank_by_criterion_now
from alcore.acquisition.ranking import CandidateError
from alcore.acquisition.scanning import CriterionError
from alcore.acquisition.selector import forked
from alcore.acquisition.situation import Situation
from alcore.acquisition.strategies import STRATEGIES, rank, start
from alcore.posterior import make_posterior
from tests.alcore.situations import situation_of

IMAGES, CLASSES = 16, 3
FORMS = ("pairwise", "frobenius")
WITH_STATE = [name for name, entry in STRATEGIES.items() if entry.start is not None]


def posterior_of(form: str):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(IMAGES, 5, generator=generator, dtype=torch.float64)
    outputs = 0.4 * torch.randn(IMAGES, CLASSES, generator=generator, dtype=torch.float64)
    given = {"kernel": features @ features.t()} if form == "pairwise" else {"features": features}
    posterior = make_posterior(outputs=outputs, ridge=0.3, **given)
    posterior.condition_([0, 1], torch.eye(CLASSES, dtype=torch.float64)[:2])
    posterior.pend_(2)
    posterior.pend_(3)
    return posterior


def candidates(*gone: int):
    marked = torch.ones(IMAGES, dtype=torch.bool)
    marked[[0, 1, 2, 3, *gone]] = False
    return marked


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("criterion", [name for name in SCORES if name != "error_reduction"])
def test_the_ranking_after_an_answer_is_that_of_a_posterior_with_the_answer(form, criterion):
    posterior = posterior_of(form)
    found = rank_by_criterion_after_answers(
        posterior, 2, criterion=criterion, answers=[0, 1, 2, None], candidates=candidates(), top=4
    )
    for answer in (0, 1, 2, None):
        after = deepcopy(posterior)
        if answer is None:
            after.cancel_(2)
        else:
            after.condition_([2], torch.eye(CLASSES, dtype=torch.float64)[[answer]])
        expected = rank(criterion, Situation(candidates(), posterior=after), count=4, seed=0)
        scores = [entry.score for entry in found[answer].entries]
        assert scores == pytest.approx(expected.scores.tolist(), rel=1e-6, abs=1e-9)
        for entry in found[answer].entries:
            assert entry.prediction.tolist() == pytest.approx(after.mean[entry.row].tolist())


def test_expected_error_reduction_takes_the_answer_into_the_covariance_alone():
    posterior = posterior_of("pairwise")
    found = rank_by_criterion_after_answers(
        posterior, 2, criterion="error_reduction", answers=[0, 1], candidates=candidates(), top=3
    )
    expected = rank("error_reduction", Situation(candidates(), posterior=posterior), count=3, seed=0)
    for answer in (0, 1):
        assert tuple(entry.row for entry in found[answer].entries) == expected.rows


def test_behind_the_best_come_the_others_in_order():
    posterior = posterior_of("pairwise")
    found = rank_by_criterion_now(posterior, criterion="emoc", candidates=candidates(), top=3, rest=100)
    expected = rank("emoc", Situation(candidates(), posterior=posterior), count=12, seed=0)
    assert (*(entry.row for entry in found.entries), *found.rest) == expected.rows


def test_what_cannot_be_ranked_is_refused():
    posterior = posterior_of("pairwise")
    with pytest.raises(CriterionError, match="no criterion 'tarot'; there are flips"):
        rank_by_criterion_now(posterior, criterion="tarot", candidates=candidates(), top=3)
    with pytest.raises(CandidateError):
        rank_by_criterion_now(posterior, criterion="emoc", candidates=candidates()[:4], top=3)


@pytest.mark.parametrize("name", WITH_STATE)
def test_labels_told_to_a_fork_leave_the_original_alone(name):
    situation = situation_of(labelled=(0, 5))
    original, alone = (start(name, situation, count=4, seed=1) for _ in range(2))
    left = situation.candidates.clone()
    twin = forked(original)
    for _ in range(4):
        row, _ = twin.choose(left)
        twin.label_(row)
        left[row] = False
    assert twin.standing().shape == (12,)
    assert original.choose(situation.candidates) == alone.choose(situation.candidates)
    assert torch.equal(original.standing(), alone.standing())


@pytest.mark.parametrize("name", ["core_set", "lcmd", "max_herding"])
def test_many_labels_at_once_leave_the_state_that_they_leave_one_by_one(name, monkeypatch):
    situation = situation_of(images=40, labelled=range(3, 25), kernel=None)
    gradients = {"gradients": situation.embeddings} if name == "lcmd" else {}
    situation = replace(situation, **gradients)
    one_by_one = start(name, situation, count=4, seed=1)
    monkeypatch.setattr(geometry, "MANY", 5)
    monkeypatch.setattr(geometry, "BLOCK", 7)
    at_once = start(name, situation, count=4, seed=1)
    assert at_once.nearest.tolist() == pytest.approx(one_by_one.nearest.tolist(), abs=1e-9)
    if name == "lcmd":
        assert torch.equal(at_once.cluster, one_by_one.cluster)
        assert at_once.centres == one_by_one.centres == 22
    left = situation.candidates.clone()
    for _ in range(4):
        (row, _), (other, _) = at_once.choose(left), one_by_one.choose(left)
        assert row == other
        at_once.label_(row)
        one_by_one.label_(row)
        left[row] = False
