"""Two requests about one batch at the same moment on PostgreSQL: one person's answer and their file, an undo and the
last answer. SQLite has one writer at a time and none of this.
"""

import threading
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection, transaction

from annotator.actions import labelling, reserving
from annotator.actions.batch_labels import take_labels
from annotator.importing.batch_labels import Row
from annotator.models import Annotation, Query
from annotator.queries import batches
from annotator.queries.labelling import current_annotations
from tests.annotator.batch_steps import make_batch, rows_of, tab_in
from tests.annotator.labelling_steps import answer_hold, label, run_out
from tests.annotator.test_row_locks import PATIENCE, at_once

ON_POSTGRESQL = "postgresql" in settings.DATABASES["default"]["ENGINE"]
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one writer at a time."),
]
LOOKS = 100
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def batch(project):
    return make_batch(project, rows_of(project, 4, 1))


def one_after_the_other(first, second):
    """Do `second` while what `first` has written is not committed, until it waits or is done; return its result."""
    written, done = threading.Event(), threading.Event()

    def act_first():
        with transaction.atomic():
            first()
            written.set()
            for _ in range(LOOKS):
                if done.wait(0.05) or somebody_waits():
                    return

    def act_second():
        assert written.wait(PATIENCE)
        try:
            return second()
        finally:
            done.set()

    return at_once(act_first, act_second)[1]


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(WAITING)
        return cursor.fetchone()[0] > 0


def send_file(batch, user, image, answer):
    """Take one label of a file."""
    return take_labels(batch=batch, user=user, rows=[Row(line=2, image_id=str(image.pk), answer=answer)])


@pytest.mark.parametrize("late", [False, True], ids=["from the reserve", "late"])
def test_an_answer_that_meets_ones_own_file_stands_once(batch, bob, project, late):
    session, card = tab_in(bob, batch)
    query = card.query if late else reserving.refill(session=session)[0]
    if late:
        run_out(query)
        Query.objects.filter(pk=query.pk).update(state=Query.State.EXPIRED)

    def answer():
        with pytest.raises(labelling.QueryClosedError):
            answer_hold(session, query)

    one_after_the_other(lambda: send_file(batch, bob, query.image, "cat"), answer)
    assert current_annotations(project).filter(user=bob, image=query.image).count() == 1


def test_a_card_that_is_answered_while_ones_own_file_waits_stays_answered(batch, bob):
    session, card = tab_in(bob, batch)
    report = one_after_the_other(
        lambda: label(session, card, 0), lambda: send_file(batch, bob, card.query.image, "dog")
    )
    assert report.corrected == 1
    assert Query.objects.get(pk=card.query.pk).state == Query.State.ANSWERED


def test_an_undo_that_meets_the_last_answer_leaves_the_batch_open(batch, alice, bob):
    session, card = tab_in(bob, batch)
    others, last = tab_in(alice, batch)
    label(session, card, 1)
    one_after_the_other(lambda: label(others, last, 1), lambda: labelling.undo(session=session, client_key=uuid4()))
    batch.refresh_from_db()
    assert (batches.counts(batch).left, batch.state) == (1, "open")
    assert Annotation.objects.filter(kind=Annotation.Kind.WITHDRAW).count() == 1
