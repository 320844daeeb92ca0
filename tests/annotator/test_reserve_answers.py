"""Answers to the cards of the reserve, after a time without a connection: on time or late, each once, in order."""

from uuid import uuid4

import pytest
from django.utils import timezone

from annotator.actions import labelling, reserving
from annotator.models import Annotation, Membership, Query
from annotator.queries import labelling as reads
from annotator.queries import progress
from tests.annotator.labelling_steps import answer_hold, in_order, label, run_out, tab_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def pool(make_project):
    project = make_project("pool", images=40)
    in_order(project, project.images.order_by("row"))
    return project


def test_an_answer_to_a_held_image_is_on_time_numbered_and_the_lease_stays(pool, bob):
    session, card = tab_of(bob, pool)
    hold = reserving.refill(session=session)[4]
    after = answer_hold(session, hold, 2)
    annotation = Annotation.objects.get()
    assert (annotation.image, annotation.label_class.index, annotation.late) == (hold.image, 2, False)
    assert (after.query, after.query.number) == (card.query, 2)
    answered = Query.objects.get(pk=hold.pk)
    assert (answered.state, answered.kind, answered.number) == (Query.State.ANSWERED, Query.Kind.RESERVE, 1)
    assert progress.cards_by_kind(pool) == [("Cold start", 1), ("From the reserve", 1)]


def test_answers_of_a_minute_offline_are_recorded_in_order_each_once(pool, bob):
    session, card = tab_of(bob, pool)
    holds = reserving.refill(session=session)[:5]
    label(session, card, 0)
    keys = [uuid4() for _ in holds]
    for _ in range(2):  # the second time as after a reply that was lost
        for number, (hold, key) in enumerate(zip(holds, keys, strict=True)):
            after = answer_hold(session, hold, number % 3, key)
    rows = list(Annotation.objects.order_by("pk").values_list("image__row", "label_class__index", "late"))
    assert rows == [(0, 0, False), (1, 0, False), (2, 1, False), (3, 2, False), (4, 0, False), (5, 1, False)]
    assert after.query.image.row == 6
    numbers = Query.objects.filter(number__gt=0).exclude(state=Query.State.RELEASED).order_by("number")
    assert list(numbers.values_list("number", "image__row")) == [(place + 1, place) for place in range(7)]
    assert Query.objects.filter(session=session, state=Query.State.LEASED).count() == 1


def test_the_lease_of_the_very_image_that_was_answered_offline_is_given_up(pool, bob):
    session, card = tab_of(bob, pool)
    hold = reserving.refill(session=session)[0]
    following = label(session, card, 0)
    assert following.query.image == hold.image
    after = answer_hold(session, hold)
    assert after.query.image != hold.image
    assert Annotation.objects.filter(image=hold.image).count() == 1
    assert not Annotation.objects.get(image=hold.image).late
    assert Query.objects.get(pk=following.query.pk).state == Query.State.RELEASED


@pytest.mark.parametrize("answered", [False, True], ids=["on lease to somebody else", "labelled by somebody else"])
def test_a_hold_taken_meanwhile_is_an_extra_opinion(make_project, alice, bob, answered):
    project = make_project("few", images=2)
    session, _ = tab_of(bob, project)
    hold = reserving.refill(session=session)[0]
    other, theirs = tab_of(alice, project)
    assert theirs.query.image == hold.image
    if answered:
        label(other, theirs, 0)
    answer_hold(session, hold, 1)
    if not answered:
        label(other, theirs, 0)
    late = {row.user.username: row.late for row in Annotation.objects.all()}
    assert late == {"alice": False, "bob": True}
    assert reads.current_labels(project).count() == 2


def test_a_hold_that_ended_is_answered_on_time_while_nobody_took_the_image(pool, alice, bob):
    session, _ = tab_of(bob, pool)
    other, _ = tab_of(alice, pool)
    hold = reserving.refill(session=session)[2]
    run_out(hold)
    reserving.refill(session=other)
    assert Query.objects.get(pk=hold.pk).state == Query.State.EXPIRED
    answer_hold(session, hold)
    assert not Annotation.objects.get().late


def test_a_hold_handed_back_before_the_page_knew_is_still_answered(pool, bob):
    session, _ = tab_of(bob, pool)
    hold = reserving.refill(session=session)[0]
    Query.objects.filter(pk=hold.pk).update(state=Query.State.RELEASED, closed_at=timezone.now())
    answer_hold(session, hold)
    assert Annotation.objects.get().image == hold.image


def test_a_held_image_is_answered_once_even_with_two_keys(pool, bob):
    session, _ = tab_of(bob, pool)
    hold = reserving.refill(session=session)[0]
    answer_hold(session, hold)
    with pytest.raises(labelling.QueryClosedError):
        answer_hold(session, hold, 2)
    assert Annotation.objects.get().label_class.index == 1


def test_an_image_labelled_in_another_tab_of_ones_own_is_not_labelled_again_from_the_reserve(make_project, bob):
    project = make_project("few", images=2)
    session, _ = tab_of(bob, project)
    hold = reserving.refill(session=session)[0]
    second, card = tab_of(bob, project)
    assert card.query.image == hold.image
    label(second, card, 0)
    with pytest.raises(labelling.QueryClosedError):
        answer_hold(session, hold, 2)
    assert Annotation.objects.get().label_class.index == 0


def test_undo_after_the_connection_is_back_takes_an_answer_of_the_reserve_back(pool, bob):
    session, _ = tab_of(bob, pool)
    hold = reserving.refill(session=session)[3]
    answer_hold(session, hold)
    back = labelling.undo(session=session, client_key=uuid4())
    assert back.query.image == hold.image
    assert back.query.number == 3
    assert reads.current_labels(pool).count() == 0


def test_with_overlap_the_reserve_keeps_the_number_of_opinions(make_project, alice, bob, charlie):
    project = make_project("twice", images=2, overlap=2)
    Membership.objects.create(user=charlie, project=project)
    session, _ = tab_of(bob, project)
    hold = reserving.refill(session=session)[0]
    for user in (alice, charlie):
        tab, card = tab_of(user, project)
        while card.query and card.query.image != hold.image:
            card = label(tab, card, 0)
        label(tab, card, 0)
    assert reads.current_labels(project).filter(image=hold.image).count() == 2
    answer_hold(session, hold)
    assert Annotation.objects.get(user=bob).late


def test_with_overlap_the_first_opinions_from_the_reserve_are_on_time(make_project, alice, bob):
    project = make_project("twice", images=3, overlap=2)
    session, _ = tab_of(bob, project)
    hold = reserving.refill(session=session)[0]
    tab, card = tab_of(alice, project)
    while card.query.image != hold.image:
        card = label(tab, card, 0)
    label(tab, card, 0)
    answer_hold(session, hold)
    assert not Annotation.objects.get(user=bob).late


def test_two_tabs_of_one_person_never_have_one_image_even_where_two_opinions_are_wanted(make_project, bob):
    project = make_project("twice", images=2, overlap=2)
    cards = [tab_of(bob, project)[1] for _ in range(3)]
    assert cards[0].query.image != cards[1].query.image
    assert cards[2].empty.kind == "on_lease_to_you"


def test_an_image_that_is_open_in_another_tab_of_ones_own_is_answered_once(make_project, bob):
    project = make_project("few", images=2)
    session, _ = tab_of(bob, project)
    hold = reserving.refill(session=session)[0]
    second, card = tab_of(bob, project)
    assert card.query.image == hold.image
    answer_hold(session, hold, 2)
    with pytest.raises(labelling.QueryClosedError):
        label(second, card, 0)
    assert Annotation.objects.get().label_class.index == 2
