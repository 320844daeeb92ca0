"""Requests and the learner at the same moment on PostgreSQL, where rows are locked one by one: nobody waits in a
circle, and what one deletes no other names. SQLite has one writer at a time and none of this.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import OperationalError, connections, transaction
from django.utils import timezone
from psycopg.errors import DeadlockDetected

from annotator.actions import labelling, leasing
from annotator.actions.deadlocks import TRIES, again_after_deadlock
from annotator.learner import audit
from annotator.models import Annotation, AuditDraw, Image, Query
from annotator.models.answer import Answer
from tests.annotator.labelling_steps import in_order, label, make_live, run_out, tab_of

ON_POSTGRESQL = "postgresql" in settings.DATABASES["default"]["ENGINE"]
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one writer at a time."),
]
PATIENCE = 30


@pytest.fixture
def pool(make_project):
    project = make_project("pool", images=12)
    in_order(project, project.images.order_by("row"))
    return project


def at_once(*acts):
    """Do these in a thread and with a connection each; return what they return, or raise what the first one raises."""

    def do(act):
        try:
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(acts)) as threads:
        return [future.result(timeout=PATIENCE) for future in [threads.submit(do, act) for act in acts]]


def meet(monkeypatch, module, name, *, count):
    """Let the first call of each of `count` threads wait for the others' first call."""
    barrier, before, seen = threading.Barrier(count), getattr(module, name), threading.local()

    def wait(*args, **options):
        if not getattr(seen, "met", False):
            seen.met = True
            barrier.wait(timeout=PATIENCE)
        return before(*args, **options)

    monkeypatch.setattr(module, name, wait)


def test_tabs_whose_time_is_over_can_answer_at_the_same_moment(pool, alice, bob, monkeypatch):
    tabs = [tab_of(alice, pool), tab_of(bob, pool)]
    run_out(*(card.query for _, card in tabs))
    meet(monkeypatch, leasing, "close_expired", count=2)  # each has closed its own lease, and looks at the others'
    at_once(*(lambda session=session, card=card: label(session, card, 1) for session, card in tabs))
    assert Annotation.objects.filter(late=False).count() == 2


@pytest.mark.parametrize("twins", [True, False], ids=["one undo sent twice", "two tabs' undo"])
def test_an_answer_is_taken_back_once_by_whoever_asks_at_once(pool, bob, monkeypatch, twins):
    session, card = tab_of(bob, pool)
    following = label(session, card, 1)
    label(session, following, 1)
    key = uuid4()
    meet(monkeypatch, labelling, "withdraw", count=2)
    at_once(
        lambda: labelling.undo(session=session, client_key=key),
        lambda: labelling.undo(session=session, client_key=key if twins else uuid4()),
    )
    assert Annotation.objects.filter(kind=Annotation.Kind.WITHDRAW).count() == (1 if twins else 2)
    assert Query.objects.filter(session=session, state=Query.State.LEASED).count() == 1


def test_one_correction_sent_twice_at_once_is_made_once(pool, bob, monkeypatch):
    session, card = tab_of(bob, pool)
    label(session, card, 1)
    values = {
        "user": bob,
        "annotation_id": Annotation.objects.get().pk,
        "project": pool,
        "answer": Answer(kind="label", class_index=2),
        "client_key": uuid4(),
    }
    meet(monkeypatch, labelling, "send_task", count=2)
    first, second = at_once(lambda: labelling.correct(**values), lambda: labelling.correct(**values))
    assert first == second
    assert Annotation.objects.count() == 2


def between_the_look_and_the_lock(monkeypatch, image, act):
    """Have another request commit while the statement that takes this image sorts."""
    best = leasing._best

    def slowly(*given):
        found = best(*given)
        if found == [image]:
            monkeypatch.setattr(leasing, "_best", best)
            at_once(act)
        return found

    monkeypatch.setattr(leasing, "_best", slowly)


def test_an_image_that_was_answered_from_a_reserve_meanwhile_is_not_leased(pool, bob, charlie, monkeypatch):
    label_class = pool.classes.first()
    first, second = pool.images.order_by("row")[:2]
    answer = {"project": pool, "image": first, "user": bob, "kind": Annotation.Kind.LABEL, "label_class": label_class}
    between_the_look_and_the_lock(monkeypatch, first, lambda: Annotation.objects.create(client_key=uuid4(), **answer))
    assert tab_of(charlie, pool)[1].query.image == second


def test_of_two_that_wait_for_each_other_one_is_done_again(pool):
    first, second = pool.images.order_by("row").values_list("pk", flat=True)[:2]
    both_have_one, begun = threading.Barrier(2), []

    @again_after_deadlock
    @transaction.atomic
    def take_both(one, other):
        Image.objects.select_for_update().get(pk=one)
        begun.append(one)
        if len(begun) <= 2:
            both_have_one.wait(timeout=PATIENCE)
        return Image.objects.filter(pk=other).update(source_name=f"{one} then {other}")

    assert at_once(lambda: take_both(first, second), lambda: take_both(second, first)) == [1, 1]
    assert len(begun) == 3
    names = set(Image.objects.filter(pk__in=[first, second]).values_list("source_name", flat=True))
    assert names == {f"{first} then {second}", f"{second} then {first}"}


def test_inside_another_transaction_a_deadlock_is_not_for_the_inner_one_to_mend(pool):
    tries = []

    @again_after_deadlock
    def fail():
        tries.append(1)
        raise OperationalError from DeadlockDetected()

    with pytest.raises(OperationalError), transaction.atomic():
        fail()
    assert len(tries) == 1
    with pytest.raises(OperationalError):
        fail()
    assert len(tries) == 1 + TRIES


def test_with_overlap_an_image_that_filled_up_meanwhile_is_not_leased(pool, alice, bob, charlie, monkeypatch):
    pool.overlap = 2
    pool.save()
    first = tab_of(alice, pool)[1].query.image
    between_the_look_and_the_lock(monkeypatch, first, lambda: Query.objects.create(**lease_of(bob, first)))
    assert tab_of(charlie, pool)[1].query.image != first
    assert Query.objects.filter(image=first, state=Query.State.LEASED).count() == 2


def lease_of(user, image):
    session = leasing.open_session(user=user, project=image.project, device="test")
    until = timezone.now() + timedelta(minutes=5)
    return {"project": image.project, "session": session, "image": image, "slot": 1, "lease_until": until}


def drop_all(project):
    """What the learner does when the images of all draws have been answered or skipped."""
    images = list(project.images.order_by("row").values_list("pk", flat=True))
    votes = {row: [0] for row in range(len(images))}
    state = SimpleNamespace(image_ids=images, votes=votes, posterior=SimpleNamespace(pending=[]), known=set())
    audit.refresh(state, project, known_ids=[])


@pytest.fixture
def drawn(pool):
    pool.audit_share = 1.0
    pool.save()
    AuditDraw.objects.create(
        project=pool, image=pool.images.get(row=7), linearization=make_live(pool), prediction=[], unlabelled_count=12
    )
    return pool


def test_an_audit_draw_that_the_learner_drops_meanwhile_costs_nobody_an_answer(drawn, bob, monkeypatch):
    AuditDraw.objects.update(used_at="2026-01-01T00:00Z")
    session, card = tab_of(bob, drawn)
    AuditDraw.objects.update(used_at=None)
    read, dropped = threading.Event(), threading.Event()
    lease = leasing._lease

    def pause(*args, **options):
        read.set()
        assert dropped.wait(PATIENCE)
        return lease(*args, **options)

    def drop():
        assert read.wait(PATIENCE)
        with transaction.atomic():
            drop_all(drawn)
        dropped.set()

    monkeypatch.setattr(leasing, "_lease", pause)
    following, _ = at_once(lambda: label(session, card, 1), drop)
    assert Annotation.objects.get().query == card.query
    assert following.query.kind != Query.Kind.AUDIT
    assert not AuditDraw.objects.exists()


def test_an_audit_draw_that_a_request_is_using_is_left_alone_by_the_learner(drawn, bob):
    leased, dropped = threading.Event(), threading.Event()

    def lease():
        with transaction.atomic():
            _, card = tab_of(bob, drawn)
            leased.set()
            dropped.wait(1.0)  # without the lock being passed over, the learner waits for this one
        return card

    def drop():
        assert leased.wait(PATIENCE)
        with transaction.atomic():
            drop_all(drawn)
        dropped.set()

    card, _ = at_once(lease, drop)
    assert card.query.audit_draw == AuditDraw.objects.get()
