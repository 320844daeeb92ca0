"""Several people at once: each has another image that tells something else, in the order of the look-ahead."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from django.contrib.auth.models import User
from sklearn.datasets import load_digits

from annotator import learner
from annotator.actions import leasing
from annotator.learner import ranking
from annotator.learner.likeness import ALIKE
from annotator.models import Membership, Query
from annotator.queries import labelling as reads
from tests.annotator.labelling_steps import label as answer
from tests.annotator.learner_steps import held, label, lease, present, ranking_of, rows_in

pytestmark = pytest.mark.django_db
PAIRS, SHADE = 60, 0.25


@pytest.fixture
def digits():
    """Scan 2i + 1 is scan 2i again, a shade lighter: 60 pairs."""
    scans = load_digits()
    lighter = np.tile([0, SHADE], PAIRS)[:, None, None]
    images = np.minimum(scans.images[:PAIRS].repeat(2, axis=0) + lighter, 16)
    return SimpleNamespace(images=images, target=scans.target[:PAIRS].repeat(2))


@pytest.fixture
def pool_of_twins(trained_project):
    """Of the pairs twelve are labelled."""
    return trained_project(count=2 * PAIRS)


@pytest.fixture
def crowd(pool_of_twins):
    """Six people with a tab each."""
    sessions = []
    for number in range(6):
        user = User.objects.create_user(f"person{number}")
        Membership.objects.create(user=user, project=pool_of_twins, role=Membership.Role.ANNOTATOR)
        sessions.append(leasing.open_session(user=user, project=pool_of_twins, device=""))
    return sessions


def out_now(project) -> list[int]:
    return list(Query.objects.filter(project=project, state=Query.State.LEASED).values_list("image__row", flat=True))


def pairs_out(project) -> list[int]:
    return [row // 2 for row in out_now(project)]


def test_twins_are_alike_and_most_others_are_not(pool_of_twins):
    lease(pool_of_twins, 60)
    learner.absorb(pool_of_twins.pk)
    posterior = held(pool_of_twins).posterior
    block = posterior.answer_block(range(40, 120))
    spread = block.diagonal().sqrt()
    alike = block / torch.outer(spread, spread) > ALIKE
    twins = alike[torch.arange(0, 80, 2), torch.arange(1, 80, 2)]
    assert twins.float().mean() > 0.9
    assert alike.float().mean() < 0.1


def test_no_two_people_ever_have_twins_and_the_order_is_the_rankings(pool_of_twins, crowd):
    project = pool_of_twins
    cards = {}
    for session in crowd:  # they come one after the other, the learner in between
        cards[session.pk] = leasing.current_card(session=session)
        learner.absorb(project.pk)
    for turn in range(5):
        for session in crowd:
            cards[session.pk] = answer(session, cards[session.pk], project.truth[cards[session.pk].query.image.row])
            if turn % 2:
                learner.absorb(project.pk)
            assert len(set(pairs_out(project))) == len(crowd)
        learner.absorb(project.pk)
    sources = set(Query.objects.filter(project=project).values_list("source", flat=True))
    assert sources <= {"prepared", "present"}


def test_a_twin_of_what_somebody_has_is_in_no_ranking_of_others(pool_of_twins, bob):
    project = pool_of_twins
    for row in (60, 70):
        lease(project, row, user=bob)
    learner.absorb(project.pk)
    of_60 = {row for entries in ranking_of(project, 60).answers.values() for row in rows_in(project, entries)}
    of_70 = {row for entries in ranking_of(project, 70).answers.values() for row in rows_in(project, entries)}
    assert 71 not in of_60
    assert 61 not in of_70
    assert {61, 71}.isdisjoint(rows_in(project, present(project).answers["now"]))


def test_a_twin_of_what_was_given_out_since_the_ranking_waits_behind_the_others(pool_of_twins, crowd):
    """The second comes before the learner has heard of the first: the entries say what is like them."""
    project = pool_of_twins
    learner.absorb(project.pk)
    entries = present(project).answers["now"]
    order = rows_in(project, entries)
    by_row = dict(zip(order, entries, strict=True))
    both = next(row for row in order if row ^ 1 in order)
    assert project.images.get(row=both ^ 1).pk in by_row[both]["like"]
    for session in crowd:
        leasing.current_card(session=session)
    assert len(set(pairs_out(project))) == len(crowd)
    assert set(Query.objects.filter(project=project).values_list("source", flat=True)) == {"present"}
    best = [row for place, row in enumerate(order) if row // 2 not in {other // 2 for other in order[:place]}]
    assert sorted(out_now(project)) == sorted(best[: len(crowd)])


def test_when_only_twins_are_left_they_are_given_out_all_the_same(pool_of_twins, bob):
    project = pool_of_twins
    for row in range(24, 2 * PAIRS):
        if row not in (60, 61):
            label(project, row)
    lease(project, 60, user=bob)
    learner.absorb(project.pk)
    assert rows_in(project, present(project).answers["now"]) == [61]
    session = leasing.open_session(user=project.created_by, project=project, device="")
    assert leasing.current_card(session=session).query.image.row == 61


def test_in_a_crowd_the_ranking_as_things_stand_is_made_with_the_others_and_once(pool_of_twins, crowd, monkeypatch):
    project = pool_of_twins
    learner.absorb(project.pk)
    cards = [leasing.current_card(session=session) for session in crowd]
    for session, card in list(zip(crowd, cards, strict=True))[:2]:
        answer(session, card, 3)
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "prepare_present", lambda *_: pytest.fail("it was made a second time"))
        learner.absorb(project.pk)
    stored = present(project)
    assert reads.labels_behind(project, known_ids=stored.known_ids) == 0
    alone = ranking.prepare_present(held(project), project)
    assert stored.answers["then"] == alone.behind
    assert stored.answers["cold_from"] == alone.cold_from
    for entry, expected in zip(stored.answers["now"], alone.answers["now"], strict=True):
        assert entry["image"] == expected["image"]
        assert entry["score"] == pytest.approx(expected["score"], rel=1e-4)
        assert (entry["moved"], entry["flipped"]) == (expected["moved"], expected["flipped"])


def test_labels_behind_are_recorded_and_gone_with_the_next_pass(pool_of_twins, crowd):
    project = pool_of_twins
    learner.absorb(project.pk)
    cards = [leasing.current_card(session=session) for session in crowd]
    learner.absorb(project.pk)
    following = [answer(session, card, 3) for session, card in zip(crowd, cards, strict=True)]
    assert [card.query.labels_behind for card in following] == list(range(len(crowd)))
    learner.absorb(project.pk)
    last = answer(crowd[0], following[0], 4)
    assert last.query.labels_behind == 0
    assert reads.prepared_share(project) > 0
