"""A batch worked off: its images in its order, through the same leases, reserve, overlap and undo as everywhere."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotator.actions import labelling, leasing, reserving
from annotator.actions.batching import close_batch
from annotator.actions.projects import update_settings
from annotator.models import Annotation, AuditDraw, Query
from annotator.models.answer import Answer
from annotator.models.batch_methods import BatchMethod
from annotator.queries import batches, candidates
from annotator.queries.labelling import prepared_share
from tests.annotator.batch_steps import make_batch, rows_of, tab_in, work_off
from tests.annotator.labelling_steps import answer_hold, in_order, label, make_live, tab_of

pytestmark = pytest.mark.django_db
ON_POSTGRESQL = "postgresql" in settings.DATABASES["default"]["ENGINE"]


@pytest.fixture
def project(make_project):
    project = make_project("pool", images=10)
    in_order(project, project.images.order_by("row"))
    return project


@pytest.fixture
def batch(project):
    return make_batch(project, rows_of(project, 7, 2, 5), method="lcmd", mode="TP")


def skip(session, card):
    answer = Answer(kind="skip")
    return labelling.record_annotation(session=session, query_id=card.query.pk, answer=answer, client_key=uuid4())


def test_its_images_come_in_its_order_and_then_it_is_finished(batch, bob):
    session, card = tab_in(bob, batch)
    assert (card.query.kind, card.query.source, card.query.strategy) == ("batch", "batch", "lcmd-tp")
    assert card.reason == "Image 1 of batch “night shift” (LCMD-TP)."
    assert (card.batch.line.counts.left, card.batch.position) == (3, 1)
    rows, last = work_off(session, card)
    assert rows == [7, 2, 5]
    assert (last.empty.kind, last.empty.title) == ("batch_finished", "This batch is finished")
    assert last.empty.text == "All 3 images of “night shift” are labelled."
    batch.refresh_from_db()
    assert batch.state == "finished"
    assert batch.finished_at is not None


def test_the_order_is_its_own_where_an_earlier_batch_had_the_same_images(project, bob):
    earlier = make_batch(project, rows_of(project, 2, 7, 5, 1), name="earlier")
    close_batch(batch=earlier)
    rows, _ = work_off(*tab_in(bob, make_batch(project, rows_of(project, 5, 7, 2))))
    assert rows == [5, 7, 2]
    assert Annotation.objects.count() == 3


def test_more_images_than_are_looked_at_first_come_in_their_order(make_project, bob):
    project = make_project("long", images=9)
    order = [8, 3, 5, 0, 7, 1, 2, 6, 4]
    session, card = tab_in(bob, make_batch(project, rows_of(project, *order)))
    found = candidates.coming_next(session, live=None, follows=None, draw=None, tries=2)
    rows = dict(project.images.values_list("pk", "row"))
    assert [rows[one.image_id] for one in found] == order[1:]
    assert work_off(session, card)[0] == order


def test_two_people_share_it_and_never_hold_the_same_image(batch, alice, bob):
    first, second = tab_in(bob, batch), tab_in(alice, batch)
    assert [card.query.image.row for _, card in (first, second)] == [7, 2]
    third = label(*second, 0)
    assert third.query.image.row == 5
    waiting = label(*first, 0)
    assert (waiting.query, waiting.empty.kind) == (None, "all_on_lease")
    done = label(second[0], third, 0)
    assert done.empty.kind == "batch_finished"
    assert leasing.current_card(session=first[0]).empty.kind == "batch_finished"


def test_the_projects_own_queue_leaves_its_images_out_until_it_is_closed(batch, bob, project):
    session, card = tab_of(bob, project)
    rows, last = work_off(session, card)
    assert rows == [0, 1, 3, 4, 6, 8, 9]
    assert last.empty.kind == "in_batches"
    assert "3 images are waiting in open batches" in last.empty.text
    assert not last.empty.is_final
    close_batch(batch=batch)
    assert leasing.current_card(session=session).query.image.row == 2


def test_a_batch_that_is_closed_gives_nothing_more(batch, bob):
    session, card = tab_in(bob, batch)
    close_batch(batch=batch)
    after = label(session, card, 1)
    assert (after.query, after.empty.kind, after.empty.is_final) == (None, "batch_closed", True)
    assert Annotation.objects.get().late is False


def test_a_tab_that_is_early_waits_for_the_choice(batch, bob):
    batch.state = "preparing"
    batch.save()
    session, card = tab_in(bob, batch)
    assert (card.query, card.empty.kind, card.empty.is_final) == (None, "batch_preparing", False)
    batch.state = "open"
    batch.save()
    assert leasing.current_card(session=session).query.image.row == 7


def test_with_overlap_two_each_image_wants_two_people(project, batch, alice, bob):
    project.overlap = 2
    project.save()
    session, card = tab_in(bob, batch)
    rows, last = work_off(session, card)
    assert (rows, last.empty.kind) == ([7, 2, 5], "all_answered_by_you")
    assert batches.counts(batch).left == 3
    batch.refresh_from_db()
    assert batch.state == "open"
    rows, last = work_off(*tab_in(alice, batch))
    assert (rows, last.empty.kind) == ([7, 2, 5], "batch_finished")


def test_undo_of_the_last_answer_opens_it_again_with_that_image(batch, bob):
    session, card = tab_in(bob, batch)
    work_off(session, card)
    again = labelling.undo(session=session, client_key=uuid4())
    assert (again.query.image.row, again.query.kind) == (5, "undo")
    batch.refresh_from_db()
    assert (batch.state, batch.finished_at) == ("open", None)
    assert label(session, again, 2).empty.kind == "batch_finished"


def test_a_correction_that_takes_a_label_away_opens_it_again(batch, bob, project):
    session, card = tab_in(bob, batch)
    work_off(session, card)
    first = Annotation.objects.order_by("pk").first()
    labelling.correct(user=bob, annotation_id=first.pk, project=project, answer=Answer(kind="skip"), client_key=uuid4())
    batch.refresh_from_db()
    assert batch.state == "open"
    assert batches.counts(batch).left == 1


def test_a_label_given_in_the_projects_own_queue_and_taken_away_opens_it_again(project, bob):
    label(*tab_of(bob, project), 1)
    finished = make_batch(project, rows_of(project, 0), name="of one", state="finished")
    outside = Annotation.objects.get(image__row=0)
    assert outside.session.batch is None
    answer = Answer(kind="skip")
    labelling.correct(user=bob, annotation_id=outside.pk, project=project, answer=answer, client_key=uuid4())
    finished.refresh_from_db()
    assert finished.state == "open"


def test_more_labels_wanted_of_each_image_open_it_again_and_fewer_finish_it(project, batch, alice, bob):
    work_off(*tab_in(bob, batch))
    assert batches.open_lines(project) == []
    update_settings(project=project, overlap=2)
    assert [line.batch for line in batches.open_lines(project)] == [batch]
    assert tab_in(alice, batch)[1].query.image.row == 7
    update_settings(project=project, overlap=1)
    batch.refresh_from_db()
    assert batch.state == "finished"


def test_the_first_tab_gets_an_image_where_the_batch_is_finished_by_name_only(batch, bob):
    batch.state, batch.finished_at = "finished", timezone.now()
    batch.save()
    _, card = tab_in(bob, batch)
    assert card.query.image.row == 7
    batch.refresh_from_db()
    assert (batch.state, batch.finished_at) == ("open", None)


def test_a_deleted_image_is_passed_over_and_not_counted(batch, bob, project):
    project.images.filter(row=2).update(deleted_at=timezone.now())
    session, card = tab_in(bob, batch)
    assert card.batch.line.counts.total == 2
    rows, last = work_off(session, card)
    assert (rows, last.empty.text) == ([7, 5], "All 2 images of “night shift” are labelled.")


def test_a_skipped_image_goes_to_somebody_else(batch, alice, bob):
    session, card = tab_in(bob, batch)
    rows, last = work_off(session, skip(session, card))
    assert (rows, last.empty.kind) == ([2, 5], "all_answered_by_you")
    assert work_off(*tab_in(alice, batch))[0] == [7]


def test_the_reserve_is_filled_from_the_batch_in_its_order(project, bob, as_user):
    batch = make_batch(project, rows_of(project, 9, 3, 6, 1), method="random", mode="")
    session, card = tab_in(bob, batch)
    reply = as_user(bob).post(reverse("annotate-reserve", args=[project.slug, session.pk])).json()
    images = {image.pk: image.row for image in project.images.all()}
    assert [images[one["image"]] for one in reply["cards"]] == [3, 6, 1]
    assert reply["cards"][0]["reason"] == (
        "Image 2 of batch “night shift” (Random). Laid aside before the connection failed."
    )
    assert reply["cards"][0]["model"] == "Chosen by chance, without a model"
    holds = reserving.refill(session=session)
    answer_hold(session, holds[1])
    assert Annotation.objects.get().image.row == 6
    assert Annotation.objects.get().late is False
    assert work_off(session, card)[0] == [9, 3, 1]


def test_what_another_tab_keeps_in_reserve_comes_last_and_is_still_the_batchs(batch, alice, bob, project):
    mine, card = tab_in(bob, batch)
    reserving.refill(session=mine)
    _, second = tab_in(alice, batch)
    assert {second.query.image.row, card.query.image.row} <= {7, 2, 5}
    assert (second.query.kind, second.query.source) == ("batch", "reserve")
    assert "of batch “night shift”" in second.reason


def test_an_ordinary_reserve_holds_none_of_its_images(batch, alice, project):
    session, _ = tab_of(alice, project)
    assert {hold.image.row for hold in reserving.refill(session=session)} == {1, 3, 4, 6, 8, 9}


def test_audit_images_are_drawn_from_open_batches_too(batch, bob, project):
    project.audit_share = 1.0
    project.save()
    image = project.images.get(row=2)
    AuditDraw.objects.create(
        project=project, image=image, linearization=make_live(project), prediction=[], unlabelled_count=10
    )
    session, card = tab_of(bob, project)
    assert (card.query.kind, card.query.image) == ("audit", image)
    label(session, card, 1)
    assert batches.counts(batch).left == 2
    assert tab_in(bob, batch)[1].query.kind == "batch"


def test_its_cards_count_neither_as_prepared_nor_as_not(batch, bob, project):
    make_live(project)
    tab_in(bob, batch)
    assert prepared_share(project) is None


def test_the_statements_of_a_card_do_not_grow_with_the_batch(make_project, bob):
    counted = []
    for images in (8, 24):
        project = make_project(f"p{images}", images=images)
        session, card = tab_in(bob, make_batch(project, list(project.images.all())))
        with CaptureQueriesContext(connection) as caught:
            label(session, card, 1)
        counted.append(len(caught))
    assert counted[0] == counted[1]


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one writer at a time.")
@pytest.mark.django_db(transaction=True)
def test_many_people_at_once_work_it_off_each_image_once(make_project, alice, bob, charlie):
    project = make_project("pool", images=24)
    batch = make_batch(project, list(project.images.order_by("row")))
    people = [alice, bob, charlie, alice, bob, charlie]
    begin = threading.Barrier(len(people))

    def work(user):
        try:
            begin.wait(timeout=30)
            return work_off(*tab_in(user, batch))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(people)) as threads:
        found = [future.result(timeout=120) for future in [threads.submit(work, user) for user in people]]
    assert sorted(row for rows, _ in found for row in rows) == list(range(24))
    assert Query.objects.filter(state=Query.State.ANSWERED).count() == 24
    assert Annotation.objects.filter(late=False).count() == 24
    assert leasing.current_card(session=tab_in(bob, batch)[0]).empty.kind == "batch_finished"
    batch.refresh_from_db()
    assert batch.state == "finished"


@pytest.mark.parametrize("method", BatchMethod.values)
@pytest.mark.parametrize("mode", ["TP", "P", ""])
def test_the_name_of_every_method_fits_where_queries_keep_it(project, bob, method, mode):
    _, card = tab_in(bob, make_batch(project, rows_of(project, 5), method=method, mode=mode))
    assert card.query.kind == Query.Kind.BATCH
    assert len(card.query.strategy) <= Query._meta.get_field("strategy").max_length
    assert card.query.strategy.startswith(method)
