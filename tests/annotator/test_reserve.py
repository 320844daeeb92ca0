"""The reserve of soft holds: what a tab may go on with offline, what it never takes from anybody, late answers."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotator.actions import leasing, reserving
from annotator.models import AuditDraw, Query, Ranking
from annotator.queries import labelling as reads
from annotator.queries import progress
from tests.annotator.labelling_steps import answer_hold, entry, in_order, label, make_live, run_out, tab_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def pool(make_project):
    project = make_project("pool", images=40)
    in_order(project, project.images.order_by("row"))
    return project


def test_the_reserve_holds_the_twenty_images_that_would_come_next(pool, bob):
    session, card = tab_of(bob, pool)
    holds = reserving.refill(session=session)
    assert card.query.image.row == 0
    assert [hold.image.row for hold in holds] == list(range(1, 21))
    assert {hold.state for hold in Query.objects.filter(kind=Query.Kind.RESERVE)} == {Query.State.HELD}


def test_the_ranking_of_now_comes_before_the_order_of_diversity_and_keeps_its_reasons(pool, bob):
    live = make_live(pool)
    images = list(pool.images.order_by("row"))
    session, _ = tab_of(bob, pool)
    ranked = [entry(images[30], score=3.0), entry(images[25], score=2.0)]
    Ranking.objects.create(
        project=pool, image=None, linearization=live, strategy="lookahead", answers={"now": ranked}, known_ids=[[1, 9]]
    )
    holds = reserving.refill(session=session)
    assert [hold.image.row for hold in holds][:3] == [30, 25, 1]
    held = Query.objects.get(pk=holds[0].pk)
    assert (held.source, held.strategy, held.score, held.known_ids) == ("present", "lookahead", 3.0, [[1, 9]])
    assert held.prediction == [[0, 0.75], [1, 0.25]]
    assert held.network_number == 1


def test_a_second_refill_keeps_the_rows_and_prolongs_them(pool, bob):
    session, _ = tab_of(bob, pool)
    first = reserving.refill(session=session)
    Query.objects.filter(state=Query.State.HELD).update(lease_until=timezone.now() + timedelta(seconds=5))
    second = reserving.refill(session=session)
    assert [hold.pk for hold in first] == [hold.pk for hold in second]
    assert Query.objects.get(pk=first[0].pk).lease_until > timezone.now() + timedelta(seconds=200)


def test_when_the_ranking_changes_the_held_cards_are_those_that_would_come_next_then(pool, bob):
    live = make_live(pool)
    images = list(pool.images.order_by("row"))
    session, _ = tab_of(bob, pool)
    kept = {hold.image.row: hold.pk for hold in reserving.refill(session=session)}
    Ranking.objects.create(
        project=pool,
        image=None,
        linearization=live,
        strategy="lookahead",
        answers={"now": [entry(images[5], score=8.0), entry(images[35])]},
        known_ids=[[1, 4]],
    )
    holds = reserving.refill(session=session)
    assert [hold.image.row for hold in holds][:3] == [5, 35, 1]
    assert holds[0].pk == kept[5]
    held = Query.objects.get(pk=kept[5])
    assert (held.source, held.score, held.known_ids) == ("present", 8.0, [[1, 4]])
    assert {query.image.row for query in Query.objects.filter(state=Query.State.RELEASED)} == {20}


def test_two_tabs_never_hold_one_image_and_the_best_are_left_to_those_who_label(pool, alice, bob):
    one, _ = tab_of(alice, pool)
    other, _ = tab_of(bob, pool)
    first = {hold.image.row for hold in reserving.refill(session=one)}
    second = {hold.image.row for hold in reserving.refill(session=other)}
    assert len(first) == 20
    assert first.isdisjoint(second)
    assert first.isdisjoint({2, 3})  # 0 and 1 are on lease, these come next for whoever answers first


def test_the_database_refuses_a_second_hold_of_one_image(pool, alice, bob):
    session, _ = tab_of(bob, pool)
    hold = reserving.refill(session=session)[0]
    other, _ = tab_of(alice, pool)
    copy = Query(
        project=pool,
        session=other,
        image=hold.image,
        kind=Query.Kind.RESERVE,
        state=Query.State.HELD,
        strategy="",
        source="",
        lease_until=hold.lease_until,
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        copy.save(force_insert=True)


@pytest.mark.parametrize(
    ("kind", "state"), [(Query.Kind.RANKED, Query.State.HELD), (Query.Kind.RESERVE, Query.State.LEASED)]
)
def test_the_database_keeps_leases_and_holds_apart(pool, bob, kind, state):
    session = leasing.open_session(user=bob, project=pool, device="")
    wrong = Query(project=pool, session=session, image=pool.images.first(), kind=kind, state=state)
    wrong.lease_until = timezone.now()
    with pytest.raises(IntegrityError), transaction.atomic():
        wrong.save(force_insert=True)


def test_others_are_given_other_images_while_there_are_any(pool, alice, bob):
    session, _ = tab_of(bob, pool)
    held = {hold.image_id for hold in reserving.refill(session=session)}
    other, card = tab_of(alice, pool)
    for _ in range(10):
        assert card.query.image_id not in held
        card = label(other, card, 0)


@pytest.mark.parametrize(("place", "gets_it"), [(3, True), (4, False)])
def test_of_the_next_few_of_a_ranking_one_that_nobody_holds_is_taken(pool, alice, bob, place, gets_it):
    live = make_live(pool)
    session, _ = tab_of(bob, pool)
    held = reserving.refill(session=session)
    other, card = tab_of(alice, pool)
    free = pool.images.get(row=33)
    ranking = [entry(hold.image) for hold in held[:6]]
    ranking.insert(place, entry(free))
    Ranking.objects.create(
        project=pool, image=card.query.image, linearization=live, strategy="lookahead", answers={"0": ranking}
    )
    following = label(other, card, 0)
    assert following.query.image == (free if gets_it else held[0].image)
    assert following.query.source == "prepared"


def test_a_ranking_held_by_others_as_a_whole_is_still_better_than_anything_else(pool, alice, bob):
    live = make_live(pool)
    session, _ = tab_of(bob, pool)
    held = reserving.refill(session=session)
    other, card = tab_of(alice, pool)
    answers = {"0": [entry(hold.image) for hold in held[3:12]]}
    Ranking.objects.create(
        project=pool, image=card.query.image, linearization=live, strategy="lookahead", answers=answers
    )
    following = label(other, card, 0)
    assert following.query.image == held[3].image
    assert following.query.kind == Query.Kind.RANKED


def test_nobody_is_starved_when_all_that_is_left_is_held(make_project, alice, bob):
    project = make_project("few", images=4)
    session, _ = tab_of(bob, project)
    held = {hold.image_id for hold in reserving.refill(session=session)}
    assert len(held) == 3
    other, theirs = tab_of(alice, project)
    seen = set()
    while theirs.query is not None:
        assert theirs.query.source == "reserve"
        assert "nothing else is left" in theirs.reason
        seen.add(theirs.query.image_id)
        theirs = label(other, theirs, 0)
    assert seen == held
    assert theirs.empty.kind == "all_on_lease"


def test_a_tab_is_given_the_images_of_its_own_reserve(pool, bob):
    session, card = tab_of(bob, pool)
    reserving.refill(session=session)
    following = label(session, card, 0)
    assert following.query.image.row == 1
    assert 1 not in {hold.image.row for hold in reserving.refill(session=session)}


def test_audit_images_are_drawn_whoever_holds_them(make_project, alice, bob):
    project = make_project("audited", images=6, audit_share=1.0)
    live = make_live(project)
    session, _ = tab_of(bob, project)
    hold = reserving.refill(session=session)[0]
    AuditDraw.objects.create(
        project=project, image=hold.image, linearization=live, prediction=[[0, 1.0]], unlabelled_count=6
    )
    _, card = tab_of(alice, project)
    assert (card.query.kind, card.query.image) == (Query.Kind.AUDIT, hold.image)


def test_holds_are_never_counted_as_seen(pool, bob):
    session, card = tab_of(bob, pool)
    reserving.refill(session=session)
    assert reads.cards_shown(pool).count() == 1
    assert progress.cards_by_kind(pool) == [("Cold start", 1)]
    assert reads.prepared_share(pool) is None
    assert label(session, card, 0).query.number == 2
    assert reads.preload_images(session=card.session, query_id=card.query.pk) == []


def test_a_hold_ends_like_a_lease_and_then_another_tab_may_hold_the_image(pool, alice, bob):
    session, _ = tab_of(bob, pool)
    holds = reserving.refill(session=session)
    run_out(*holds)
    other, theirs = tab_of(alice, pool)
    assert theirs.query.image == holds[0].image
    again = reserving.refill(session=other)
    assert {hold.image.row for hold in again} == set(range(4, 24))
    assert Query.objects.get(pk=holds[5].pk).state == Query.State.EXPIRED


def test_leaving_the_page_hands_the_reserve_back_soon(pool, bob):
    session, _ = tab_of(bob, pool)
    reserving.refill(session=session)
    leasing.shorten(session=session)
    latest = Query.objects.filter(session=session).latest("lease_until")
    assert latest.lease_until <= timezone.now() + timedelta(seconds=20)
    reserving.refill(session=session)
    assert Query.objects.filter(state=Query.State.HELD, lease_until__lt=timezone.now() + timedelta(30)).count() == 20


def test_the_reserve_of_a_project_without_classes_is_empty(make_project, bob):
    project = make_project("bare", images=3)
    project.classes.all().delete()
    session = leasing.open_session(user=bob, project=project, device="")
    assert reserving.refill(session=session) == []


def test_the_reply_says_what_the_page_needs_and_hides_predictions_where_they_are_hidden(pool, bob, as_user):
    live = make_live(pool)
    image = pool.images.get(row=30)
    session, _ = tab_of(bob, pool)
    Ranking.objects.create(
        project=pool, image=None, linearization=live, strategy="lookahead", answers={"now": [entry(image)]}
    )
    address = reverse("annotate-reserve", args=[pool.slug, session.pk])
    first = as_user(bob).post(address).json()["cards"][0]
    assert first == {
        "query": str(Query.objects.get(image=image, state=Query.State.HELD).pk),
        "image": image.pk,
        "src": reverse("image-file", args=[image.pk, image.sha256[:16]]),
        "width": 32,
        "height": 32,
        "prediction": [[0, 0.75], [1, 0.25]],
        "reason": "From the reserve: laid aside before the connection failed, with the predictions of that moment.",
        "model": "Network 1, trained on 0 labels, linearised · labels behind: 0",
    }
    type(pool).objects.update(hide_predictions=True)
    assert as_user(bob).post(address).json()["cards"][0]["prediction"] is None


def test_the_reserve_only_answers_post_and_only_to_its_own_person(pool, bob, alice, charlie, as_user):
    session, _ = tab_of(bob, pool)
    address = reverse("annotate-reserve", args=[pool.slug, session.pk])
    assert as_user(bob).get(address).status_code == 405
    assert as_user(alice).post(address).status_code == 404
    assert as_user(charlie).post(address).status_code == 404


def statements_of(act):
    with CaptureQueriesContext(connection) as captured:
        act()
    return len(captured)


def test_the_reserve_costs_the_answer_not_one_statement(pool, bob, as_user):
    session, card = tab_of(bob, pool)
    client = as_user(bob)
    address = reverse("annotate-answer", args=[pool.slug, session.pk])

    def post(query):
        form = {"query": query.pk, "answer": "label:1", "client_key": uuid4()}
        return client.post(address, form, headers={"HX-Request": "true"})

    post(card.query)
    without = statements_of(lambda: post(reads.live_query(session)))
    reserving.refill(session=session)
    assert statements_of(lambda: post(reads.live_query(session))) == without
    assert without <= 26 + connection.features.has_select_for_update  # which looks again with the lock


def test_the_statements_of_a_refill_do_not_grow_with_the_reserve(make_project, bob, as_user, settings):
    counts, client = [], as_user(bob)
    for size in (3, 20):
        settings.RESERVE_SIZE = size
        project = make_project(f"of{size}", images=40)
        in_order(project, project.images.order_by("row"))
        session, _ = tab_of(bob, project)
        address = reverse("annotate-reserve", args=[project.slug, session.pk])
        first = statements_of(lambda address=address: client.post(address))
        counts.append((first, statements_of(lambda address=address: client.post(address))))
    assert counts[0] == counts[1]
    assert max(counts[0]) <= 20


def test_holds_that_ended_long_ago_and_nobody_saw_are_forgotten(pool, bob):
    session, _ = tab_of(bob, pool)
    hour = timedelta(hours=1, seconds=1)
    answered, *ended = reserving.refill(session=session)[:4]
    answer_hold(session, answered)
    closed = Query.objects.filter(pk__in=[hold.pk for hold in ended])
    closed.update(state=Query.State.RELEASED, closed_at=timezone.now() - hour)
    closed.filter(pk=ended[0].pk).update(closed_at=timezone.now())
    Query.objects.filter(pk=answered.pk).update(closed_at=timezone.now() - hour)
    reserving.refill(session=session)
    left = set(Query.objects.exclude(state=Query.State.HELD).values_list("pk", flat=True))
    assert {answered.pk, ended[0].pk} <= left
    assert not {ended[1].pk, ended[2].pk} & left


def test_beside_others_a_reserve_stays_as_it_is_while_it_is_fresh(pool, alice, bob):
    live = make_live(pool)
    images = list(pool.images.order_by("row"))
    session, _ = tab_of(bob, pool)
    tab_of(alice, pool)
    before = {hold.pk for hold in reserving.refill(session=session)}
    gone = list(Query.objects.filter(pk__in=before).order_by("leased_at")[:2])
    gone[0].image.delete()
    Query.objects.filter(pk=gone[1].pk).update(leased_at=timezone.now() - timedelta(seconds=11))  # one other: 10 s
    ranked = [entry(image) for image in images[30:35]]
    Ranking.objects.create(project=pool, image=None, linearization=live, strategy="lookahead", answers={"now": ranked})
    holds = reserving.refill(session=session)
    assert len(holds) == 20
    assert {hold.pk for hold in holds} & before == before - {gone[0].pk, gone[1].pk}
    assert [hold.image.row for hold in holds[-2:]] == [32, 33]  # 30 and 31 are left to whoever labels just now


def test_another_model_brings_another_reserve_beside_others_too(pool, alice, bob):
    old = make_live(pool)
    session, _ = tab_of(bob, pool)
    tab_of(alice, pool)
    reserving.refill(session=session)
    old.state = old.State.RETIRED
    old.save()
    live = make_live(pool, number=2)
    assert {hold.linearization for hold in reserving.refill(session=session)} == {live}
