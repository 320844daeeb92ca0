"""One label's way into the database: nothing lost, nothing doubled, nothing shown twice."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotator.actions import labelling, leasing
from annotator.models import (
    Annotation,
    AuditDraw,
    ColdStart,
    Membership,
    Query,
    Ranking,
)
from annotator.models.answer import Answer
from annotator.models.id_ranges import to_ranges
from annotator.queries import labelling as reads
from tests.annotator.labelling_steps import entry, label, make_live

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(bob, project):
    return leasing.open_session(user=bob, project=project, device="test")


def test_an_answer_is_recorded_and_the_next_image_leased(session, bob):
    first = leasing.current_card(session=session)
    second = label(session, first, 1)
    annotation = Annotation.objects.get()
    assert (annotation.user, annotation.image, annotation.label_class.name) == (bob, first.query.image, "dog")
    assert second.query.image != first.query.image
    first.query.refresh_from_db()
    assert first.query.state == Query.State.ANSWERED
    assert second.progress.labelled == 1
    assert second.progress.by_me_today == 1


def test_of_very_many_labels_the_count_is_kept_for_a_while_and_ones_own_never(session, bob, monkeypatch):
    monkeypatch.setattr(reads, "MANY_LABELS", 2)
    monkeypatch.setattr(reads, "KEPT_TIMES", 1e9)
    card = leasing.current_card(session=session)
    seen = []
    for _ in range(3):
        card = label(session, card, 1)
        seen.append((card.progress.labelled, card.progress.by_me, card.progress.by_me_today))
    assert seen == [(1, 1, 1), (2, 2, 2), (2, 3, 3)]
    cache.clear()
    assert reads.progress(session).labelled == 3


def test_the_task_is_sent_only_after_the_commit(session, sent_tasks, django_capture_on_commit_callbacks):
    card = leasing.current_card(session=session)
    with django_capture_on_commit_callbacks() as callbacks:
        label(session, card, 1)
        assert sent_tasks == []
    for callback in callbacks:
        callback()
    assert ("annotator.tasks.absorb_labels", (session.project_id,)) in sent_tasks


def test_the_same_client_key_returns_the_present_card_and_changes_nothing(session):
    card = leasing.current_card(session=session)
    key = uuid4()
    second = label(session, card, 1, client_key=key)
    again = label(session, card, 1, client_key=key)
    assert again.query == second.query
    assert Annotation.objects.count() == 1


def test_the_same_client_key_with_another_answer_is_refused(session):
    card = leasing.current_card(session=session)
    key = uuid4()
    label(session, card, 1, client_key=key)
    with pytest.raises(labelling.PayloadMismatchError, match=str(key)):
        label(session, card, 2, client_key=key)
    assert Annotation.objects.get().label_class.index == 1


def test_a_second_answer_to_one_card_is_refused_with_the_present_card(session):
    card = leasing.current_card(session=session)
    second = label(session, card, 1)
    with pytest.raises(labelling.QueryClosedError) as refusal:
        label(session, card, 2)
    assert refusal.value.card.query == second.query
    assert Annotation.objects.count() == 1


def test_an_unknown_class_is_refused_and_the_card_stays(session):
    card = leasing.current_card(session=session)
    with pytest.raises(labelling.UnknownClassError, match="99"):
        label(session, card, 99)
    assert leasing.current_card(session=session).query == card.query


def test_another_tabs_query_is_refused(session, alice, project):
    other = leasing.open_session(user=alice, project=project, device="other")
    card = leasing.current_card(session=other)
    with pytest.raises(labelling.UnknownQueryError):
        label(session, card, 1)


def test_a_reload_shows_the_same_card(session):
    assert leasing.current_card(session=session).query == leasing.current_card(session=session).query


def test_two_tabs_never_hold_the_same_image(session, alice, project):
    sessions = [session] + [leasing.open_session(user=alice, project=project, device=str(n)) for n in range(5)]
    images = [leasing.current_card(session=each).query.image_id for each in sessions]
    assert len(set(images)) == 6
    seventh = leasing.current_card(session=leasing.open_session(user=alice, project=project, device="7"))
    assert seventh.query is None
    assert seventh.empty.until is not None


@pytest.mark.parametrize(
    ("holders", "kind", "words", "unsaid"),
    [
        (["bob"], "all_on_lease", "with another annotator", "tab of yours"),
        (["alice"], "on_lease_to_you", "open in another tab of yours", "annotator"),
        (["alice", "bob"], "on_lease_to_you_and_others", "another tab of yours or with another annotator", "Go on"),
    ],
)
def test_an_empty_page_tells_ones_own_other_tabs_from_other_people(
    make_project, alice, bob, holders, kind, words, unsaid
):
    project = make_project("small", images=len(holders))
    for name in holders:
        user = {"alice": alice, "bob": bob}[name]
        leasing.current_card(session=leasing.open_session(user=user, project=project, device="first"))
    empty = leasing.current_card(session=leasing.open_session(user=alice, project=project, device="second")).empty
    assert empty.kind == kind
    assert words in empty.text
    assert unsaid not in empty.text


def test_the_database_refuses_two_live_leases_of_one_slot(session, alice, project):
    card = leasing.current_card(session=session)
    other = leasing.open_session(user=alice, project=project, device="other")
    with pytest.raises(IntegrityError), transaction.atomic():
        Query.objects.create(
            project=project,
            session=other,
            image=card.query.image,
            kind=Query.Kind.FALLBACK,
            strategy="random",
            source="random",
            lease_until=timezone.now() + timedelta(minutes=5),
        )


def test_with_overlap_two_people_label_one_image_but_nobody_labels_it_twice(make_project, alice, bob):
    project = make_project("twice", images=1, overlap=2)
    tabs = [leasing.open_session(user=user, project=project, device="") for user in (alice, bob)]
    cards = [leasing.current_card(session=tab) for tab in tabs]
    assert cards[0].query.image == cards[1].query.image
    assert {card.query.slot for card in cards} == {0, 1}
    after = [label(tab, card, 0) for tab, card in zip(tabs, cards, strict=True)]
    assert all(card.query is None for card in after)
    assert Annotation.objects.values("user").distinct().count() == 2


def test_an_expired_lease_goes_to_somebody_else_and_the_late_answer_is_kept(make_project, alice, bob):
    project = make_project("late", images=1)
    slow = leasing.open_session(user=bob, project=project, device="slow")
    card = leasing.current_card(session=slow)
    Query.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    quick = leasing.open_session(user=alice, project=project, device="quick")
    quick_card = leasing.current_card(session=quick)
    assert quick_card.query.image == card.query.image
    label(quick, quick_card, 0)
    label(slow, card, 1)
    late = Annotation.objects.get(user=bob)
    assert late.late
    assert late.label_class.index == 1
    assert reads.current_labels(project).count() == 2


def test_an_answer_after_the_lease_ended_is_on_time_while_nobody_took_the_image(session):
    card = leasing.current_card(session=session)
    Query.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    label(session, card, 0)
    assert not Annotation.objects.get().late


def test_leaving_the_page_shortens_the_lease_and_coming_back_renews_it(session):
    card = leasing.current_card(session=session)
    leasing.shorten(session=session)
    card.query.refresh_from_db()
    assert card.query.lease_until <= timezone.now() + timedelta(seconds=20)
    assert leasing.renew(session=session)
    card.query.refresh_from_db()
    assert card.query.lease_until > timezone.now() + timedelta(seconds=200)


def test_a_skip_never_comes_back_to_the_same_person_and_does_to_another(make_project, alice, bob):
    project = make_project("skips", images=1)
    mine = leasing.open_session(user=bob, project=project, device="")
    card = leasing.current_card(session=mine)
    after = labelling.record_annotation(
        session=mine, query_id=card.query.pk, answer=Answer(kind="skip"), client_key=uuid4()
    )
    assert after.empty.kind == "all_answered_by_you"
    theirs = leasing.open_session(user=alice, project=project, device="")
    assert leasing.current_card(session=theirs).query.image == card.query.image


def test_a_flag_sets_the_image_aside_without_a_label(session):
    card = leasing.current_card(session=session)
    answer = Answer(kind="flag", comment="  two digits?  ")
    labelling.record_annotation(session=session, query_id=card.query.pk, answer=answer, client_key=uuid4())
    annotation = Annotation.objects.get()
    assert (annotation.kind, annotation.flagged, annotation.comment) == ("skip", True, "two digits?")


def test_undo_takes_the_label_back_and_puts_the_image_on_screen(session):
    first = leasing.current_card(session=session)
    second = label(session, first, 1)
    back = labelling.undo(session=session, client_key=uuid4())
    assert back.query.image == first.query.image
    assert back.query.kind == Query.Kind.UNDO
    assert back.progress.labelled == 0
    second.query.refresh_from_db()
    assert second.query.state == Query.State.RELEASED
    withdrawal = Annotation.objects.get(kind=Annotation.Kind.WITHDRAW)
    assert withdrawal.supersedes.label_class.index == 1
    after = label(session, back, 2)
    assert after.progress.labelled == 1
    assert reads.current_labels(session.project).get().label_class.index == 2


def test_undo_walks_back_through_the_tabs_answers_and_then_says_there_is_none(session):
    images = []
    card = leasing.current_card(session=session)
    for index in (0, 1):
        images.append(card.query.image)
        card = label(session, card, index)
    assert labelling.undo(session=session, client_key=uuid4()).query.image == images[1]
    assert labelling.undo(session=session, client_key=uuid4()).query.image == images[0]
    with pytest.raises(labelling.NothingToUndoError):
        labelling.undo(session=session, client_key=uuid4())


def test_undo_leaves_alone_what_somebody_else_made_of_the_answer(session, alice, project):
    card = label(session, leasing.current_card(session=session), 0)
    assert card.can_undo
    mine = Annotation.objects.get()
    other = Answer(kind="label", class_index=1)
    labelling.correct(user=alice, annotation_id=mine.pk, project=project, answer=other, client_key=uuid4())
    assert not leasing.current_card(session=session).can_undo
    with pytest.raises(labelling.NothingToUndoError):
        labelling.undo(session=session, client_key=uuid4())


def test_undo_twice_with_one_key_undoes_once(session):
    card = label(session, leasing.current_card(session=session), 0)
    label(session, card, 1)
    key = uuid4()
    once = labelling.undo(session=session, client_key=key)
    assert labelling.undo(session=session, client_key=key).query == once.query
    assert Annotation.objects.filter(kind=Annotation.Kind.WITHDRAW).count() == 1


def test_a_correction_is_a_new_row_and_the_old_one_stays(session, bob, project):
    label(session, leasing.current_card(session=session), 0)
    old = Annotation.objects.get()
    key = uuid4()
    arguments = {"user": bob, "annotation_id": old.pk, "project": project, "client_key": key}
    new = labelling.correct(answer=Answer(kind="label", class_index=2), **arguments)
    assert labelling.correct(answer=Answer(kind="label", class_index=2), **arguments) == new
    assert new.supersedes == old
    assert [row.label_class.index for row in reads.current_labels(project)] == [2]
    with pytest.raises(labelling.SupersededError):
        labelling.correct(
            user=bob,
            annotation_id=old.pk,
            project=project,
            answer=Answer(kind="label", class_index=1),
            client_key=uuid4(),
        )


def test_another_annotator_cannot_correct_but_an_admin_can(session, alice, charlie, project):
    Membership.objects.create(user=charlie, project=project, role=Membership.Role.ANNOTATOR)
    label(session, leasing.current_card(session=session), 0)
    arguments = {"annotation_id": Annotation.objects.get().pk, "project": project}
    answer = Answer(kind="label", class_index=2)
    with pytest.raises(labelling.NotYoursError):
        labelling.correct(user=charlie, answer=answer, client_key=uuid4(), **arguments)
    assert labelling.correct(user=alice, answer=answer, client_key=uuid4(), **arguments).user == alice


def test_the_next_card_is_the_one_prepared_for_that_very_answer(session, project):
    live = make_live(project)
    images = list(project.images.order_by("row"))
    card = leasing.current_card(session=session)
    others = [image for image in images if image != card.query.image]
    answers = {"0": [entry(others[0])], "1": [entry(others[1])], "skip": [entry(others[2])], "flag": [entry(others[3])]}
    Ranking.objects.create(
        project=project, image=card.query.image, linearization=live, strategy="lookahead", answers=answers
    )
    following = label(session, card, 1)
    assert following.query.image == others[1]
    assert following.query.kind == Query.Kind.RANKED
    assert following.prepared
    assert following.labels_behind == 0
    assert following.reason == "Look-ahead: this label would move 7 predictions and turn 2 to another class."
    assert [item.value for item in following.classes] == [0.75, 0.25, 0.0]


def test_a_flag_has_a_ranking_of_its_own(session, project):
    live = make_live(project)
    card = leasing.current_card(session=session)
    others = [image for image in project.images.order_by("row") if image != card.query.image]
    answers = {"skip": [entry(others[2])], "flag": [entry(others[3])]}
    Ranking.objects.create(
        project=project, image=card.query.image, linearization=live, strategy="lookahead", answers=answers
    )
    after = labelling.record_annotation(
        session=session, query_id=card.query.pk, answer=Answer(kind="flag"), client_key=uuid4()
    )
    assert after.query.image == others[3]


def test_labels_of_others_that_the_ranking_had_not_seen_are_counted_behind(session, alice, project):
    live = make_live(project)
    other = leasing.open_session(user=alice, project=project, device="")
    card, theirs = leasing.current_card(session=session), leasing.current_card(session=other)
    label(other, theirs, 2)
    left = project.images.exclude(pk__in=Query.objects.values("image")).order_by("row").first()
    Ranking.objects.create(
        project=project, image=card.query.image, linearization=live, strategy="lookahead", answers={"0": [entry(left)]}
    )
    following = label(session, card, 0)
    assert following.query.image == left
    assert following.labels_behind == 1
    assert following.query.labels_behind == 1


def test_without_a_ranking_for_the_answer_the_last_ranking_serves_and_says_so(session, project):
    live = make_live(project)
    card = leasing.current_card(session=session)
    taken = card.query.image
    other = project.images.exclude(pk=taken.pk).order_by("-row").first()
    Ranking.objects.create(
        project=project,
        image=None,
        linearization=live,
        strategy="lookahead",
        answers={"now": [entry(taken), entry(other)]},
    )
    following = label(session, card, 0)
    assert following.query.image == other
    assert following.query.kind == Query.Kind.FALLBACK
    assert not following.prepared
    assert "not ready yet" in following.reason
    assert reads.prepared_share(project) == 0.0


def test_behind_the_last_rankings_entries_its_order_goes_on(session, project):
    live = make_live(project)
    card = leasing.current_card(session=session)
    first, second, third = project.images.exclude(pk=card.query.image_id).order_by("-row")[:3]
    answers = {"now": [entry(second)], "then": [card.query.image_id, third.pk, first.pk]}
    Ranking.objects.create(project=project, image=None, linearization=live, strategy="lookahead", answers=answers)
    for expected in (second, third, first):
        card = label(session, card, 0)
        assert (card.query.image, card.query.source) == (expected, "present")
    assert card.query.prediction is None


def test_the_last_ranking_that_knows_the_answer_counts_as_prepared(session, project, bob):
    live = make_live(project)
    card = leasing.current_card(session=session)
    label(session, card, 0)
    known = to_ranges(Annotation.objects.values_list("pk", flat=True))
    used = Query.objects.values("image")
    other = project.images.exclude(pk__in=used).first()
    Ranking.objects.create(
        project=project,
        image=None,
        linearization=live,
        strategy="lookahead",
        answers={"now": [entry(other)]},
        known_ids=known,
    )
    fresh = leasing.current_card(session=leasing.open_session(user=bob, project=project, device=""))
    assert fresh.query.kind == Query.Kind.RANKED
    assert fresh.prepared
    # The two cards before it were drawn at random although a trained network was live: they count as not prepared.
    assert reads.prepared_share(project) == pytest.approx(1 / 3)


def test_before_the_first_network_the_order_of_diversity_serves(session, project):
    make_live(project, number=0)
    images = list(project.images.order_by("-row"))
    ColdStart.objects.bulk_create(
        ColdStart(project=project, image=image, position=place) for place, image in enumerate(images)
    )
    card = leasing.current_card(session=session)
    assert card.query.image == images[0]
    assert card.query.kind == Query.Kind.COLD_START
    assert label(session, card, 0).query.image == images[1]


def test_an_audit_image_carries_the_prediction_stored_before(make_project, bob):
    project = make_project("audited", audit_share=1.0)
    live = make_live(project)
    image = project.images.order_by("-row").first()
    AuditDraw.objects.create(
        project=project, image=image, linearization=live, prediction=[[2, 0.9]], unlabelled_count=6
    )
    session = leasing.open_session(user=bob, project=project, device="")
    card = leasing.current_card(session=session)
    assert (card.query.kind, card.query.image) == (Query.Kind.AUDIT, image)
    assert card.query.selection_probability == pytest.approx(1 / 6)
    assert card.query.audit_draw.used_at is not None
    assert label(session, card, 2).query.kind != Query.Kind.AUDIT


def test_statements_do_not_grow_with_the_pool(make_project, bob, django_assert_max_num_queries):
    counts = []
    for size in (10, 60):
        project = make_project(f"size-{size}", images=size)
        session = leasing.open_session(user=bob, project=project, device="")
        card = leasing.current_card(session=session)
        for _ in range(size // 10):
            card = label(session, card, 0)
        with django_assert_max_num_queries(30) as statements:
            label(session, card, 0)
        counts.append(len(statements))
    assert counts[0] == counts[1]
